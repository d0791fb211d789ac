"""
Which network predicts the brain best?
======================================

The paper's comparison of encoders for one participant of any BIDS data set: mean held-out
correlation per encoder, over all voxels and per parcel, with the noise ceiling. It needs the
networks' weights (``--download`` fetches them; mind their licences) and, for hours of film, a GPU::

    python run_compare_encoders.py /data/bids out --subject 01 --device auto --n-cpus 16 --download

All encoders share one decoding of the films, and an interrupted run goes on where it was.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from brainnrds import VideoEncodingModel
from brainnrds.analyses.extract import extract_features
from brainnrds.encoding import (
    correlation_score,
    explainable_variance,
    film_groups,
    held_out_predictions,
    noise_ceiling,
    parcel_table,
    stack_repeats,
)
from brainnrds.features import (
    ImageEncoder,
    MotionEnergy,
    StaticEnergy,
    VideoEncoder,
    distinct_clips,
    list_encoders,
    place_features,
)
from brainnrds.io import average_repeats, find_runs, load_atlas, load_runs
from brainnrds.plotting import plot_bars

# the paper's groups; its R3M and VIP are networks for robots that are not offered here
GROUPS = {
    "video": ["videomae-large", "videomae-base", "xclip-base"],
    "embodied": ["vc1-large"],
    "image and text": ["clip-convnext-base", "clip-vit-base"],
    "image": ["dinov2-base", "dino-base", "resnet50", "hiera-base-plus"],
    "without weights": ["motion-energy", "static-energy"],
}

parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("bids_dir", type=Path)
parser.add_argument("output_dir", type=Path)
parser.add_argument("--subject", required=True)
parser.add_argument("--derivatives", type=Path)
parser.add_argument("--task")
parser.add_argument("--space")
parser.add_argument("--confounds", nargs="*", default=["motion", "high_pass", "wm_csf"])
parser.add_argument(
    "--encoders", nargs="+", help="names, hub ids or folders (default: the paper's)"
)
parser.add_argument("--atlas", help="label file of the data's space, or hcp-mmp")
parser.add_argument("--work-dir", type=Path, default=Path("work"))
parser.add_argument("--device", default="cpu")
parser.add_argument("--n-cpus", type=int, default=1)
parser.add_argument("--download", action="store_true")
options = parser.parse_args()

# %%
# Encoders
# --------
# A folder or hub id that is not in the table is tried as a video network, then as an image network.


def make_extractor(name):
    if name == "motion-energy":
        return MotionEnergy()
    if name == "static-energy":
        return StaticEnergy()
    settings = {"device": options.device, "download": options.download}
    table = list_encoders()
    if name in table.index:
        encoder = VideoEncoder if table.loc[name, "kind"] == "video" else ImageEncoder
        return encoder(name, **settings).fit()
    try:
        return VideoEncoder(name, **settings).fit()
    except ValueError as error:
        if "use ImageEncoder" not in str(error):
            raise
        return ImageEncoder(name, **settings).fit()


names = options.encoders or [name for group in GROUPS.values() for name in group]
extractors = {Path(name).name: make_extractor(name) for name in names}

# %%
# Responses, and how well any model could do
# ------------------------------------------

runs = find_runs(
    options.bids_dir,
    derivatives=options.derivatives,
    subject=options.subject,
    task=options.task,
    space=options.space,
)
data = load_runs(runs, confounds=tuple(options.confounds), repeats="concatenate")
ceiling = None
if max(Counter(p.film for run in runs for p in run.films).values()) > 1:
    repeats = stack_repeats(
        data.bold,
        runs=data.runs,
        films=data.films,
        film_times=data.film_times,
        tolerance=data.t_r / 2,
    )
    data = average_repeats(data)
    n_repeats = int(np.median(data.n_repeats[data.films >= 0]))
    ceiling = np.sqrt(noise_ceiling(explainable_variance(repeats), n_repeats=n_repeats))

# %%
# Features: every film is decoded once for all encoders
# -----------------------------------------------------

times, index = distinct_clips(
    data.films, data.film_times, clip_duration=data.t_r, film_durations=data.film_durations
)
films = list(zip(data.stim_files, times, [data.t_r] * len(times), strict=True))
features = extract_features(
    films, extractors, store_dir=options.work_dir / "features", n_jobs=options.n_cpus
)

# %%
# Held-out predictions of every film by every encoder
# ---------------------------------------------------

# films of one scanner run are held out together, unless that is all of them
number = {name: i for i, name in enumerate(data.film_names)}
pairs = np.array([(i, number[p.film]) for i, run in enumerate(runs) for p in run.films])
group_of_film = np.arange(len(data.film_names))
groups = film_groups(pairs[:, 0], pairs[:, 1])
if len(np.unique(groups)) > 1:
    group_of_film[pairs[:, 1]] = groups
units = np.where(data.films >= 0, group_of_film[data.films], -1)
n_folds = min(5, len(np.unique(units[units >= 0])))
delays = tuple(round(seconds / data.t_r) for seconds in (2, 4, 6, 8))
predictions, folds = {}, None
for name, per_film in features.items():
    model = VideoEncodingModel(delays=tuple(dict.fromkeys(delays)), device=options.device)
    X = place_features(per_film, index)
    labels = {"runs": data.runs, "films": units}
    held_out = held_out_predictions(model, X, data.bold, n_folds=n_folds, **labels)
    predictions[name], folds = held_out.predictions, held_out.folds
    score = correlation_score(data.bold, predictions[name], runs=data.runs, folds=folds)
    print(f"{name}: mean r = {np.nanmean(score):.3f}")

# %%
# Table and chart
# ---------------

labels = {"t_r": data.t_r, "runs": data.runs, "films": data.films, "folds": folds}
everywhere = np.ones(data.bold.shape[1], dtype=int)
tables = [parcel_table(data.bold, predictions, everywhere, names={1: "all"}, **labels)]
if options.atlas is not None:
    parcels, parcel_names = load_atlas(options.atlas, data)
    tables.append(parcel_table(data.bold, predictions, parcels, names=parcel_names, **labels))
    if ceiling is not None:
        tables[1]["ceiling"] = [np.nanmean(ceiling[parcels == p]) for p in tables[1]["parcel"]]
if ceiling is not None:
    tables[0]["ceiling"] = np.nanmean(ceiling)
table = pd.concat(tables, ignore_index=True)
options.output_dir.mkdir(parents=True, exist_ok=True)
path = options.output_dir / f"sub-{options.subject}_desc-encoders_table.tsv"
table.to_csv(path, sep="\t", index=False)

overall = table.iloc[0]
group_of = {name: group for group, members in GROUPS.items() for name in members}
ordered = sorted(
    predictions, key=lambda name: (list(GROUPS).index(group_of.get(name, "video")), -overall[name])
)
shown = {f"{name} ({group_of.get(name, 'yours')})": overall[name] for name in ordered}
intervals = {
    f"{name} ({group_of.get(name, 'yours')})": (overall[f"{name}_low"], overall[f"{name}_high"])
    for name in ordered
}
if ceiling is not None:
    shown["noise ceiling"] = overall["ceiling"]
figure = plot_bars(
    shown,
    intervals=intervals,
    label="held-out Pearson r, mean over voxels",
    title=f"sub-{options.subject}",
    controls=("noise ceiling",),
)
figure.savefig(path.with_name(f"sub-{options.subject}_desc-encoders_bars.png"), dpi=150)
print(path)
