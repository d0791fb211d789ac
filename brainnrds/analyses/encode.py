"""Video > Image: from a BIDS data set to maps, tables and a report.

Three models see the same training films and predict the same held-out films: video features alone,
image features alone, and both together. Further encoders get a model each, for the table and the
chart of encoders. Each model's predictions are a step that is kept in the
work folder: what is finished there is not computed again.
"""

import hashlib
import json
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

import brainnrds
from brainnrds._checks import check_device
from brainnrds.analyses.compare import compare_encoders, encoder_group, make_extractors
from brainnrds.analyses.design import (
    find_test_films,
    fingerprint,
    group_of_film,
    round_delays,
)
from brainnrds.analyses.drawing import draw_map, draw_surface, save_figure
from brainnrds.analyses.extract import describe_extractor, extract_features
from brainnrds.analyses.provenance import run_record
from brainnrds.encoding import (
    VideoEncodingModel,
    correlation_score,
    difference_significance,
    explainable_variance,
    group_maps,
    held_out_predictions,
    noise_ceiling,
    normalised_score,
    parcel_table,
    prediction_significance,
    stack_repeats,
    unique_variance,
)
from brainnrds.features import FeatureProjection, distinct_clips, place_features
from brainnrds.io import (
    InputError,
    atomic_path,
    average_repeats,
    check_output_dir,
    derivative_path,
    find_runs,
    load_atlas,
    load_group_maps,
    load_json,
    load_runs,
    load_table,
    save_json,
    save_map,
    save_table,
    write_dataset_description,
)
from brainnrds.io.derivatives import remove_results
from brainnrds.plotting import (
    plot_bars,
    plot_grouped_bars,
    plot_noise_ceiling,
    plot_score_comparison,
    plot_score_histograms,
)
from brainnrds.reporting import write_report

__all__ = ["encode_group", "encode_participant"]

FDR_LEVEL = 0.05
SMALLEST_CEILING = 0.1
FEWEST_PERMUTATIONS = 100
_DIFFERENCE = "difference (r)"
MOST_FOLDS = 5
_DEFAULT_DELAYS_SECONDS = (2.0, 4.0, 6.0, 8.0)
_VOXELS_PER_BLOCK = 4096
_MODELS = {"video": ["video"], "image": ["image"], "joint": ["video", "image"]}
_COLUMNS = {
    "model": {
        "Description": "What predicts. 'unique to': R2 that this space adds in the joint model; "
        "'half a film late': the same predictions against the response half a film later"
    },
    "kind": {"Description": "model, difference, unique variance or control"},
    "mean_all": {"Description": "Mean over all voxels with data"},
    "mean_responsive": {
        "Description": f"Mean over voxels whose noise ceiling exceeds {SMALLEST_CEILING} (R2)"
    },
    "median_normalised": {
        "Description": "Median of the score divided by the largest attainable one, same voxels"
    },
    "n_significant": {
        "Description": f"Voxels with q < {FDR_LEVEL} (false discovery rate), score above 0"
    },
    "n_significant_negative": {
        "Description": f"Voxels with q < {FDR_LEVEL}, score below 0 (image beats video)"
    },
}
_DRAWN_PARCELS = 10
_DRAWN_PARTICIPANTS = 11
_ABOUT_ENCODERS = (
    "Mean held-out correlation of encoders, each fitted alone to the same training films and "
    "tested in the same folds; 95 % intervals by block bootstrap of the tested samples, none from "
    "fewer than 12 blocks."
)
_ENCODER_COLUMNS = {
    "encoder": {
        "Description": "As it was given; 'half a film late' is the control: the same predictions "
        "against the response half a film later"
    },
    "group": {"Description": "video, image, embodied (trained for robots, on frames) or control"},
    "n_features": {"Description": "Columns of its feature space, before delays and projection"},
    "mean_all": {"Description": "Mean r over all voxels with data"},
    "mean_responsive": {
        "Description": f"Mean r over voxels whose noise ceiling exceeds {SMALLEST_CEILING} (R2)"
    },
    **{
        f"{end}_{region}": {"Description": f"{text} end of the 95 % interval of mean_{region}"}
        for end, text in (("low", "Lower"), ("high", "Upper"))
        for region in ("all", "responsive")
    },
    "ceiling_all": {"Description": "Mean r that a perfect model could reach, all voxels"},
    "ceiling_responsive": {"Description": "The same over the responsive voxels"},
}
_PARCEL_COLUMNS = {
    "parcel": "Number of the parcel in the atlas",
    "name": "Its name, where the atlas says",
    "n_voxels": "Voxels with data",
    "difference": "Mean over its voxels of r, video minus image",
    "ceiling": "Mean over its voxels of the r that a perfect model could reach",
}


