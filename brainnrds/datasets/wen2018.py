"""Dynamic Natural Vision (Wen et al. 2018): the release, and its conversion to BIDS.

Three people watched 18 training films (twice) and 5 test films (ten times) of 8 min at a
repetition time of 2 s. Each run showed the first frame for 12 s, the film, and the last frame for
12 s. Two kinds of runs were released:

=========  ===============  =========================  =========================================
volumes    which            scan start                 volumes of the release's own crop (0-based)
=========  ===============  =========================  =========================================
245        seg1-18, test1   2 s after the film's       1 ... 240
246        test2-5          with the film's            2 ... 241
=========  ===============  =========================  =========================================

In both, the crop's 240 volumes begin **4 s after the film's onset**: whoever pairs volume k of the
crop with the k-th 2 s of the film has a haemodynamic delay of 4 s built in. Here time is never
shifted: volumes are placed on the clock of the film, cropped or not.

References
----------
Wen H, Shi J, Zhang Y, Lu KH, Cao J, Liu Z (2018). Neural encoding and decoding with deep learning
for dynamic natural vision. Cerebral Cortex 28, 4136-4160.
"""

import gzip
import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from tqdm import tqdm

from brainnrds.datasets._conversion import (
    begin_conversion,
    count_volumes,
    finish_conversion,
    holds_conversion,
    link,
    write_json,
    write_table,
)
from brainnrds.datasets._download import data_home, download, unpack
from brainnrds.io import InputError, atomic_path, probe_video

__all__ = ["fetch_wen2018", "wen2018_splits", "wen2018_timing", "wen2018_to_bids"]

_VERSION = 1  # of the conversion: raise it when the same release gives other files
_T_R = 2.0
_FILM_SECONDS = 480.0
_STILL_SECONDS = 12.0
_N_CROPPED = 240
_SCAN_START = {245: 2.0, 246: 0.0}  # s from the film's onset to volume 0
_CROP_START = {245: 1, 246: 2}  # 0-based
_SUBJECTS = (1, 2, 3)
_TRAIN = tuple(f"seg{index}" for index in range(1, 19))
_TEST = tuple(f"test{index}" for index in range(1, 6))
_N_REPEATS = {"seg": 2, "test": 10}
_FAULTY = {(3, "test2", 9): "lags by about 10 s"}
_MNI_SPACE = "MNI152NLin6Asym"
_HIGH_PASS = 128.0  # s
_LANDING_PAGE = "https://purr.purdue.edu/publications/2809"
_DOI = "10.4231/R7SF2TCW"
_LICENCE = "CC0 1.0 Universal"
_CITATION = (
    "Wen H, Shi J, Zhang Y, Lu KH, Cao J, Liu Z (2018). Neural encoding and decoding with deep "
    "learning for dynamic natural vision. Cerebral Cortex 28, 4136-4160. "
    "doi:10.1093/cercor/bhx268. Data: doi:" + _DOI
)
_WHAT = ("cifti", "mni", "stimuli")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def wen2018_splits():
    """Training and test films of the release; nothing is shared.

    Returns
    -------
    splits : Bunch
        ``train`` (18) and ``test`` (5): names of films as in ``stim_file``; ``n_train_repeats``
        (2) and ``n_test_repeats`` (10).
    """
    return Bunch(
        train=[f"{film}.mp4" for film in _TRAIN],
        test=[f"{film}.mp4" for film in _TEST],
        n_train_repeats=_N_REPEATS["seg"],
        n_test_repeats=_N_REPEATS["test"],
    )


def wen2018_timing(n_volumes, *, crop=False):
    """When the volumes of a released run were acquired.

    Parameters
    ----------
    n_volumes : {245, 246}
        Volumes of the run as released.
    crop : bool, default=False
        Of the release's own crop.

    Returns
    -------
    timing : Bunch
        ``volume_times`` (n_kept,): start of each volume's acquisition, s from the film's onset;
        ``start``, ``stop``: the volumes that are kept.

    Raises
    ------
    InputError
        Another number of volumes.

    Examples
    --------
    >>> wen2018_timing(245).volume_times[0], wen2018_timing(246).volume_times[0]
    (np.float64(2.0), np.float64(0.0))
    >>> [wen2018_timing(n, crop=True).volume_times[0] for n in (245, 246)]
    [np.float64(4.0), np.float64(4.0)]
    """
    if n_volumes not in _SCAN_START:
        raise InputError(f"A run of the release must have 245 or 246 volumes; got {n_volumes}.")
    times = _SCAN_START[n_volumes] + _T_R * np.arange(n_volumes)
    start, stop = 0, n_volumes
    if crop:
        start = _CROP_START[n_volumes]
        stop = start + _N_CROPPED
    return Bunch(volume_times=times[start:stop], start=start, stop=stop)


