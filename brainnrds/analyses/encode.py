"""Video > Image: from a BIDS data set to maps, tables and a report.

Models see the same training films and predict the same held-out films: each feature space alone,
all together, and, of more than two, all but one. Control spaces, such as the film's sound, are in
every model. Further encoders get a model each, for the table and the chart of encoders. Each
model's predictions are a step that is kept in the work folder: what is finished there is not
computed again.
"""

import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import check_device
from brainnrds.analyses.design import (
    announce_design,
    check_folds,
    check_test_films,
    choose_design,
    choose_folds,
    count_units,
    describe_design,
    find_test_films,
    labels_for_tests,
    load_samples,
    trial_block,
)
from brainnrds.analyses.drawing import (
    draw_chart,
    draw_map,
    draw_surface,
    draw_viewers,
    note_on_figures,
    untested,
)
from brainnrds.analyses.encoders import (
    RESPONSIVE,
    SMALLEST_CEILING,
    compare_encoders,
    encoder_group,
    frame_control,
    make_extractors,
    save_encoders,
    save_parcels,
)
from brainnrds.analyses.extract import describe_extractor, loading_networks
from brainnrds.analyses.fit import describe_fit, number_of_mixtures, save_fit, save_predictions
from brainnrds.analyses.held_out import (
    average_held_out,
    features_of_films,
    predict_held_out,
    shares_of_joint,
)
from brainnrds.analyses.layers import compare_layers, save_layers
from brainnrds.analyses.named_spaces import named_spaces
from brainnrds.analyses.options import EncodeOptions
from brainnrds.analyses.partition import divide_variance, save_partition
from brainnrds.analyses.predicted import find_predicted, others_of
from brainnrds.analyses.record import Record
from brainnrds.analyses.sides import voxel_sides
from brainnrds.encoding import (
    benjamini_hochberg,
    compare_feature_spaces,
    correlation_score,
    difference_significance,
    explainable_variance,
    explainable_variance_significance,
    noise_ceiling,
    parcel_table,
    stack_repeats,
    stack_trials,
)
from brainnrds.encoding._arrays import own_stream, place, stream_of
from brainnrds.io import average_repeats, load_atlas, load_json, load_table
from brainnrds.io.bold import fill_samples, plan_runs
from brainnrds.plotting import (
    plot_bars,
    plot_noise_ceiling,
    plot_score_comparison,
    plot_score_histograms,
)

__all__ = ["encode_participant"]

FDR_LEVEL = 0.05
_DIFFERENCE = "difference (r)"
_VOXELS_PER_BLOCK = 4096
# processes that decode films while one loads BOLD
_PROCESSES_BY_ONE_THAT_LOADS = 2
# whether a voxel responds is asked once, with few alternatives: what counts are q-values around .05
_EV_PERMUTATIONS = 1000
MODELS = ("video", "image", "joint")
#: Against what predictions are scored as a control: its name -> in words.
_SHIFTED = {"half a film late": "half a film later", "another clip": "to another clip"}
_COLUMNS = {
    "model": {
        "Description": "What predicts. 'unique to': R2 that this space adds in the joint model; "
        "'share of': its part of the joint model's r, with which those of the others sum to it; "
        "'half a film late', of trials 'another clip': the same predictions against that response"
    },
    "kind": {"Description": "model, difference, unique variance, share or control"},
    "mean_all": {"Description": "Mean over all voxels with data"},
    "mean_responsive": {"Description": f"Mean over {RESPONSIVE}"},
    "median_normalised": {
        "Description": "Median of the score divided by the largest attainable one, over voxels "
        f"with a noise ceiling above {SMALLEST_CEILING} (R2), with or without a test"
    },
    "n_significant": {
        "Description": f"Voxels with q < {FDR_LEVEL} (false discovery rate), score above 0"
    },
    "n_significant_negative": {
        "Description": f"Voxels with q < {FDR_LEVEL}, score below 0 (image beats video)"
    },
}