def encode_participant(
    bids_dir,
    output_dir,
    subject,
    *,
    derivatives=None,
    session=None,
    task=None,
    space=None,
    bids_filter=None,
    database_path=None,
    video_encoders=("motion-energy",),
    image_encoders=("static-energy",),
    confounds=("motion", "high_pass", "wm_csf"),
    mask=None,
    repeats="average",
    test_films=None,
    delays_seconds=None,
    n_folds=None,
    n_iter=7,
    solver="auto",
    n_components=None,
    projection="pca",
    atlas=None,
    n_permutations=5000,
    device="auto",
    decoder="pyav",
    n_jobs=1,
    random_state=0,
    work_dir="work",
    progress=True,
):
    """Map where video features beat image features in one participant.

    Parameters
    ----------
    bids_dir, output_dir : path-like
    subject : str
        Label without "sub-".
    derivatives, session, task, space, bids_filter, database_path
        Which runs: see :func:`brainnrds.io.find_runs`.
    video_encoders, image_encoders : sequence of str
        "motion-energy" and "static-energy" need no weights; or names of
        :func:`brainnrds.features.list_encoders`, hub ids or local folders, with a layer after a
        colon ("videomae-large:11"). The first of each make the maps of Video > Image; with more
        than these two, each is also fitted alone and stands in the table and chart of encoders.
    confounds, mask, repeats
        See :func:`brainnrds.io.load_runs`. Held-out responses are averaged over repeats in any
        case.
    test_films : list of str or None, default=None
        Names of the films for testing alone; None holds out every film group in turn.
    delays_seconds : list of float or None, default=None
        Delays of the features before BOLD, in s, rounded to volumes. None: 2, 4, 6, 8.
    n_folds : int or None, default=None
        Outer folds over film groups; None: one per group, at most 5.
    n_iter : int, default=7
        Mixtures of the joint model.
    solver, device
        See :class:`brainnrds.VideoEncodingModel`; the device may be "auto".
    n_components : int or None, default=None
        Columns per feature space after a projection that is fitted to the training films of each
        outer fold; None: all columns as they are.
    projection : {"pca", "sparse"}, default="pca"
        Which: see :class:`brainnrds.features.FeatureProjection`.
    atlas : path-like, "hcp-mmp" or None, default=None
        Labels for the table per parcel.
    n_permutations : int, default=5000
    decoder : {"pyav", "torchcodec"}, default="pyav"
        See :func:`brainnrds.analyses.extract.extract_features`.
    n_jobs : int, default=1
        Processes that decode films.
    random_state : int, default=0
    work_dir : path-like, default="work"
    progress : bool, default=True

    Returns
    -------
    result : Bunch
        With ``report`` (Path), ``table`` (DataFrame) and ``note``, what to know of the table.

    Raises
    ------
    InputError
        Before anything is written to `output_dir`, with one line that says what is wrong.
    """
    start = time.perf_counter()
    check_output_dir(output_dir, bids_dir, derivatives=derivatives)
    device = check_device(device)
    if n_permutations < FEWEST_PERMUTATIONS:
        raise InputError(
            f"--n-permutations must be at least {FEWEST_PERMUTATIONS}; got {n_permutations}."
        )
    if n_components is not None and n_components < 1:
        raise InputError(f"--n-components must be at least 1; got {n_components}.")
    runs = find_runs(
        bids_dir,
        derivatives=derivatives,
        subject=subject,
        session=session,
        task=task,
        space=space,
        bids_filter=bids_filter,
        database_path=database_path,
    )
    extractors, encoder_names = make_extractors(video_encoders, image_encoders, device)
    delays, delays_seconds = round_delays(
        delays_seconds, runs[0].t_r, default=_DEFAULT_DELAYS_SECONDS
    )
    settings = {
        "subject": subject,
        "files": [fingerprint(run) for run in runs],
        "feature_spaces": {
            name: describe_extractor(extractor) for name, extractor in extractors.items()
        },
        "confounds": list(confounds),
        "mask": str(mask) if mask is not None else None,
        "repeats": repeats,
        "test_films": test_films,
        "delays": delays,
        "n_folds": n_folds,
        "n_iter": n_iter,
        "solver": solver,
        "n_components": n_components,
        "projection": projection if n_components else None,
        "decoder": decoder,
        "atlas": str(atlas) if atlas is not None else None,
        "n_permutations": n_permutations,
        "random_state": random_state,
        "version": brainnrds.__version__,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    tasks = {run.task for run in runs}
    task = tasks.pop() if len(tasks) == 1 else None  # several tasks: the label would be wrong
    entities = {"subject": subject, "task": task, "space": runs[0].space}
    record_path = derivative_path(output_dir, "provenance", {**entities, "desc": "encode"})
    table_path = derivative_path(output_dir, "table", {**entities, "desc": "encode"})
    if record_path.exists() and load_json(record_path).get("Key") == key:
        return _result(write_report(output_dir, subject), output_dir, entities)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        data, ev = _load_bold(runs, confounds, repeats, progress, mask=mask)
        parcels, parcel_names = (None, None) if atlas is None else load_atlas(atlas, data)
        data = _without_scrubbed(data)
        groups = group_of_film(runs, data.film_names)
        units = np.where(data.films >= 0, groups[data.films], -1)
        tested = find_test_films(test_films, data.film_names)
        n_groups = len(np.unique(units[data.films >= 0]))
        if tested is None and n_folds is None:
            n_folds = min(MOST_FOLDS, n_groups)
        if tested is None and not 2 <= n_folds <= n_groups:
            raise InputError(
                f"--n-folds must be between 2 and the number of film groups, {n_groups}; got "
                f"{n_folds}."
            )
        X, feature_spaces = _features(data, extractors, work_dir, n_jobs, progress, decoder)
        work = Path(work_dir) / f"sub-{subject}" / f"encode-{key[:16]}"
        held_out = {}
        alone = {name: [name] for name in extractors}
        for name, spaces in {**alone, **_MODELS}.items():
            columns = np.r_[tuple(feature_spaces[space] for space in spaces)]
            sizes = [len(range(*feature_spaces[space].indices(X.shape[1]))) for space in spaces]
            stops = np.cumsum(sizes).tolist()
            model = VideoEncodingModel(
                {s: slice(b - n, b) for s, n, b in zip(spaces, sizes, stops, strict=True)},
                delays=delays,
                n_iter=n_iter,
                solver=solver,
                device=device,
                random_state=random_state,
            )
            held_out[name] = _predict(
                work / name,
                model,
                X[:, columns],
                data,
                units,
                tested,
                n_folds,
                progress,
                title=f"{name} ({encoder_names[name]})" if name in encoder_names else name,
                projection=FeatureProjection(
                    n_components, method=projection, random_state=random_state
                )
                if n_components
                else None,
            )
        if repeats == "concatenate":
            data, held_out = _average_held_out(data, held_out)
        results = _compare(data, held_out, ev, n_permutations, random_state, progress)
    for message in caught:
        warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)

    info = {
        "space": data.space,
        "confounds": list(confounds),
        "n_runs": len(runs),
        "n_films": len(data.film_names),
        "film_groups": n_groups,
        "t_r": data.t_r,
        "repeats": repeats,
        "feature_spaces": {
            name: {
                "extractor": encoder_names[name],
                "n_features": len(range(*feature_spaces[name].indices(X.shape[1]))),
                **settings["feature_spaces"][name],
            }
            for name in extractors
        },
        "decoder": decoder,
        "n_components": n_components,
        "projection": projection if n_components else None,
        "projection_fitted_on": "training films of each outer fold" if n_components else None,
        "delays": delays,
        "delays_seconds": delays_seconds,
        "n_iter": n_iter,
        "solver": solver,
        "test_films": [data.film_names[film] for film in tested] if tested else None,
        "n_folds": None if tested else n_folds,
        "noise_ceiling": ev is not None,
        "n_permutations": results.tests["difference"].n_permutations,
        "block_seconds": results.tests["difference"].block_duration,
        "n_blocks": results.tests["difference"].n_blocks,
        "smallest_p": {name: test.smallest_p for name, test in results.tests.items()},
        "no_p_values_because": results.tests["difference"].reason,
        "handled": data.counts,
        "sources": data.sources,
    }
    table = _summary(results)
    write_dataset_description(output_dir, bids_dir, derivatives=derivatives)
    remove_results(output_dir, entities, "encode")
    maps = _save_maps(output_dir, entities, results, data, info)
    _save_figures(output_dir, entities, results, data, table)
    save_table(
        table_path,
        table,
        columns=_COLUMNS,
        metadata={"Description": _table_description(results), **info},
    )
    if parcels is not None:
        _save_parcels(
            output_dir, entities, data, held_out, parcels, parcel_names, results, random_state
        )
    if len(extractors) > len(("video", "image")):
        compared = compare_encoders(
            data,
            {name: held_out[name].predictions for name in extractors},
            held_out["video"].folds,
            encoder_names,
            {name: encoder_group(name, info["feature_spaces"][name]) for name in extractors},
            ceiling=None if results.ceiling is None else np.sqrt(results.ceiling),
            smallest_ceiling=np.sqrt(SMALLEST_CEILING),
            parcels=parcels,
            parcel_names=parcel_names,
            controls={f"{encoder_names['video']}, half a film late": results.scores["shifted"]},
            block_duration=results.tests["difference"].block_duration,
            random_state=random_state,
        )
        _save_encoders(output_dir, entities, compared, info)
    record = run_record(
        "encode",
        parameters=info,
        summary=_headline(results, table),
        seeds={"random_state": random_state},
        device=device,
        seconds=time.perf_counter() - start,
        warned=Counter(str(w.message) for w in caught if "brainnrds" in Path(w.filename).parts),
    )
    # written last: a record says that everything before it is there
    save_json(record_path, {**record, "Key": key, "Maps": maps})
    return _result(write_report(output_dir, subject), output_dir, entities)