# --- finding the release -----------------------------------------------------------------------


def _release_root(source):
    """The folder that holds subject1/ and stimuli/."""
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"No such directory: {source}.")
    for root in (source, source / "video_fmri_dataset"):
        if any((root / name).is_dir() for name in ("subject1", "subject2", "subject3", "stimuli")):
            return root
    raise InputError(
        f"{source} must hold the release's folder video_fmri_dataset/ with subject1/ ... and "
        "stimuli/."
    )


def _release_file(root, subject, film, repeat, kind):
    """Path of a released run, under either spelling; None if it is not there."""
    folder = root / f"subject{subject}" / "fmri" / film / kind
    stem = f"{film}_{repeat}"
    names = (
        [f"{stem}_Atlas.dtseries.nii"]
        if kind == "cifti"
        else [f"{stem}_mni.nii.gz", f"{stem}.mni.nii.gz"]
    )
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"One of {found[0]} and {found[1].name} is too many.")
    return found[0] if found else None


def _expected_runs(subjects):
    for subject in subjects:
        for film in (*_TRAIN, *_TEST):
            for repeat in range(1, _N_REPEATS[film.rstrip("0123456789")] + 1):
                yield subject, film, repeat


def _check_subjects(subjects):
    subjects = tuple(int(subject) for subject in subjects)
    if not subjects or not set(subjects) <= set(_SUBJECTS):
        raise InputError(f"`subjects` must be among {_SUBJECTS}; got {subjects}.")
    return subjects


def _survey(root, subjects, kinds):
    """Table of all runs that should be there: one row per subject, film, repeat and kind."""
    rows = []
    for subject, film, repeat in _expected_runs(subjects):
        for kind in kinds:
            rows.append(
                {
                    "subject": subject,
                    "film": film,
                    "repeat": repeat,
                    "kind": kind,
                    "path": _release_file(root, subject, film, repeat, kind),
                    "faulty": _FAULTY.get((subject, film, repeat), ""),
                }
            )
    table = pd.DataFrame(rows)
    films = sorted({film for _, film, _ in _expected_runs(subjects)})
    missing_films = [film for film in films if not (root / "stimuli" / f"{film}.mp4").is_file()]
    return table, missing_films


def _unknown_files(root, table):
    """Images of the release's folders whose names fit no run: renamed, perhaps."""
    known = {path for path in table["path"] if path is not None}
    kinds = set(table["kind"])
    found = []
    for subject in sorted(set(table["subject"])):
        for path in (root / f"subject{subject}" / "fmri").glob("*/*/*.nii*"):
            if path.parent.name in kinds and path not in known and not path.name.startswith("."):
                found.append(path)
    return sorted(found)


def _describe_missing(table, missing_films):
    """One line on what a partial release lacks and what it still allows."""
    missing = table[table["path"].isna()]
    names = [
        f"subject{row.subject}/fmri/{row.film}/{row.kind}/{row.film}_{row.repeat}"
        for row in missing.itertuples()
    ] + [f"stimuli/{film}.mp4" for film in missing_films]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    there = table[table["path"].notna() & ~table["film"].isin(missing_films)]
    n_train = there[there["film"].isin(_TRAIN)]["film"].nunique()
    n_test = there[there["film"].isin(_TEST)]["film"].nunique()
    works = []
    if n_train + n_test >= 2:
        works.append("encode")
    if n_train and n_test:
        works += ["decode", "reanimate"]
    return (
        f"{len(names)} files of the release are missing: {shown}. With what is there "
        f"({n_train} training, {n_test} test films) these analyses work: "
        f"{', '.join(works) or 'none'}."
    )


# --- fetching ----------------------------------------------------------------------------------