def encode_participant(selection, output_dir, subject, options=None, *, work_dir="work", verbose=1):
    """Map where video features beat image features in one participant.

    Parameters
    ----------
    selection : Selection or path-like
        Which data; a path is the BIDS folder.
    output_dir : path-like
    subject : str
        Label without "sub-".
    options : EncodeOptions or None, default=None
        None: the defaults. The first of its video and of its image encoders make the maps of
        Video > Image; with more than these two, each is also fitted alone and stands in the table
        and chart of encoders. Its feature spaces are compared with them; its control spaces enter
        every model, so that every difference and unique variance is beyond them. Held-out
        responses are averaged over repeats in any case.
    work_dir : path-like, default="work"
        Steps that are finished there are not done again.
    verbose : int, default=1
        0 is silent.

    Returns
    -------
    result : Bunch
        With ``report`` (Path), ``table`` (DataFrame), ``told`` (what a terminal shows) and
        ``note``, what to know of the table.

    Raises
    ------
    InputError
        Before anything is written to `output_dir`, with one line that says what is wrong.
    """
    options = options or EncodeOptions()
    record = Record.of_participant(
        "encode",
        selection,
        output_dir,
        subject,
        work_dir=work_dir,
        n_jobs=options.n_processes,
        verbose=verbose,
    )
    device = check_device(options.device)
    announce_design(record, options)
    check_test_films(record.runs, options)
    check_folds(record.runs, options)
    extractors, names = make_extractors(options, device)
    described = {name: describe_extractor(extractor) for name, extractor in extractors.items()}
    others = find_predicted(options, extractors)
    names |= {name: name for name in others}
    by_content = {name: files.describe() for name, files in others.items()}
    record.settle(options, feature_spaces=described, predicted=by_content)
    if record.is_finished:
        return _result(record)

    with record.watching():
        if device == "cpu" or choose_design(record.runs, options)[0] == "trials":
            data, repeated = _load_bold(record.runs, options, verbose, device)
        else:
            data, repeated = _load_beside_features(record, extractors, device)
        note_on_figures(data.masker, data.space, record.pycortex_subject)
        parcels = None if options.atlas is None else load_atlas(options.atlas, data)
        splits = _splits(data, options)
        predicted = predict_held_out(record, data, splits, extractors, names, others, device)
        data, held_out, spaces = predicted.data, predicted.held_out, predicted.spaces
        if data.has_repeats:
            data, held_out = average_held_out(data, held_out)
        record.say("testing")
        compared = {name: held_out[name] for name in predicted.compared}
        results = _compare(data, compared, repeated, options, device)
        results.without_motion = _compare_frame_order(
            data, held_out, results.labels, options, device
        )
        results.shares = shares_of_joint(
            data, held_out["joint"], predicted.joint, options.n_processes
        )
        areas = divide_variance(data, held_out, list(results.unique), options.n_processes)
        layers = {
            network: {space: names[space] for space in spaces}
            for network, spaces in predicted.layers.items()
        }
        preferences = compare_layers(data, held_out, layers, options)
        fit = predicted.fit
        fitted = None if fit is None else describe_fit(fit, results, data.t_r)
        table_of_encoders = None
        if len(predicted.encoders) > len(("video", "image")):
            groups = {name: encoder_group(name, described.get(name)) for name in predicted.encoders}
            table_of_encoders = _compare_encoders(
                data, held_out, results, names, groups, parcels, options
            )

    spaces = {
        name: {"extractor": names[name], "n_features": size, **described[name]}
        for name, size in spaces.items()
    }
    record.open(_parameters(record, data, results, spaces, splits, predicted, fitted))
    table = _summary(results)
    _save_figures(record, results, data, table)  # other processes draw while the rest is written
    maps = record.save_maps(_maps_to_save(results), data.masker, data.voxels)
    _save_viewers(record, results, data, parcels, fitted)
    if areas is not None:
        save_partition(record, areas, data, results.responsive)
    if preferences:
        save_layers(record, preferences, data)
    if fit is not None:
        save_fit(record, fit, fitted, data, described)
    if options.keep_predictions:
        ours = [name for name in results.models if name not in others]
        save_predictions(record, {name: held_out[name] for name in ours}, data)
    record.save_table(table, columns=_COLUMNS, description=_table_description(results))
    if parcels is not None:
        save_parcels(record, _parcel_table(data, held_out, results, parcels, options))
    if table_of_encoders is not None:
        save_encoders(record, table_of_encoders, spaces)
    record.close(
        _headline(results, table), random_state=options.random_state, device=device, Maps=maps
    )
    return _result(record)


