"""Features of an encoding analysis as files that others read, and that come back as they are."""

from pathlib import Path

import numpy as np

from brainnrds._checks import InputError, check_device
from brainnrds.analyses.encoders import make_extractors
from brainnrds.analyses.extract import clip_duration, clip_features, describe_extractor
from brainnrds.io import (
    check_output_dir,
    find_runs,
    load_runs,
    save_json,
    write_dataset_description,
    write_feature_file,
)

__all__ = ["FORMATS", "export_features"]

#: Suffix of the files by the name of the format.
FORMATS = {"h5": ".h5", "npy": ".npy", "tsv": ".tsv", "parquet": ".parquet"}
_SAME_TIME = 1e-6  # s


def export_features(
    selection, output_dir, subjects, options, *, kind="h5", work_dir="work", verbose=1
):
    """Write every feature space that an encoding analysis would use, a file for each film.

    Features are those of the clips that the data need, one for each volume; they are read from the
    store of the work folder, or computed and kept there. Given back as ``NAME=FOLDER``, the files
    make the same analysis.

    Parameters
    ----------
    selection : Selection
        Which data.
    output_dir : path-like
        Gets a folder for each space, with a file for each film in it, named as the film; and
        ``<space>.json``, which says what it is of.
    subjects : sequence of str
        Whose volumes. Clips of several participants stand in one file.
    options : EncodeOptions
        Which spaces.
    kind : {"h5", "npy", "tsv", "parquet"}, default="h5"
        As :func:`brainnrds.io.write_feature_file` takes it.
    work_dir : path-like, default="work"
    verbose : int, default=1
        0 is silent.

    Returns
    -------
    paths : list of Path

    Raises
    ------
    InputError
        Before anything is written: as for the analysis; two films of one name; another format.
    """
    if kind not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}; got {kind!r}.")
    output_dir = check_output_dir(output_dir, selection.bids_dir)
    device = check_device(options.device)
    extractors, _ = make_extractors(options, device)
    described = {name: describe_extractor(extractor) for name, extractor in extractors.items()}
    films, lengths = {}, {}
    for subject in subjects:
        keywords = {**selection.keywords(), "n_jobs": options.n_processes}
        runs = find_runs(selection.bids_dir, subject=subject, **keywords)
        data = load_runs(runs, **{**options.keywords(), "confounds": ()}, verbose=verbose)
        lengths[subject] = duration = clip_duration(data.t_r)
        if len(set(lengths.values())) > 1:
            raise InputError(f"participants must have clips of one length; got {lengths} in s.")
        features, times, _ = clip_features(
            data,
            extractors,
            duration,
            store_dir=Path(work_dir) / "features",
            n_jobs=options.n_processes,
            progress=bool(verbose),
            film_reader=options.film_reader,
        )
        shown = [(p, t) for p, t in zip(data.stim_files, times, strict=True) if len(t)]
        for i, (path, t) in enumerate(shown):
            values = {name: per_film[i] for name, per_film in features.items()}
            films.setdefault(Path(path), []).append((t, values))
    stems = [path.stem for path in films]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise InputError(f"films must have names of their own; got several {sorted(twice)[0]}.")
    write_dataset_description(output_dir, selection.bids_dir, derivatives=selection.derivatives)
    written = []
    for path, parts in films.items():
        times = np.concatenate([t for t, _ in parts])
        order = np.argsort(times, kind="stable")
        new = np.diff(times[order], prepend=-np.inf) > _SAME_TIME
        rows = order[new]
        for name in extractors:
            values = np.concatenate([features[name] for _, features in parts])[rows]
            target = Path(output_dir) / name / f"{path.stem}{FORMATS[kind]}"
            write_feature_file(target, times[rows], values, duration=duration)
            written.append(target)
    for name, about in described.items():
        save_json(Path(output_dir) / f"{name}.json", {"Extractor": about, "ClipDuration": duration})
    return written