def fetch_wen2018(
    data_dir=None,
    *,
    subjects=_SUBJECTS,
    what=_WHAT,
    archive_dir=None,
    archives=None,
    n_retries=4,
    verbose=1,
):
    """Find, unpack or download the release of Dynamic Natural Vision.

    The publisher serves the archives through a page without stable direct addresses: download
    them there once, by hand, and give their folder; or give the addresses that the page shows
    you. What is already unpacked in `data_dir` is used as it is.

    Parameters
    ----------
    data_dir : path-like or None, default=None
        Where the release is unpacked. None: the variable ``BRAINNRDS_DATA``, else
        ``~/brainnrds_data``; there in ``wen2018``.
    subjects : sequence of {1, 2, 3}, default=(1, 2, 3)
    what : sequence of {"cifti", "mni", "stimuli"}
        What must be there. The MNI volumes are by far the largest part.
    archive_dir : path-like or None, default=None
        Folder with the downloaded archives (zip or tar), or with the unpacked release.
    archives : dict or None, default=None
        File name -> Bunch or dict with ``url`` and, where known, ``sha256`` and ``n_bytes``:
        downloaded (and continued after an interruption) into ``data_dir/wen2018/archives``.
    n_retries : int, default=4
    verbose : int, default=1
        1 announces sizes and shows progress.

    Returns
    -------
    release : Bunch
        ``source``: folder for :func:`wen2018_to_bids`; ``runs``: DataFrame with subject, film,
        repeat, kind, path, faulty; ``films``: list of Path; ``missing``: one line on what is not
        there and what still works, "" if all is there; ``description``, ``licence``,
        ``citation``.

    Raises
    ------
    InputError
        Nothing found; a damaged archive; a failed download.
    """
    subjects = _check_subjects(subjects)
    what = tuple(what)
    if not what or not set(what) <= set(_WHAT):
        raise InputError(f"`what` must be among {_WHAT}; got {what}.")
    home = data_home(data_dir) / "wen2018"
    packed = []
    if archives:
        known = [dict(entry).get("n_bytes") for entry in archives.values()]
        if verbose:
            size = f"{sum(known) / 1e9:.1f} GB" if all(known) else "size unknown"
            tqdm.write(f"{len(archives)} archives ({size}) go to {home / 'archives'}.")
        for name, entry in archives.items():
            entry = dict(entry)
            packed.append(
                download(
                    entry["url"],
                    home / "archives" / name,
                    sha256=entry.get("sha256"),
                    n_bytes=entry.get("n_bytes"),
                    n_retries=n_retries,
                    verbose=verbose,
                )
            )
    source = None
    if archive_dir is not None:
        archive_dir = Path(archive_dir)
        if not archive_dir.is_dir():
            raise InputError(f"No such directory: {archive_dir} (archive_dir).")
        packed += sorted(
            path for path in archive_dir.iterdir() if path.name.lower().endswith(_ARCHIVES)
        )
        if not packed:
            source = _release_root(archive_dir)
    if packed:
        source = home / "video_fmri_dataset"
        _unpack_release(packed, home, source, verbose)
    elif source is None:
        if not (home / "video_fmri_dataset").is_dir():
            raise InputError(
                f"No release in {home}: download its archives from {_LANDING_PAGE} (doi:{_DOI}) "
                "and give their folder as `archive_dir`."
            )
        source = home / "video_fmri_dataset"
    kinds = [kind for kind in what if kind != "stimuli"]
    table, missing_films = _survey(source, subjects, kinds or ["cifti"])
    if not kinds:
        table = table.iloc[:0]
    missing_films = missing_films if "stimuli" in what else []
    lacks = table["path"].isna().any() or bool(missing_films)
    return Bunch(
        source=source,
        runs=table,
        films=sorted((source / "stimuli").glob("*.mp4")),
        missing=_describe_missing(table, missing_films) if lacks else "",
        description=__doc__,
        licence=_LICENCE,
        citation=_CITATION,
    )