def _result(record):
    """What the files say: the table of models, and that of encoders where several were compared."""
    path = record.path("table")
    table, note = load_table(path), load_json(path.with_suffix(".json"))["Description"]
    told = [table]
    encoders = record.path("table", desc="encodeEncoders")
    if encoders.exists():
        told.append(load_table(encoders).filter(regex="encoder|group|^mean_|^ceiling_"))
    return Bunch(report=record.report(), table=table, told=told, note=note)


def _parameters(record, data, results, spaces, splits, predicted, fitted):
    """What was chosen and found, for sidecars, the record and the methods text."""
    options, delays = record.options, predicted.delays
    tests, tested = results.tests, splits.test_films
    test = tests["difference"]
    return {
        "space": data.space,
        "confounds": list(options.confounds),
        "n_runs": len(record.runs),
        "n_films": len(data.film_names),
        "film_groups": splits.n_groups,
        "t_r": data.t_r,
        **describe_design(data, options),
        "repeats": options.repeats,
        "feature_spaces": spaces,
        "n_encoders": len(predicted.encoders),
        "control_spaces": named_spaces(options)[1],
        "film_reader": options.film_reader,
        "n_components": options.n_components,
        "projection": options.projection if options.n_components else None,
        "projection_fitted_on": (
            "training films of each outer fold" if options.n_components else None
        ),
        "delays": delays,
        "delays_seconds": [delay * data.t_r for delay in delays],
        "n_iter": number_of_mixtures(options, spaces),
        "solver": options.solver,
        "at_an_edge": None if fitted is None else fitted.edges,
        "test_films": [data.film_names[film] for film in tested] if tested else None,
        "n_folds": splits.n_folds,
        "noise_ceiling": results.ev is not None,
        "responsive": results.responsive_because,
        "n_permutations": test.n_permutations,
        "block_duration": test.block_duration,
        "n_blocks": test.n_blocks,
        "smallest_p": {name: test.smallest_p for name, test in tests.items()},
        "no_p_values_because": test.reason,
        "handled": data.counts,
        "sources": data.sources,
    }


# preparing ----------------------------------------------------------------------------------------


def _load_bold(runs, options, verbose, device="cpu", load=load_samples):
    """BOLD for the models, and what its repeats say of one presentation, or None."""
    if not _has_repeats(runs):
        return load(runs, options, repeats="average", verbose=verbose), None
    single = load(runs, options, repeats="concatenate", verbose=verbose)
    repeated = _explainable_variance(single, options, device)
    # in place: both would be twice the memory
    if options.repeats == "average":
        single = average_repeats(single, copy=False, n_jobs=options.n_processes)
    return single, repeated