def _result(report, output_dir, entities):
    """What the files say: the table of models, and that of encoders where several were compared."""
    path = derivative_path(output_dir, "table", {**entities, "desc": "encode"})
    table, note = load_table(path), load_json(path.with_suffix(".json"))["Description"]
    told = [table]
    encoders = derivative_path(output_dir, "table", {**entities, "desc": "encodeEncoders"})
    if encoders.exists():
        told.append(load_table(encoders).filter(regex="encoder|group|^mean_|^ceiling_"))
    return Bunch(report=report, table=table, told=told, note=note)


# preparing ----------------------------------------------------------------------------------------


def _load_bold(runs, confounds, repeats, progress, *, mask=None):
    """BOLD for the models, and the explainable variance of a single presentation or None."""
    shown = Counter(p.film for run in runs for p in run.films)
    options = {"confounds": tuple(confounds), "mask": mask, "verbose": int(progress)}
    if max(shown.values()) == 1:
        return load_runs(runs, **options), None
    single = load_runs(runs, repeats="concatenate", **options)
    ev = _explainable_variance(single)
    return (average_repeats(single) if repeats == "average" else single), ev


def _without_scrubbed(data):
    """Samples that were scrubbed in every presentation count as showing no film."""
    return replace(data, films=np.where(data.n_repeats > 0, data.films, -1))