def _unpack_release(packed, home, target, verbose):
    """Unpack archives one by one and merge them into one tree, file by file."""
    done_file = home / "unpacked.json"
    done = json.loads(done_file.read_text()) if done_file.is_file() else {}
    for archive in packed:
        stamp = [archive.stat().st_size, archive.stat().st_mtime_ns]
        if done.get(archive.name) == stamp:
            continue
        if verbose:
            size = archive.stat().st_size / 1e9
            tqdm.write(f"Unpacking {archive} ({size:.2f} GB) to {target}.")
        scratch = home / f"unpacking-{archive.name}"
        shutil.rmtree(scratch, ignore_errors=True)  # of an earlier call that was killed
        try:
            root = _release_root(unpack(archive, scratch))
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    place = target / path.relative_to(root)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        done[archive.name] = stamp
        with atomic_path(done_file) as temporary:
            temporary.write_text(json.dumps(done, indent=2))


# --- conversion --------------------------------------------------------------------------------


def wen2018_to_bids(
    source,
    output,
    *,
    subjects=_SUBJECTS,
    what=("cifti", "mni"),
    crop=False,
    include_faulty=False,
    missing="error",
    dry_run=False,
    verbose=1,
):
    """Convert the release to BIDS: events and films, and the runs as derivatives.

    The result is a raw-like data set (films, events.tsv with true onsets) and
    ``derivatives/wen2018`` with the preprocessed runs under their BIDS names, for which
    ``find_runs`` and the App need no option but ``--confounds high_pass``: the release has no
    head motion or tissue signals, so the confounds tables hold cosines (128 s) alone.

    Parameters
    ----------
    source : path-like
        The release: the folder ``video_fmri_dataset`` or the one above it. It is only read.
    output : path-like
        A folder of its own. If it holds the same conversion, nothing is done. An interrupted
        conversion goes on in ``<output>.partial``; the final name appears at the end.
    subjects : sequence of {1, 2, 3}, default=(1, 2, 3)
    what : sequence of {"cifti", "mni"}, default=("cifti", "mni")
    crop : bool, default=False
        Write the 240 volumes of the release's own crop instead of linking whole runs. Time stays
        true: the sidecar says in ``StartTime`` when in the scan the first volume was.
    include_faulty : bool, default=False
        Convert subject 3's run test2_9 too, which lags by about 10 s.
    missing : {"error", "skip"}, default="error"
        Whether to go on when files of the release are missing.
    dry_run : bool, default=False
        Check everything, write nothing.
    verbose : int, default=1

    Returns
    -------
    conversion : Bunch
        ``bids_dir``, ``derivatives_dir`` : Path; ``runs`` : DataFrame with one row per run and
        kind (subject, film, repeat, kind, path, n_volumes, first volume's time in s, bids_name,
        converted); ``rules`` : list of str, every rule applied.

    Raises
    ------
    InputError
        Missing or renamed files, a number of volumes that fits no rule, a missing or short film,
        an `output` that holds something else.

    Notes
    -----
    Runs are linked (hard links, else symbolic links, else copies); films are hard links or
    copies, since a film must lie inside ``stimuli/``.
    """
    subjects = _check_subjects(subjects)
    kinds = tuple(what)
    if not kinds or not set(kinds) <= {"cifti", "mni"}:
        raise InputError(f"`what` must be among ('cifti', 'mni'); got {kinds}.")
    if missing not in ("error", "skip"):
        raise InputError(f"`missing` must be 'error' or 'skip'; got {missing!r}.")
    root, output = _release_root(source), Path(output)
    if output.resolve().is_relative_to(root.resolve()):
        raise InputError(f"`output` must lie outside the release; got {output}.")
    runs = _plan_conversion(root, subjects, kinds, crop, include_faulty, missing)
    rules = _rules(crop, include_faulty)
    record = {
        "version": _VERSION,
        "subjects": list(subjects),
        "what": sorted(kinds),
        "crop": bool(crop),
        "include_faulty": bool(include_faulty),
        "runs": sorted(runs.loc[runs["converted"], "bids_name"]),
        "rules": rules,
    }
    result = Bunch(
        bids_dir=output,
        derivatives_dir=output / "derivatives" / "wen2018",
        runs=runs,
        rules=rules,
    )
    if holds_conversion(output, record) or dry_run:
        return result
    partial = begin_conversion(output, record)
    _write_conversion(root, partial, runs, rules, crop, verbose)
    finish_conversion(partial, output, record)
    return result


