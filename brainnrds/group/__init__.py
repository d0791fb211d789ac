"""Several people: what they share, and what they say of these people or of others."""

from brainnrds.group.alignment import FunctionalAlignment
from brainnrds.group.cluster_enhancement import tfce
from brainnrds.group.inference import (
    conjunction,
    count_significant,
    fixed_effects,
    one_sided_p,
    prevalence,
    sign_flip_test,
)
from brainnrds.group.inter_subject import inter_subject_correlation, match_films
from brainnrds.group.laterality import homologous_parcels, laterality
from brainnrds.group.left_out_people import predict_left_out_people
from brainnrds.group.map_null import map_correlation, spin_orders, variogram_surrogates
from brainnrds.group.neighbours import (
    grayordinate_neighbours,
    mesh_neighbours,
    volume_neighbours,
)
from brainnrds.group.shared_response import shared_response

__all__ = [
    "FunctionalAlignment",
    "conjunction",
    "count_significant",
    "fixed_effects",
    "grayordinate_neighbours",
    "homologous_parcels",
    "inter_subject_correlation",
    "laterality",
    "map_correlation",
    "match_films",
    "mesh_neighbours",
    "one_sided_p",
    "predict_left_out_people",
    "prevalence",
    "shared_response",
    "sign_flip_test",
    "spin_orders",
    "tfce",
    "variogram_surrogates",
    "volume_neighbours",
]