def _load_beside_features(record, extractors, device):
    """As `_load_bold`; meanwhile a GPU computes features of the films, which the store keeps."""
    options, runs = record.options, record.runs
    keywords = options.keywords()
    n_jobs = max(1, keywords.pop("n_jobs") // _PROCESSES_BY_ONE_THAT_LOADS)
    repeats = "concatenate" if _has_repeats(runs) else "average"

    def load(runs, options, *, repeats, verbose):
        return fill_samples(plan, n_jobs=n_jobs, verbose=verbose)

    def load_in_own_stream():
        # so that the tests of repeats do not wait behind the networks' batches
        with own_stream(device, stream_of(device)):
            return _load_bold(runs, options, record.verbose, device, load)

    with loading_networks(extractors.values()), ThreadPoolExecutor(1) as thread:
        plan = plan_runs(runs, repeats=repeats, **keywords)
        shown = plan.data
        if repeats == "concatenate" and options.repeats == "average":
            shown = average_repeats(shown)
        loading = thread.submit(load_in_own_stream)
        features_of_films(record, shown, extractors)
        return loading.result()


def _has_repeats(runs):
    return max(Counter(p.film for run in runs for p in run.films).values()) > 1


def _explainable_variance(single, options, device="cpu"):
    """Explainable variance of one presentation, and its q-values or None: by blocks of voxels.

    None where no samples of a film repeat: parts that begin alike may end before any count.

    All repeated films say whether a voxel responds. How much of its variance can be explained
    differs between films: where tested films are named and repeated, it is theirs.
    """
    tested = find_test_films(options.test_films, single.film_names)
    of_tested = np.isin(single.films, tested or [])
    tests, ceilings = [], []
    if not _stack(single, slice(0, 1), single.films):
        return None
    for start in range(0, single.bold.shape[1], _VOXELS_PER_BLOCK):
        voxels = slice(start, start + _VOXELS_PER_BLOCK)
        how = {"n_permutations": _EV_PERMUTATIONS, "random_state": options.random_state}
        how |= {"n_jobs": options.n_processes, "device": device}
        stacked = _stack(single, voxels, single.films)
        if not stacked:  # trials that were repeated within a run alone
            return None
        if tests:  # one length for all voxels
            how["block_duration"] = tests[0].block_duration
        elif single.design == "trials":
            how["block_duration"] = single.spacing * _block_of_repeats(stacked)
        tests.append(explainable_variance_significance(stacked, t_r=single.spacing, **how))
        stacked = _stack(single, voxels, np.where(of_tested, single.films, -1))
        stacked = [place(film, device) for film in stacked]
        ceilings.append(explainable_variance(stacked) if stacked else tests[-1].score)
    ev = np.concatenate(ceilings)
    ev[~single.voxels] = np.nan
    q_values = None
    if tests[0].reason is None:
        p_values = np.concatenate([test.p_values for test in tests])
        q_values = benjamini_hochberg(np.where(single.voxels, p_values, np.nan))
    return Bunch(ev=ev, q_values=q_values, n_repeats=_n_repeats(single))


def _block_of_repeats(stacked):
    """Clips in a block, by what two showings of them have in common from one to the next."""
    pair = max(stacked, key=lambda repeats: repeats.shape[1])[:2]
    first, second = pair - pair.mean(axis=1, keepdims=True)
    return trial_block(first * second, np.zeros(len(first), dtype=int))


def _n_repeats(single):
    """Of each clip the scanner runs that showed it: trials of one run are no repeats, or None."""
    if single.design == "continuous":
        return None
    pairs = np.unique(np.stack([single.films, single.scanner_runs]), axis=1)
    return np.bincount(pairs[0], minlength=len(single.film_names))


def _stack(single, voxels, films):
    if single.design == "trials":
        return stack_trials(single.bold[:, voxels], runs=single.scanner_runs, films=films)
    return stack_repeats(
        single.bold[:, voxels],
        runs=single.presentations,
        films=films,
        film_times=single.film_times,
        tolerance=single.t_r / 2,
    )


def _splits(data, options):
    """How films are held out: by film group, or those that are named."""
    tested = find_test_films(options.test_films, data.film_names)
    n_groups, n_folds = count_units(data), None
    if tested is None:
        # refuses again: with what was scrubbed or left out, units may be gone
        n_folds = choose_folds(options.n_folds, n_groups)
    # tested films get labels of their own; training films stay grouped by scanner run
    n_films, alone = len(data.film_names), np.isin(data.films, tested or [])
    return Bunch(
        units=np.where(alone, n_films + data.films, data.groups),
        test_films=tested,
        test_units=[n_films + film for film in tested] if tested else None,
        n_groups=n_groups,
        n_folds=n_folds,
    )


# predicting and comparing -------------------------------------------------------------------------


def _compare(data, held_out, repeated, options, device="cpu"):
    """Scores, ceilings and tests of all voxels: a Bunch of dicts by name."""
    folds = next(iter(held_out.values())).folds
    ev, ceiling = None, None
    responsive, because = np.zeros(len(data.voxels), dtype=bool), None
    if repeated is not None:
        n_repeats = data.n_repeats if repeated.n_repeats is None else repeated.n_repeats[data.films]
        ev, ceiling = repeated.ev, noise_ceiling(repeated.ev, n_repeats[folds >= 0])
        if repeated.q_values is not None:
            responsive = repeated.q_values < FDR_LEVEL
            because = f"explainable variance with q < {FDR_LEVEL}"
        else:
            responsive = ceiling > SMALLEST_CEILING
            because = f"noise ceiling above {SMALLEST_CEILING}, by chance too: few blocks, no test"
    labels = labels_for_tests(data, [held_out[name].predictions for name in MODELS], folds)
    compared = compare_feature_spaces(
        data.bold,
        {name: np.asarray(result.predictions) for name, result in held_out.items()},
        **labels,
        folds=folds,
        ceiling=ceiling,
        smallest_ceiling=SMALLEST_CEILING,
        others=others_of(options),
        n_permutations=options.n_permutations,
        random_state=options.random_state,
        n_jobs=options.n_processes,
        device=device,
    )
    for values in (*compared.scores.values(), *compared.unique.values()):
        values[~data.voxels] = np.nan
    shown = [name for name in held_out if not name.startswith("without")]
    return Bunch(
        **compared,
        # as everything is scored and tested, in blocks of one length
        labels={**labels, "block_duration": compared.tests["difference"].block_duration},
        models=shown,
        shifted="half a film late" if data.design == "continuous" else "another clip",
        others=others_of(options),
        ev=ev,
        ceiling=ceiling,
        responsive=responsive & data.voxels,
        responsive_because=because,
        voxels=data.voxels,
    )


def _compare_frame_order(data, held_out, labels, options, device):
    """The video model against the same encoder without motion: name, score and test, or None."""
    if options.video_control is None:
        return None
    name = frame_control(options)
    video, control = (np.asarray(held_out[model].predictions) for model in ("video", name))
    folds = np.where(data.films < 0, -1, held_out["video"].folds)
    test = difference_significance(
        data.bold,
        video,
        control,
        folds=folds,
        n_permutations=options.n_permutations,
        random_state=options.random_state,
        n_jobs=options.n_processes,
        device=device,
        **labels,
    )
    score = correlation_score(data.bold, control, runs=data.runs, folds=folds)
    score = np.where(data.voxels, score, np.nan)
    return Bunch(
        name=name,
        order=options.video_control,
        score=score,
        contrast=f"videoMinus{name[0].upper()}{name[1:]}",
        difference=np.where(data.voxels, test.score, np.nan),
        test=test,
    )


def _parcel_table(data, held_out, results, parcels, options):
    """Scores of the models per parcel, with the ceiling."""
    labels, names = parcels
    table = parcel_table(
        data.bold,
        {name: held_out[name].predictions for name in results.models},
        labels,
        names=names,
        sides=voxel_sides(data.masker, data.space),
        **results.labels,
        folds=held_out["video"].folds,
        random_state=options.random_state,
    )
    if results.ceiling is not None:
        table["ceiling"] = [
            np.nanmean(np.sqrt(results.ceiling[labels == parcel])) for parcel in table["parcel"]
        ]
    return table.sort_values("difference", ascending=False)


def _compare_encoders(data, held_out, results, names, groups, parcels, options):
    """Each encoder alone, beside the control of the first."""
    labels, label_names = (None, None) if parcels is None else parcels
    return compare_encoders(
        data,
        {name: held_out[name].predictions for name in groups},
        held_out["video"].folds,
        names,
        groups,
        ceiling=None if results.ceiling is None else np.sqrt(results.ceiling),
        smallest_ceiling=np.sqrt(SMALLEST_CEILING),
        parcels=labels,
        parcel_names=label_names,
        controls={f"{names['video']}, {results.shifted}": results.scores["shifted"]},
        labels=results.labels,
        random_state=options.random_state,
    )


# writing ------------------------------------------------------------------------------------------


def _row(name, kind, values, results, test=None, normalized=None):
    responsive = results.responsive
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
            "median_normalised": np.nan if normalized is None else np.nanmedian(normalized),
            "n_significant": positive,
            "n_significant_negative": negative,
        }