def _explainable_variance(single):
    films = np.where(single.n_repeats > 0, single.films, -1)
    blocks = []
    for start in range(0, single.bold.shape[1], _VOXELS_PER_BLOCK):
        stacked = stack_repeats(
            single.bold[:, start : start + _VOXELS_PER_BLOCK],
            runs=single.runs,
            films=films,
            film_times=single.film_times,
            tolerance=single.t_r / 2,
        )
        blocks.append(explainable_variance(stacked))
    ev = np.concatenate(blocks)
    ev[~single.voxels] = np.nan
    return ev


def _features(data, extractors, work_dir, n_jobs, progress, decoder):
    """Features of every sample, and the columns of each space."""
    times, index = distinct_clips(
        data.films,
        data.film_times,
        clip_duration=data.t_r,
        film_durations=data.film_durations,
    )
    films = list(zip(data.stim_files, times, [data.t_r] * len(times), strict=True))
    features = extract_features(
        films,
        extractors,
        store_dir=Path(work_dir) / "features",
        n_jobs=n_jobs,
        progress=progress,
        decoder=decoder,
    )
    blocks, spaces, start = [], {}, 0
    for name, per_film in features.items():
        block = place_features(per_film, index)
        if np.ptp(block, axis=0).max() == 0:
            raise InputError(
                f"Feature space {name} must vary over the films; got the same value in every clip."
            )
        blocks.append(block)
        spaces[name] = slice(start, start + block.shape[1])
        start += block.shape[1]
    return np.concatenate(blocks, axis=1), spaces


# predicting and comparing -------------------------------------------------------------------------


def _predict(
    folder, model, X, data, units, tested, n_folds, progress, *, title=None, projection=None
):
    """Held-out predictions and fold labels: read if they are there, else computed and kept."""
    predictions, folds = folder.with_suffix(".npy"), folder.with_suffix(".folds.npy")
    if not folds.exists():
        if progress:
            print(f"fitting the model: {title or folder.name}", flush=True)  # noqa: T201 : a step's name
        result = held_out_predictions(
            model,
            X,
            data.bold,
            runs=data.runs,
            films=data.films if tested else units,
            n_folds=n_folds,
            test_films=tested,
            projection=projection,
        )
        for path, array in ((predictions, result.predictions), (folds, result.folds)):
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
    return Bunch(
        predictions=np.load(predictions, mmap_mode="r", allow_pickle=False),
        folds=np.load(folds, allow_pickle=False),
    )


def _average_held_out(data, held_out):
    """Average responses and predictions over the repeats of a film."""
    averaged = _without_scrubbed(average_repeats(data))
    merged = {}
    for name, result in held_out.items():
        predictions = replace(data, bold=np.nan_to_num(result.predictions))
        folds = replace(data, bold=result.folds[:, None].astype(np.float32))
        merged[name] = Bunch(
            predictions=average_repeats(predictions).bold,
            # the repeats of a film are in one fold
            folds=np.round(average_repeats(folds).bold[:, 0]).astype(int),
        )
        merged[name].folds[averaged.films < 0] = -1
    return averaged, merged


def _compare(data, held_out, ev, n_permutations, random_state, progress):
    """Scores, ceilings and tests of all voxels: a Bunch of dicts by name."""
    folds = held_out["video"].folds
    labels = {"runs": data.runs, "folds": folds}
    predictions = {name: held_out[name].predictions for name in _MODELS}
    scores = {name: np.full(data.bold.shape[1], np.nan) for name in (*_MODELS, "shifted")}
    unique = {name: np.full(data.bold.shape[1], np.nan) for name in ("video", "image")}
    other = {"video": "image", "image": "video"}
    late = _half_a_film_later(data.runs, folds)
    for start in range(0, data.bold.shape[1], _VOXELS_PER_BLOCK):
        block = slice(start, start + _VOXELS_PER_BLOCK)
        bold = data.bold[:, block]
        parts = {name: np.asarray(array[:, block]) for name, array in predictions.items()}
        for name, part in parts.items():
            scores[name][block] = correlation_score(bold, part, **labels)
        scores["shifted"][block] = correlation_score(bold[late], parts["video"], **labels)
        for name in unique:
            unique[name][block] = unique_variance(
                bold, parts["joint"], parts[other[name]], **labels
            )
    options = {
        "t_r": data.t_r,
        "runs": data.runs,
        "films": data.films,
        "folds": folds,
        "n_permutations": n_permutations,
        "random_state": random_state,
    }
    if progress:
        print("testing", flush=True)  # noqa: T201 : a step's name
    tests = {
        name: prediction_significance(data.bold, predictions[name], **options) for name in _MODELS
    }
    tests["difference"] = difference_significance(
        data.bold, predictions["video"], predictions["image"], **options
    )
    scores["difference"] = scores["video"] - scores["image"]
    for values in (*scores.values(), *unique.values()):
        values[~data.voxels] = np.nan
    ceiling = None
    normalised = {}
    if ev is not None:
        ceiling = noise_ceiling(ev, data.n_repeats[folds >= 0])
        normalised = {
            name: normalised_score(
                scores[name],
                ceiling,
                smallest_ceiling=SMALLEST_CEILING,
                name=f"scores of the {name} model",
            )
            for name in _MODELS
        }
        normalised["difference"] = normalised["video"] - normalised["image"]
    return Bunch(
        scores=scores,
        unique=unique,
        tests=tests,
        ev=ev,
        ceiling=ceiling,
        normalised=normalised,
        voxels=data.voxels,
    )


