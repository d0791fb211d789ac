"""What the compared feature spaces explain alone, and what they share: maps, table, diagram."""

import numpy as np
import pandas as pd

from brainnrds.analyses.encoders import RESPONSIVE
from brainnrds.encoding import partition_variance
from brainnrds.encoding._tested import Sharing
from brainnrds.plotting import plot_variance_partition

__all__ = ["CONTROLS_ALONE", "area_label", "divide_variance", "save_partition"]

#: The model of the control spaces alone, beyond which areas are.
CONTROLS_ALONE = "controlsalone"
_COLUMNS = {
    "area": {"Description": "Feature spaces that share it, and no other of the compared ones"},
    "mean_all": {"Description": "Mean R2 over all voxels with data"},
    "mean_responsive": {"Description": f"Mean R2 over {RESPONSIVE}"},
}
_ABOUT = (
    "The variance that the joint model explains in held-out films, divided among feature spaces "
    "(variance partitioning). All areas sum to the joint model's R2, less that of the control "
    "spaces. Noise makes small areas negative."
)


def area_label(area):
    """Name an area in a file's name: ("video", "image") is "videoAndImage"."""
    first, *others = area
    return first + "".join(f"And{name[0].upper()}{name[1:]}" for name in others)


def divide_variance(data, held_out, spaces, n_jobs=1):
    """Divide the variance among two or three feature spaces.

    Parameters
    ----------
    data : MovieData
    held_out : dict of str to Bunch
        Predictions and folds of each model, by its name.
    spaces : list of str
        Those that are compared.
    n_jobs : int, default=1
        Threads that share the voxels.

    Returns
    -------
    areas : dict of tuple of str to array of shape (n_voxels,), or None
        NaN where there are no data. None of more or fewer spaces.
    """
    if len(spaces) not in (2, 3):
        return None
    models = {(name,): name for name in spaces} | {tuple(spaces): "joint"}
    if len(spaces) == 3:
        models |= {tuple(n for n in spaces if n != name): f"without{name}" for name in spaces}
    if CONTROLS_ALONE in held_out:
        models[()] = CONTROLS_ALONE
    predictions = {used: held_out[model].predictions for used, model in models.items()}
    folds = np.where(data.films >= 0, held_out["joint"].folds, -1)

    def of_batch(batch):
        some = {used: values[:, batch] for used, values in predictions.items()}
        return partition_variance(data.bold[:, batch], some, runs=data.runs, folds=folds)

    batches = Sharing(len(data.voxels), len(data.bold), n_jobs, "cpu")(of_batch)
    return {
        area: np.where(data.voxels, np.concatenate([areas[area] for areas in batches]), np.nan)
        for area in batches[0]
    }


def save_partition(record, areas, data, responsive):
    """Write maps of what is shared, the table of all areas and the diagram.

    Parameters
    ----------
    record : Record
    areas : dict
        Of `divide_variance`.
    data : MovieData
    responsive : bool array of shape (n_voxels,)
    """
    for area, values in areas.items():
        if len(area) > 1:
            record.save_map(
                values,
                data.masker,
                description=f"R2 that {' and '.join(area)} features share, and no other",
                unit="R2",
                feat=area_label(area),
                stat="sharedR2",
            )
    table = pd.DataFrame(
        {
            "area": [" and ".join(area) for area in areas],
            "mean_all": [np.nanmean(values) for values in areas.values()],
            "mean_responsive": [
                np.nanmean(values[responsive]) if responsive.any() else np.nan
                for values in areas.values()
            ],
        }
    )
    record.save_table(table, columns=_COLUMNS, description=_ABOUT, desc="encodePartition")
    column, where = ("mean_responsive", "responsive") if responsive.any() else ("mean_all", "all")
    figure = plot_variance_partition(
        dict(zip(areas, table[column], strict=True)), label=f"mean R2 of {where} voxels"
    )
    record.save_figure(figure, "venn", desc="encodePartition")