def _summary(results):
    scores, tests, normalized = results.scores, results.tests, results.normalized
    kinds = dict.fromkeys(results.others, "another's model (r)")
    tested = {name: (name, kinds.get(name, "model (r)")) for name in results.models}
    tested["difference"] = ("video - image", _DIFFERENCE)
    rows = [
        _row(label, kind, scores[name], results, tests[name], normalized.get(name))
        for name, (label, kind) in tested.items()
    ]
    if results.without_motion is not None:
        control = results.without_motion
        rows.append(_row(f"video, {control.order}", "control (r)", control.score, results))
        label = f"video - video, {control.order}"
        rows.append(_row(label, _DIFFERENCE, control.difference, results, control.test))
    rows += [
        _row(
            f"unique to {name}", "unique variance (R2)", values, results, results.unique_tests[name]
        )
        for name, values in results.unique.items()
    ]
    rows += [
        _row(f"share of {name}", "share of joint r", values, results)
        for name, values in results.shares.items()
    ]
    rows.append(_row(f"video, {results.shifted}", "control (r)", scores["shifted"], results))
    counts = dict.fromkeys(("n_significant", "n_significant_negative"), "Int64")
    return pd.DataFrame(rows).astype(counts)


def _table_description(results):
    lines = [
        "Held-out scores: no model saw the film that it predicts, nor a film of the same group.",
        "The image model is the control without motion. The last row is the control without the "
        f"right moment: the same predictions against the response {_SHIFTED[results.shifted]}.",
    ]
    if results.responsive_because:
        lines.append(f"Responsive: {results.responsive_because}.")
    test = results.tests["difference"]
    if test.reason:
        lines.append(f"There are {test.reason}.")
    else:
        lines.append(
            f"Tests: {test.n_permutations} permutations of {test.n_blocks} blocks of "
            f"{test.block_duration:g} s, the tail beyond them fitted; the smallest attainable p is "
            f"{test.smallest_p:.2g} for the difference and "
            f"{results.tests['video'].smallest_p:.2g} for one model."
        )
    return " ".join(lines)