def _plan_conversion(root, subjects, kinds, crop, include_faulty, missing):
    """The survey with volumes, times and BIDS names; raises on whatever does not fit."""
    runs, missing_films = _survey(root, subjects, kinds)
    unknown = _unknown_files(root, runs)
    lacks = runs["path"].isna().any() or bool(missing_films)
    if lacks and missing == "error":
        hint = f" Renamed, perhaps: {unknown[0]}." if unknown else ""
        raise InputError(
            _describe_missing(runs, missing_films) + hint + " Go on with missing='skip'."
        )
    if unknown:
        raise InputError(
            f"{len(unknown)} images fit no name of the release, the first {unknown[0]}: rename "
            "or remove them."
        )
    there = runs["path"].notna() & ~runs["film"].isin(missing_films)
    if not there.any():
        raise InputError(f"No run of the release with its film in {root}.")
    counts, times, names = [], [], []
    for row, present in zip(runs.itertuples(), there, strict=True):
        names.append(_bids_name(row.subject, row.film, row.repeat))
        if not present:
            counts.append(0)
            times.append(np.nan)
            continue
        n_volumes = count_volumes(row.path)
        if n_volumes not in _SCAN_START:
            raise InputError(
                f"{row.path} must have 245 or 246 volumes (scan started 2 s after the film, or "
                f"with it); got {n_volumes}."
            )
        expected = 246 if row.film in _TEST[1:] else 245
        if n_volumes != expected:
            raise InputError(
                f"{row.path} must have {expected} volumes as all runs of {row.film}; got "
                f"{n_volumes}."
            )
        counts.append(n_volumes)
        times.append(float(wen2018_timing(n_volumes, crop=crop).volume_times[0]))
    runs["n_volumes"] = counts
    runs["first_volume_time"] = times
    runs["bids_name"] = names
    runs["converted"] = there & (include_faulty | (runs["faulty"] == ""))
    for film in sorted(set(runs.loc[there, "film"])):
        path = root / "stimuli" / f"{film}.mp4"
        seconds = probe_video(path).duration
        if seconds < _FILM_SECONDS - 0.1:
            raise InputError(
                f"{path} must last {_FILM_SECONDS:g} s; got {seconds:.2f} s: truncated?"
            )
    return runs


def _bids_name(subject, film, repeat):
    """Training run 2 of seg5 is task-train_run-10; the films are in the events."""
    kind = film.rstrip("0123456789")
    number = (int(film[len(kind) :]) - 1) * _N_REPEATS[kind] + repeat
    task = "train" if kind == "seg" else "test"
    return f"sub-{subject:02d}_task-{task}_run-{number:02d}"


def _rules(crop, include_faulty):
    rules = [
        "The repetition time is 2 s, whatever the headers say.",
        "245 volumes: the scan started 2 s after the film. 246 volumes: with the film. Both end "
        "12 s after the film, on its last frame.",
        "A volume stands for the middle of its acquisition (no slice times are released), so that "
        "a delay means what it does after fMRIPrep: StartTime is 1 s after its start.",
        "Events and StartTime count from the start of the scan: the film's onset is -2 s in runs "
        "of 245 volumes, 0 s in runs of 246.",
        f"MNI volumes are taken to be in {_MNI_SPACE} (the release says MNI).",
        "The brain mask holds the voxels that are not 0 in the first volume of every converted run "
        "of the subject.",
        "Cosines of periods above 128 s are the only confounds; no head motion was released.",
    ]
    if crop:
        rules.append(
            "Cropped as the release does: 240 volumes from the second (245) or third (246) on, "
            "the first 4 s after the film's onset. Time stays true: no shift is built in."
        )
    rules.append(
        "Subject 3's run test2_9 lags by about 10 s: "
        + ("converted all the same." if include_faulty else "left out.")
    )
    return rules


