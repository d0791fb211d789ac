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
from brainnrds.group.left_out_people import predict_left_out_people
from brainnrds.group.neighbours import (
    grayordinate_neighbours,
    mesh_neighbours,
    volume_neighbours,
)

__all__ = [
    "FunctionalAlignment",
    "conjunction",
    "count_significant",
    "fixed_effects",
    "grayordinate_neighbours",
    "inter_subject_correlation",
    "match_films",
    "mesh_neighbours",
    "one_sided_p",
    "predict_left_out_people",
    "prevalence",
    "sign_flip_test",
    "tfce",
    "volume_neighbours",
]