def _half_a_film_later(runs, folds):
    """Row order in which each segment's tested samples start at its middle: the time control."""
    order = np.arange(len(runs))
    for run in np.unique(runs):
        rows = np.flatnonzero((runs == run) & (folds >= 0))
        order[rows] = np.roll(rows, -(len(rows) // 2))
    return order


# writing ------------------------------------------------------------------------------------------


def _row(name, kind, values, results, test=None, normalised=None):
    responsive = (
        np.zeros(len(values), bool)
        if results.ceiling is None
        else results.ceiling > SMALLEST_CEILING
    )
    positive = negative = np.nan
    if test is not None and test.q_values is not None:
        significant = test.q_values < FDR_LEVEL
        positive = int((significant & (values > 0)).sum())
        if kind == _DIFFERENCE:
            negative = int((significant & (values < 0)).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no voxel is NaN
        return {
            "model": name,
            "kind": kind,
            "mean_all": np.nanmean(values),
            "mean_responsive": np.nanmean(values[responsive]) if responsive.any() else np.nan,
            "median_normalised": np.nan if normalised is None else np.nanmedian(normalised),
            "n_significant": positive,
            "n_significant_negative": negative,
        }


def _summary(results):
    scores, tests, normalised = results.scores, results.tests, results.normalised
    tested = {name: (name, "model (r)") for name in _MODELS}
    tested["difference"] = ("video - image", _DIFFERENCE)
    rows = [
        _row(label, kind, scores[name], results, tests[name], normalised.get(name))
        for name, (label, kind) in tested.items()
    ]
    rows += [
        _row(f"unique to {name}", "unique variance (R2)", results.unique[name], results)
        for name in ("video", "image")
    ]
    rows.append(_row("video, half a film late", "control (r)", scores["shifted"], results))
    counts = dict.fromkeys(("n_significant", "n_significant_negative"), "Int64")
    return pd.DataFrame(rows).astype(counts)


def _table_description(results):
    lines = [
        "Held-out scores: no model saw the film that it predicts, nor a film of the same group.",
        "The image model is the control without motion. The last row is the control without the "
        "right moment: the same predictions against the response half a film later.",
    ]
    test = results.tests["difference"]
    if test.reason:
        lines.append(f"There are {test.reason}.")
    else:
        lines.append(
            f"Tests: {test.n_permutations} permutations of {test.n_blocks} blocks of "
            f"{test.block_duration:g} s; the smallest attainable p is {test.smallest_p:.2g} for "
            f"the difference and {results.tests['video'].smallest_p:.2g} for one model."
        )
    return " ".join(lines)


def _headline(results, table):
    row = table.set_index("model").loc["video - image"]
    summary = {
        "voxels": int(results.voxels.sum()),
        "mean difference of r, video - image": round(float(row["mean_all"]), 4),
    }
    if results.ceiling is not None:
        summary["voxels with a ceiling above .1"] = int((results.ceiling > SMALLEST_CEILING).sum())
    if results.tests["difference"].reason:
        summary["no p-values"] = results.tests["difference"].reason.removeprefix("no p-values: ")
    else:
        summary["voxels where video beats image (q < .05)"] = int(row["n_significant"])
        summary["voxels where image beats video (q < .05)"] = int(row["n_significant_negative"])
    return summary


def _maps_to_save(results):
    """Yield (feat, stat, values, description, unit)."""
    for name in _MODELS:
        yield name, "r", results.scores[name], f"Held-out correlation, {name} model", "r"
    yield "videoMinusImage", "difference", results.scores["difference"], "Video minus image", "r"
    for name in ("video", "image"):
        yield name, "uniqueR2", results.unique[name], f"R2 that only {name} features add", "R2"
    for name, test in results.tests.items():
        feat = "videoMinusImage" if name == "difference" else name
        if test.p_values is not None:
            yield feat, "p", test.p_values, "p-value, uncorrected", "probability"
            yield feat, "q", test.q_values, "q-value, false discovery rate", "probability"
            yield feat, "pmax", test.p_max, "p-value, corrected by the maximum", "probability"
    if results.ev is not None:
        yield None, "ev", results.ev, "Explainable variance of one presentation", "R2"
        yield None, "ceiling", results.ceiling, "Noise ceiling of the tested responses", "R2"
        for name in _MODELS:
            yield name, "normalised", results.normalised[name], "r / sqrt(ceiling)", "ratio"


def _save_maps(output_dir, entities, results, data, info):
    """Write all maps; return dict of name -> file names relative to the output folder."""
    saved = {}
    for feat, stat, values, description, unit in _maps_to_save(results):
        paths = save_map(
            output_dir,
            np.where(data.voxels, values, np.nan),
            data.masker,
            {**entities, "feat": feat, "stat": stat, "desc": "encode"},
            metadata={"Description": description, "Units": unit, **info},
        )
        name = f"{feat}_{stat}" if feat else stat
        saved[name] = [path.relative_to(output_dir).as_posix() for path in paths]
    return saved


def _save_figures(output_dir, entities, results, data, table):
    """Draw everything that the report shows."""
    entities = {**entities, "desc": "encode"}
    where = f"sub-{entities['subject']}"

    def draw(drawn, feat=None, stat=None, description=""):
        if drawn is None:
            return
        suffix, figure = drawn
        names = {**entities, "feat": feat, "stat": stat, "suffix": suffix}
        save_figure(figure, output_dir, names, description)

    def draw_values(values, feat, stat, description="", **options):
        draw(draw_map(data.masker, values, data.space, **options), feat, stat, description)

    test = results.tests["difference"]
    difference = results.scores["difference"]
    draw_values(
        difference,
        "videoMinusImage",
        "difference",
        f"No significance is shown: {test.reason}." if test.reason else "",
        p_values=test.q_values,
        significance="q",
        signed=True,
        title=f"{where}: Video > Image",
        label="difference of held-out r",
    )
    draw(
        draw_surface(data.masker, difference, data.space, title=f"{where}: Video > Image"),
        "videoMinusImage",
        "difference",
        "The same difference on the inflated surface, without regard to significance.",
    )
    highest = max(np.nanpercentile(results.scores[name], 99) for name in _MODELS)
    for name in _MODELS:
        draw_values(
            results.scores[name],
            name,
            "r",
            title=f"{where}: {name} model",
            label="held-out Pearson r",
            vmax=highest,
        )
    for name, values in results.unique.items():
        draw_values(
            values,
            name,
            "uniqueR2",
            title=f"{where}: unique to {name} features",
            label="unique R2",
        )
    shown = {name: results.scores[name] for name in _MODELS}
    shifted = {"half a film late": results.scores["shifted"]}
    draw(
        ("histogram", plot_score_histograms({**shown, **shifted}, controls=list(shifted))),
        description="The control scores the same predictions against BOLD half a film later.",
    )
    significant = None if test.q_values is None else test.q_values < FDR_LEVEL
    pair = results.scores["image"], results.scores["video"]
    draw(("scatter", plot_score_comparison(*pair, significant=significant)))
    if results.ceiling is not None:
        draw_values(results.ceiling, None, "ceiling", title=f"{where}: noise ceiling", label="R2")
        figure = plot_noise_ceiling(
            np.sqrt(results.ceiling),
            results.scores["joint"],
            threshold=np.sqrt(SMALLEST_CEILING),
        )
        draw(("ceiling", figure))
    rows = table[table["kind"].str.contains(r"\(r\)")]
    column, where = "mean_all", ""
    if results.ceiling is not None:
        column, where = "mean_responsive", f" (ceiling > {SMALLEST_CEILING})"
    figure = plot_bars(
        dict(zip(rows["model"], rows[column], strict=True)),
        label=f"mean held-out r{where}",
        controls=["video, half a film late", "image"],
        chance=0.0,
    )
    draw(("bar", figure), description="The image model is the control without motion.")


def _save_parcels(output_dir, entities, data, held_out, parcels, names, results, random_state):
    table = parcel_table(
        data.bold,
        {name: held_out[name].predictions for name in ("video", "image", "joint")},
        parcels,
        names=names,
        t_r=data.t_r,
        runs=data.runs,
        films=data.films,
        folds=held_out["video"].folds,
        block_duration=results.tests["difference"].block_duration,
        random_state=random_state,
    )
    if results.ceiling is not None:
        table["ceiling"] = [
            np.nanmean(np.sqrt(results.ceiling[parcels == parcel])) for parcel in table["parcel"]
        ]
    path = derivative_path(output_dir, "table", {**entities, "seg": "atlas", "desc": "encode"})
    save_table(
        path,
        table.sort_values("difference", ascending=False),
        columns=_describe_parcels(table),
        metadata={
            "Description": "Mean held-out r per parcel; 95 % intervals by block bootstrap, none "
            "from fewer than 12 blocks."
        },
    )


def _describe_parcels(table):
    """Descriptions of the columns, most of which are a predictor's score and interval."""
    ends = {
        "": "Mean over its voxels of held-out r, {}",
        "_low": "Lower end of the 95 % interval of {}",
        "_high": "Upper end of the 95 % interval of {}",
    }
    described = {}
    for name in reversed(list(table)):  # a score comes before its ends, and names them last
        described |= {f"{name}{end}": text.format(name) for end, text in ends.items()}
    return {name: _PARCEL_COLUMNS.get(name, described[name]) for name in table}


def _save_encoders(output_dir, entities, compared, info):
    """Write the table of encoders, that per parcel, and the chart of both."""
    entities = {**entities, "desc": "encodeEncoders"}
    sizes = {about["extractor"]: about["n_features"] for about in info["feature_spaces"].values()}
    overall = compared.overall
    encoders = list(overall["encoder"])
    overall.insert(2, "n_features", overall["encoder"].map(sizes).astype("Int64"))
    save_table(
        derivative_path(output_dir, "table", entities),
        overall,
        columns={name: about for name, about in _ENCODER_COLUMNS.items() if name in overall},
        metadata={"Description": _ABOUT_ENCODERS, **info},
    )
    scores, intervals, ceilings, description = {}, {}, {}, ""
    panels = {
        "all": "all voxels",
        "responsive": f"voxels with ceiling > {SMALLEST_CEILING} (R2)",
    }
    for region, title in panels.items():
        if f"mean_{region}" in overall:
            scores[title] = dict(zip(encoders, overall[f"mean_{region}"], strict=True))
            ends = zip(overall[f"low_{region}"], overall[f"high_{region}"], strict=True)
            intervals[title] = dict(zip(encoders, ends, strict=True))
        if f"ceiling_{region}" in overall:
            ceilings[title] = overall[f"ceiling_{region}"].iloc[0]
    if compared.parcels is not None:
        save_table(
            derivative_path(output_dir, "table", {**entities, "seg": "atlas"}),
            compared.parcels,
            columns=_describe_parcels(compared.parcels),
            metadata={"Description": f"{_ABOUT_ENCODERS} One row per parcel.", **info},
        )
        # what chooses the parcels must not favour an encoder
        by = compared.parcels.get("ceiling", compared.parcels[encoders].mean(axis=1))
        shown = compared.parcels.loc[by.sort_values(ascending=False).index[:_DRAWN_PARCELS]]
        description = (
            f"Parcels: the {len(shown)} of {len(compared.parcels)} with the highest "
            f"{'noise ceiling' if ceilings else 'mean score of all encoders'}."
        )
        for _, row in shown.iterrows():
            title = f"{row['name']} ({row['n_voxels']:,} voxels)"
            scores[title] = {name: row[name] for name in encoders}
            intervals[title] = {
                name: (row[f"{name}_low"], row[f"{name}_high"])
                for name in encoders
                if f"{name}_low" in row
            }
            if "ceiling" in row:
                ceilings[title] = row["ceiling"]
    figure = plot_grouped_bars(
        scores,
        groups=dict(zip(encoders, overall["group"], strict=True)),
        intervals=intervals,
        ceilings=ceilings,
        label="mean held-out r",
    )
    save_figure(figure, output_dir, {**entities, "suffix": "bar"}, description)


# group --------------------------------------------------------------------------------------------


def encode_group(output_dir, *, subjects=None, n_permutations=5000, random_state=0, space=None):
    """Summarise the maps of several participants in a common space.

    Parameters
    ----------
    output_dir : path-like
        Where :func:`encode_participant` wrote.
    subjects : list of str or None, default=None
        None: all that are there.
    n_permutations : int, default=5000
        Sign flips from 13 participants on; up to 12 all are enumerated.
    random_state : int, default=0
    space : str or None, default=None
        None: the only one there is.

    Returns
    -------
    result : Bunch
        With ``report``, ``table`` and ``note``, why there is no p-value or None.

    Raises
    ------
    InputError
        No participant was analysed, or they lie in different spaces.
    """
    start = time.perf_counter()
    output_dir = Path(output_dir)
    records = {}
    for path in sorted(output_dir.glob("sub-*/*_desc-encode_provenance.json")):
        label = path.parent.name.removeprefix("sub-")
        record = load_json(path)
        here = record["Parameters"]["space"]
        if (subjects is None or label in subjects) and (space is None or here == space):
            if label in records:
                raise InputError(
                    f"sub-{label} must have one set of encoding results in {output_dir}; got "
                    f"{path.name} and others: choose with --space, or use one output folder each."
                )
            records[label] = record
    missing = sorted(set(subjects or []) - set(records))
    if missing or not records:
        raise InputError(
            f"{output_dir} must hold the encoding results of "
            f"{', '.join(missing) if missing else 'at least one participant'}; run the participant "
            "level first."
        )
    spaces = {record["Parameters"]["space"] for record in records.values()}
    if len(spaces) > 1:
        raise InputError(f"Participants must share one space; got {', '.join(map(str, spaces))}.")

    def stack(name):
        return load_group_maps(
            [[output_dir / path for path in record["Maps"][name]] for record in records.values()]
        )

    difference, masker = stack("videoMinusImage_difference")
    has_p = all("videoMinusImage_q" in record["Maps"] for record in records.values())
    q_values = stack("videoMinusImage_q")[0] if has_p else None
    group = group_maps(
        difference, q_values=q_values, n_permutations=n_permutations, random_state=random_state
    )
    means = {name: np.nanmean(stack(f"{name}_r")[0], axis=0) for name in _MODELS}
    entities = {"space": spaces.pop(), "desc": "encode"}
    info = {"subjects": list(records), "n_subjects": len(records), "reason": group.reason}
    remove_results(output_dir, entities, "encode")
    feat = "videoMinusImage"
    significant = f"Participants with q < {FDR_LEVEL}"
    images = [
        (feat, "difference", group.mean, "Mean of video minus image", "r"),
        (feat, "nSignificant", group.n_significant, f"{significant}, video ahead", "number"),
        (
            feat,
            "nSignificantNegative",
            group.n_significant_negative,
            f"{significant}, image ahead",
            "number",
        ),
        (feat, "pmax", group.p_max, "p-value, corrected by the maximum", "probability"),
        *(
            (name, "r", values, f"Mean held-out correlation, {name} model", "r")
            for name, values in means.items()
        ),
    ]
    for feat, stat, values, description, unit in images:
        if values is not None:
            save_map(
                output_dir,
                np.asarray(values, dtype=np.float32),
                masker,
                {**entities, "feat": feat, "stat": stat},
                metadata={"Description": description, "Units": unit, **info},
            )
    table = _group_table(output_dir, records, entities)
    _group_figures(output_dir, entities, group, difference, list(records), masker, table)
    _group_encoders(output_dir, records, entities)
    path = derivative_path(output_dir, "table", entities)
    about = "Each participant's mean scores; the group's mean in the last row."
    save_table(
        path,
        table,
        columns={
            "participant": "Label, or 'mean'",
            **{name: f"Mean over all voxels of held-out r, {name} model" for name in _MODELS},
            "video - image": "Mean over all voxels of r, video minus image",
            "n_significant": f"Voxels with q < {FDR_LEVEL}, video ahead",
        },
        metadata={"Description": f"{about} {group.reason or ''}".strip()},
    )
    summary = {"participants": len(records)}
    if group.p_max is None or group.reason:
        summary["no group p-value"] = group.reason
    else:
        summary["voxels where video beats image (p < .05, corrected)"] = int(
            ((group.p_max < FDR_LEVEL) & (group.mean > 0)).sum()
        )
    if group.n_significant is not None:
        summary["voxels significant in every participant (q < .05)"] = int(
            (group.n_significant == len(records)).sum()
        )
    record = run_record(
        "encode-group",
        parameters=info,
        summary=summary,
        seeds={"random_state": random_state},
        device="cpu",
        seconds=time.perf_counter() - start,
        warned={},
    )
    save_json(derivative_path(output_dir, "provenance", entities), record)
    return Bunch(report=write_report(output_dir), table=table, note=group.reason)


def _group_table(output_dir, records, entities):
    rows = []
    for subject, record in records.items():
        path = derivative_path(
            output_dir,
            "table",
            {**entities, "subject": subject, "task": _task_of(record)},
        )
        table = load_table(path).set_index("model")
        rows.append(
            {
                "participant": f"sub-{subject}",
                **{name: table.loc[name, "mean_all"] for name in (*_MODELS, "video - image")},
                "n_significant": table.loc["video - image", "n_significant"],
            }
        )
    frame = pd.DataFrame(rows)
    mean = frame.mean(numeric_only=True).to_dict() | {"participant": "mean"}
    return pd.concat([frame, pd.DataFrame([mean])], ignore_index=True)


def _group_encoders(output_dir, records, entities):
    """Table and chart of the encoders that every participant's table has; nothing without any."""
    entities = {**entities, "desc": "encodeEncoders"}
    tables = {}
    for subject, record in records.items():
        names = {**entities, "subject": subject, "task": _task_of(record)}
        path = derivative_path(output_dir, "table", names)
        if not path.exists():
            return
        tables[f"sub-{subject}"] = load_table(path).set_index("encoder")
    region = "responsive" if all("mean_responsive" in t for t in tables.values()) else "all"
    scores = pd.DataFrame({name: t[f"mean_{region}"] for name, t in tables.items()}).dropna()
    if scores.empty:
        return
    scores.insert(0, "mean", scores.mean(axis=1))
    first = next(iter(tables.values()))
    groups = first["group"].reindex(scores.index)
    rank = groups.map(list(dict.fromkeys(first["group"])).index)
    scores = scores.iloc[np.lexsort([-scores["mean"], rank])]
    groups = groups[scores.index]
    ceilings = {
        name: table[f"ceiling_{region}"].iloc[0]
        for name, table in tables.items()
        if f"ceiling_{region}" in table
    }
    where = f"voxels with a ceiling above {SMALLEST_CEILING} (R2)"
    about = (
        f"Mean held-out r over {'all voxels' if region == 'all' else where} of each participant, "
        f"and the mean of {len(tables)} participants."
    )
    save_table(
        derivative_path(output_dir, "table", entities),
        scores.rename_axis("encoder").reset_index().assign(group=groups.to_numpy()),
        columns={
            "encoder": _ENCODER_COLUMNS["encoder"],
            "mean": "Mean of the participants",
            **dict.fromkeys(tables, "Mean r of this participant"),
            "group": _ENCODER_COLUMNS["group"],
        },
        metadata={"Description": about, "ceilings": ceilings},
    )
    if len(ceilings) == len(tables):
        ceilings["mean"] = float(np.mean(list(ceilings.values())))
    figure = plot_grouped_bars(
        {name: scores[name].to_dict() for name in list(scores)[: 1 + _DRAWN_PARTICIPANTS]},
        groups=groups.to_dict(),
        ceilings=ceilings,
        label="mean held-out r",
    )
    save_figure(figure, output_dir, {**entities, "suffix": "bar"}, about)


def _task_of(record):
    name = Path(record["Maps"]["video_r"][0]).name
    return next((p[5:] for p in name.split("_") if p.startswith("task-")), None)


def _group_figures(output_dir, entities, group, difference, subjects, masker, table):
    limit = float(np.nanpercentile(np.abs(difference), 99))

    def draw(drawn, feat=None, stat=None, description=""):
        if drawn is None:
            return
        suffix, figure = drawn
        names = {**entities, "feat": feat, "stat": stat, "suffix": suffix}
        save_figure(figure, output_dir, names, description)

    def draw_values(values, feat, stat, description="", **options):
        drawn = draw_map(masker, values, entities["space"], **options)
        draw(drawn, feat, stat, description)

    shown = {"signed": True, "label": "difference of held-out r", "vmax": limit}
    draw_values(
        group.mean,
        "videoMinusImage",
        "difference",
        f"No group p-value: {group.reason}." if group.reason else "",
        p_values=None if group.reason else group.p_max,
        title="mean Video > Image",
        **shown,
    )
    if group.n_significant is not None:
        draw_values(
            np.where(group.n_significant > 0, group.n_significant, np.nan),
            "videoMinusImage",
            "nSignificant",
            title="participants in whom video beats image (q < .05)",
            label="number of participants",
            vmax=len(subjects),
        )
    for subject, values in zip(subjects, difference, strict=True):
        draw_values(
            values,
            f"sub{subject}",
            "difference",
            "One participant, without regard to significance.",
            title=f"sub-{subject}",
            **shown,
        )
    people = table.iloc[:-1]
    figure = plot_bars(
        dict(zip(people["participant"], people["video - image"], strict=True)),
        label="mean difference of held-out r, video - image",
        chance=0.0,
    )
    draw(("bar", figure))