def _headline(results, table):
    row = table.set_index("model").loc["video - image"]
    means = table.set_index("model")["mean_all"].astype(float).round(4)
    summary = {"voxels": int(results.voxels.sum())}
    summary |= {f"mean r, {model}": float(means[model]) for model in ("video", "image")}
    summary[f"mean r, video, {results.shifted}, control"] = float(
        means[f"video, {results.shifted}"]
    )
    summary["Video > Image: mean difference of r, video - image"] = float(means["video - image"])
    if results.ceiling is not None:
        summary[f"responsive voxels ({results.responsive_because})"] = int(results.responsive.sum())
    if results.tests["difference"].reason:
        summary["no p-values"] = results.tests["difference"].reason.removeprefix("no p-values: ")
    else:
        summary["voxels where video beats image (q < .05)"] = int(row["n_significant"])
        summary["voxels where image beats video (q < .05)"] = int(row["n_significant_negative"])
    return summary


def _maps_to_save(results):
    """Yield (feat, stat, values, description, unit)."""
    for name in results.models:
        yield name, "r", results.scores[name], f"Held-out correlation, {name} model", "r"
    yield "videoMinusImage", "difference", results.scores["difference"], "Video minus image", "r"
    for name, values in results.unique.items():
        yield name, "uniqueR2", values, f"R2 that only {name} features add", "R2"
    for name, values in results.shares.items():
        yield name, "share", values, f"Share of {name} features in the r of the joint model", "r"
    models = {name: results.tests[name] for name in results.models}
    tests = {**models, "videoMinusImage": results.tests["difference"]}
    if results.without_motion is not None:
        control = results.without_motion
        yield control.name, "r", control.score, f"Held-out correlation, video, {control.order}", "r"
        about = f"Video minus video, {control.order}"
        yield control.contrast, "difference", control.difference, about, "r"
        tests[control.contrast] = control.test
    tests |= {f"{name}Unique": test for name, test in results.unique_tests.items()}
    for feat, test in tests.items():
        if test.p_values is not None:
            yield feat, "p", test.p_values, "p-value, uncorrected", "probability"
            yield feat, "q", test.q_values, "q-value, false discovery rate", "probability"
            yield feat, "pmax", test.p_max, "p-value, corrected by the maximum", "probability"
    if results.ev is not None:
        yield None, "ev", results.ev, "Explainable variance of one presentation", "R2"
        yield None, "ceiling", results.ceiling, "Noise ceiling of the tested responses", "R2"
        for name in results.models:
            yield name, "normalised", results.normalized[name], "r / sqrt(ceiling)", "ratio"


