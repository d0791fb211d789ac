"""The preferred layer of networks of which several layers were given: maps, table, figures."""

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds.analyses.design import labels_for_tests
from brainnrds.analyses.drawing import draw_map
from brainnrds.encoding import correlation_score, prediction_significance, preferred_space

__all__ = ["compare_layers", "save_layers"]

# where a preference is drawn and counted: q, and, without a test, r
_LEVEL, _SMALLEST_SCORE = 0.05, 0.1
_COLUMNS = {
    "network": {
        "Description": "As maps call it: the feature space of its first layer, or its name"
    },
    "layer": {"Description": "Number in the map of the preferred layer: the order that was given"},
    "encoder": {"Description": "The network and its layer, as they were given"},
    "mean_all": {
        "Description": "Mean held-out r of the model of this layer alone (with control "
        "spaces, where there are any), over all voxels with data"
    },
    "n_preferring": {
        "Description": f"Voxels that prefer it, of those that their preferred layers predict with "
        f"q < {_LEVEL} (without a test, r > {_SMALLEST_SCORE})"
    },
    "share_preferring": {"Description": "Their share of these voxels"},
    "share_elsewhere": {
        "Description": "Share of the other voxels, in which a preference means nothing"
    },
}
_ABOUT = (
    "Layers of one network, each in a model of its own. A voxel prefers the layer with the best "
    "score of the inner cross-validation, averaged over the training sets of all outer folds: "
    "tested films do not choose."
)


def compare_layers(data, held_out, layers, options):
    """Find and test the preferred layers.

    Parameters
    ----------
    data : MovieData
    held_out : dict of str to Bunch
        Predictions, folds and training scores by feature space.
    layers : dict of str to dict
        Of each network: feature space to what its layer is called.
    options : EncodeOptions

    Returns
    -------
    preferences : dict of str to Bunch
        By network: ``encoders`` (the layers), ``preferred`` (number of the layer from 1 on, NaN
        without data), ``agreement``, ``score`` (held-out r of what the layers that training films
        prefer predict), ``test`` of it, and ``alone``, the scores of the layers.
    """
    preferences = {}
    for network, spaces in layers.items():
        found = preferred_space([held_out[space] for space in spaces])
        test = prediction_significance(
            data.bold,
            found.predictions,
            **labels_for_tests(data, [found.predictions], found.folds),
            folds=found.folds,
            n_permutations=options.n_permutations,
            random_state=options.random_state,
        )
        folds = np.where(data.films >= 0, found.folds, -1)
        alone = {
            space: correlation_score(
                data.bold, held_out[space].predictions, runs=data.runs, folds=folds
            )
            for space in spaces
        }
        preferences[network] = Bunch(
            encoders=spaces,
            alone={space: np.where(data.voxels, r, np.nan) for space, r in alone.items()},
            preferred=np.where(data.voxels, found.preferred + 1, np.nan),
            agreement=np.where(data.voxels, found.agreement, np.nan),
            score=np.where(data.voxels, test.score, np.nan),
            test=test,
        )
    return preferences


def _is_predicted(preference):
    """Voxels in which a preference can be read."""
    if preference.test.q_values is None:
        return np.isfinite(preference.preferred) & (preference.score > _SMALLEST_SCORE)
    return (preference.test.q_values < _LEVEL) & (preference.score > 0)


def save_layers(record, preferences, data):
    """Write maps, figures and the table of preferred layers.

    Parameters
    ----------
    record : Record
    preferences : dict of str to Bunch
        Of `compare_layers`.
    data : MovieData
    """
    rows = []
    for network, found in preferences.items():
        order = ", ".join(f"{i} = {name}" for i, name in enumerate(found.encoders.values(), 1))
        maps = {
            "preferredLayer": (found.preferred, f"Preferred layer in training: {order}", "layer"),
            "layerAgreement": (found.agreement, "Share of outer folds that prefer it", "share"),
            "preferredR": (found.score, "Held-out r of the layers preferred in training", "r"),
        }
        if found.test.q_values is not None:
            maps["preferredQ"] = found.test.q_values, "q-value of it", "probability"
        for stat, (values, about, unit) in maps.items():
            record.save_map(
                values, data.masker, description=about, unit=unit, feat=network, stat=stat
            )
        predicted = _is_predicted(found)
        if predicted.any():
            where = (
                f"In {int(predicted.sum()):,} voxels that the preferred layers predict."
                if found.test.reason is None
                else f"Where r is above {_SMALLEST_SCORE}, as there are {found.test.reason}."
            )
            drawn = draw_map(
                data.masker,
                np.where(predicted, found.preferred, np.nan),
                data.space,
                title=f"sub-{record.subject}: preferred layer, {network}",
                label=f"layer: {order}",
                vmin=1,
                vmax=len(found.encoders),
                cmap="viridis",
                pycortex_subject=record.pycortex_subject,
            )
            record.save_drawn(drawn, feat=network, stat="preferredLayer", description=where)
        others = np.isfinite(found.preferred) & ~predicted
        for number, (space, encoder) in enumerate(found.encoders.items(), 1):
            mine = found.preferred == number
            rows.append(
                {
                    "network": network,
                    "layer": number,
                    "encoder": encoder,
                    "mean_all": np.nanmean(found.alone[space]),
                    "n_preferring": int((mine & predicted).sum()),
                    "share_preferring": _share(mine, predicted),
                    "share_elsewhere": _share(mine, others),
                }
            )
    record.save_table(pd.DataFrame(rows), columns=_COLUMNS, description=_ABOUT, desc="encodeLayers")


def _share(mine, among):
    return float(mine[among].mean()) if among.any() else np.nan