def _write_conversion(root, output, runs, rules, crop, verbose):
    derivatives = output / "derivatives" / "wen2018"
    converted = runs[runs["converted"]]
    films = sorted(set(converted["film"]))
    for film in films:
        link(root / "stimuli" / f"{film}.mp4", output / "stimuli" / f"{film}.mp4", inside=True)
    _write_descriptions(output, derivatives, rules, converted)
    progress = tqdm(
        converted.itertuples(), total=len(converted), desc="runs", disable=not verbose, unit="run"
    )
    for row in progress:
        timing = wen2018_timing(row.n_volumes, crop=crop)
        func = derivatives / row.bids_name[:6] / "func"
        name = _derivative_name(row)
        target = func / name
        if not crop:
            link(row.path, target)
        elif not target.exists():
            with atomic_path(target) as temporary:
                _crop_image(row.path, temporary, timing.start, timing.stop)
        start_time = (timing.start + 0.5) * _T_R
        write_json(
            func / (re.sub(r"\.(dtseries\.nii|nii\.gz)$", "", name) + ".json"),
            {
                "RepetitionTime": _T_R,
                "StartTime": start_time,
                "NumberOfVolumesDiscardedByUser": timing.start,
                "SliceTimingCorrected": False,
                "SkullStripped": False,
                "TaskName": row.bids_name.split("_")[1][5:],
                "Sources": [str(row.path.relative_to(root))],
                "NumberOfVolumes": timing.stop - timing.start,
                "FirstVolumeFromFilmOnset": float(timing.volume_times[0]),
                "KnownProblem": row.faulty or "none",
                "ConversionRules": rules,
            },
        )
        _write_events(output, row)
        _write_confounds(func / row.bids_name, timing.stop - timing.start)
    for subject, of_subject in runs.groupby("subject"):
        _write_scans(derivatives, subject, of_subject, crop)
        volumes = converted[(converted["subject"] == subject) & (converted["kind"] == "mni")]
        if len(volumes):
            _write_mask(derivatives, subject, volumes)


def _derivative_name(row):
    if row.kind == "cifti":
        n_rows = nib.load(row.path, mmap=False).shape[1]
        density = "_den-91k" if n_rows == 91282 else ""
        return f"{row.bids_name}_space-fsLR{density}_bold.dtseries.nii"
    return f"{row.bids_name}_space-{_MNI_SPACE}_desc-preproc_bold.nii.gz"


def _write_events(output, row):
    onset = -_SCAN_START[row.n_volumes]
    events = pd.DataFrame(
        {
            "onset": [onset, onset + _FILM_SECONDS],
            "duration": [_FILM_SECONDS, _STILL_SECONDS],
            "trial_type": ["film", "still"],
            "stim_file": [f"{row.film}.mp4", "n/a"],
        }
    )
    path = output / row.bids_name[:6] / "func" / f"{row.bids_name}_events.tsv"
    write_table(path, events)


def _write_confounds(stem, n_volumes):
    orders = np.arange(1, int(2 * n_volumes * _T_R / _HIGH_PASS) + 1)
    waves = np.cos(np.outer(np.pi * (np.arange(n_volumes) + 0.5) / n_volumes, orders))
    table = pd.DataFrame(waves, columns=[f"cosine{index:02d}" for index in range(len(orders))])
    path = stem.with_name(f"{stem.name}_desc-confounds_timeseries.tsv")
    write_table(path, table)
    write_json(path.with_suffix(".json"), {})


def _write_scans(derivatives, subject, runs, crop):
    scans = pd.DataFrame(
        {
            "filename": [
                f"func/{_derivative_name(row)}" if row.converted else f"func/{row.bids_name}"
                for row in runs.itertuples()
            ],
            "film": runs["film"].to_numpy(),
            "repeat": runs["repeat"].to_numpy(),
            "n_volumes": np.where(crop, _N_CROPPED, runs["n_volumes"]),
            "usable": ["false" if problem else "true" for problem in runs["faulty"]],
            "problem": [
                row.faulty or ("n/a" if row.path is not None else "missing in the source")
                for row in runs.itertuples()
            ],
            "converted": ["true" if done else "false" for done in runs["converted"]],
        }
    )
    write_table(derivatives / f"sub-{subject:02d}" / f"sub-{subject:02d}_scans.tsv", scans)