def _save_figures(record, results, data, table):
    """Draw everything that the report shows."""
    where = f"sub-{record.subject}"
    surfaces = {"pycortex_subject": record.pycortex_subject}

    def draw(drawing, *arguments, feat=None, stat=None, description="", **options):
        job = partial(drawing, *arguments, **options)
        record.draw(job, feat=feat, stat=stat, description=description)

    def draw_values(values, feat, stat, description="", **options):
        how = {"feat": feat, "stat": stat, "description": description, **surfaces}
        draw(draw_map, data.masker, values, data.space, **how, **options)

    test = results.tests["difference"]
    difference = results.scores["difference"]
    draw_values(
        difference,
        "videoMinusImage",
        "difference",
        untested(test),
        p_values=test.q_values,
        significance="q",
        signed=True,
        title=f"{where}: Video > Image",
        label="difference of held-out r",
    )
    if results.without_motion is not None:
        control = results.without_motion
        draw_values(
            control.difference,
            control.contrast,
            "difference",
            untested(control.test),
            p_values=control.test.q_values,
            significance="q",
            signed=True,
            title=f"{where}: video > the same encoder, {control.order}",
            label="difference of held-out r",
        )
    draw(
        draw_surface,
        data.masker,
        difference,
        data.space,
        title=f"{where}: Video > Image",
        **surfaces,
        feat="videoMinusImage",
        stat="difference",
        description="The same difference on the inflated surface, without regard to significance.",
    )
    highest = max(np.nanpercentile(results.scores[name], 99) for name in results.models)
    for name in results.models:
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
            untested(results.unique_tests[name]),
            p_values=results.unique_tests[name].q_values,
            significance="q",
            signed=True,
            contest=False,
            title=f"{where}: unique to {name} features",
            label="unique R2",
        )
    shown = {name: results.scores[name] for name in results.models}
    shifted = {results.shifted: results.scores["shifted"]}
    draw(
        draw_chart,
        "histogram",
        plot_score_histograms,
        {**shown, **shifted},
        controls=list(shifted),
        description="The control scores the same predictions against the response "
        f"{_SHIFTED[results.shifted]}.",
    )
    significant = None if test.q_values is None else test.q_values < FDR_LEVEL
    pair = results.scores["image"], results.scores["video"]
    draw(draw_chart, "scatter", plot_score_comparison, *pair, significant=significant)
    if results.ceiling is not None:
        draw_values(results.ceiling, None, "ceiling", title=f"{where}: noise ceiling", label="R2")
        draw(
            draw_chart,
            "ceiling",
            plot_noise_ceiling,
            np.sqrt(results.ceiling),
            results.scores["joint"],
            threshold=np.sqrt(SMALLEST_CEILING),
        )
    rows = table[table["kind"].str.contains(r"\(r\)")]
    column, where = "mean_all", ""
    if results.ceiling is not None:
        column, where = "mean_responsive", " (responsive voxels)"
    draw(
        draw_chart,
        "bar",
        plot_bars,
        dict(zip(rows["model"], rows[column], strict=True)),
        label=f"mean held-out r{where}",
        controls=[f"video, {results.shifted}", "image"],
        chance=0.0,
        description="The image model is the control without motion.",
    )


def _save_viewers(record, results, data, parcels, fitted=None):
    """The maps of the figures on a brain to turn, with the q-values of those that are tested."""
    difference = "Video > Image (difference of r)"
    maps = {difference: results.scores["difference"]}
    tests = {difference: results.tests["difference"]}
    for model in results.models:
        name = f"{model} model (held-out r)"
        maps[name], tests[name] = results.scores[model], results.tests[model]
    for space, values in results.unique.items():
        name = f"unique to {space} (R2)"
        maps[name], tests[name] = values, results.unique_tests[space]
    if results.ceiling is not None:
        maps["noise ceiling (R2)"] = results.ceiling
    if fitted is not None:
        maps |= {f"time to peak, {name} (s)": values for name, values in fitted.peak.items()}
    pages = draw_viewers(
        data.masker,
        maps,
        data.space,
        q_values={n: test.q_values for n, test in tests.items() if test.q_values is not None},
        signed=(difference,),
        parcels=parcels,
        title=f"sub-{record.subject}",
        pycortex_subject=record.pycortex_subject,
    )
    for suffix, page in pages:
        record.save_page(page, suffix)