def _write_mask(derivatives, subject, volumes):
    """Voxels that are not 0 in the first volume of every run; only first volumes are read."""
    name = f"sub-{subject:02d}_space-{_MNI_SPACE}_desc-brain_mask"
    path = derivatives / f"sub-{subject:02d}" / "func" / f"{name}.nii.gz"
    if path.exists():
        return
    mask = None
    for row in volumes.itertuples():
        image = nib.load(row.path, mmap=False)
        inside = np.asarray(image.dataobj[..., 0]) != 0
        if mask is None:
            mask, affine, first = inside, image.affine, row.path
        elif inside.shape != mask.shape or not np.allclose(image.affine, affine, atol=1e-3):
            raise InputError(f"{row.path} must have the grid of {first}; got {inside.shape}.")
        else:
            mask &= inside
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), temporary)
    write_json(path.with_name(f"{name}.json"), {"Type": "Brain"})


def _crop_image(path, target, start, stop):
    """Copy volumes [start, stop): NIfTI as a stream of bytes, CIFTI (small) through nibabel."""
    if path.name.endswith(".dtseries.nii"):
        image = nib.load(path, mmap=False)
        models = image.header.get_axis(1)
        axis = nib.cifti2.SeriesAxis(start * _T_R, _T_R, stop - start)
        data = np.asarray(image.dataobj[start:stop])
        out = nib.Cifti2Image(data, header=(axis, models))
        out.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
        nib.save(out, target)
        return
    with gzip.open(path, "rb") as source, open(target, "wb") as raw:
        header = nib.Nifti1Header.from_fileobj(source)
        offset = int(header["vox_offset"])
        source.seek(0)
        head = bytearray(source.read(offset))
        shape = header.get_data_shape()
        size = int(np.prod(shape[:3])) * header.get_data_dtype().itemsize
        cropped = header.copy()
        cropped.set_data_shape((*shape[:3], stop - start))
        cropped["pixdim"][4] = _T_R
        head[: len(cropped.binaryblock)] = cropped.binaryblock
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as out:
            out.write(bytes(head))
            for volume in range(stop):
                data = source.read(size)
                if len(data) != size:
                    raise InputError(f"{path} is truncated: it ends in volume {volume}.")
                if volume >= start:
                    out.write(data)


def _write_descriptions(output, derivatives, rules, converted):
    generated = [{"Name": "brainnrds.datasets.wen2018_to_bids", "Version": str(_VERSION)}]
    common = {
        "BIDSVersion": "1.10.0",
        "License": _LICENCE,
        "Authors": [
            "Haiguang Wen",
            "Junxing Shi",
            "Yizhen Zhang",
            "Kun-Han Lu",
            "Jiayue Cao",
            "Zhongming Liu",
        ],
        "ReferencesAndLinks": [_CITATION, _LANDING_PAGE],
    }
    write_json(
        output / "dataset_description.json",
        {
            "Name": "Dynamic Natural Vision (Wen et al. 2018): films and events",
            "DatasetType": "raw",
            "DatasetDOI": f"doi:{_DOI}",
            **common,
            "GeneratedBy": generated,
        },
    )
    write_json(
        derivatives / "dataset_description.json",
        {
            "Name": "Dynamic Natural Vision (Wen et al. 2018): preprocessed runs as released",
            "DatasetType": "derivative",
            **common,
            "GeneratedBy": generated,
            "SourceDatasets": [{"DOI": f"doi:{_DOI}", "URL": _LANDING_PAGE}],
        },
    )
    with atomic_path(output / "README.md") as temporary:
        temporary.write_text(
            "# Dynamic Natural Vision (Wen et al. 2018) as BIDS\n\n"
            f"{_CITATION}\n\nLicence: {_LICENCE}. Converted from the release by brainnrds; no "
            "raw images were released.\nThe rules applied:\n\n"
            + "\n".join(f"- {rule}" for rule in rules)
            + "\n"
        )
    participants = sorted({name[:6] for name in converted["bids_name"]})
    write_table(output / "participants.tsv", pd.DataFrame({"participant_id": participants}))
    for task in ("train", "test"):
        if not converted["bids_name"].str.contains(f"task-{task}_").any():
            continue
        write_json(
            output / f"task-{task}_events.json",
            {
                "onset": {"Description": "Onset on the clock of the run", "Units": "s"},
                "duration": {"Description": "Duration", "Units": "s"},
                "trial_type": {
                    "Description": "What is shown",
                    "Levels": {"film": "The film", "still": "Its last frame"},
                },
                "stim_file": {"Description": "The film, in stimuli/"},
            },
        )
