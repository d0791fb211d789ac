"""BOLD Moments (Lahner et al. 2024, OpenNeuro ds005165): one response per 3-s clip.

Ten people saw 1,000 training clips (3 times) and 102 test clips (10 times). A trial is one clip,
and a sample is one trial: sample i of the responses answers to clip i, so `VideoEncodingModel` and
`MotionDecoder` take ``delays=(0,)``. The responses are released single-trial betas, or betas
estimated here from the preprocessed runs.

References
----------
Lahner B, et al. (2024). Modeling short visual events through the BOLD Moments video fMRI dataset
and metadata. Nature Communications 15, 6241.
"""

import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from tqdm import tqdm

from brainnrds.datasets._download import data_home, download
from brainnrds.io import InputError
from brainnrds.io.trials import single_trial_betas

__all__ = [
    "bold_moments_betas",
    "bold_moments_trials",
    "estimate_betas",
    "fetch_bold_moments",
    "load_betas",
    "load_nuisance",
]

_DATASET = "ds005165"
_SERVER = "https://s3.amazonaws.com/openneuro.org"
_PREPROCESSED = "derivatives/versionB/fmriprep"
_CLIP_SECONDS = 3.0
_CITATION = (
    "Lahner B, et al. (2024). Modeling short visual events through the BOLD Moments video fMRI "
    "dataset and metadata. Nature Communications 15, 6241. doi:10.18112/openneuro.ds005165"
)
_WHAT = {
    "events": ("sub-{s}/ses-*/func/*_events.tsv", "sub-{s}/ses-*/func/*_bold.json"),
    "confounds": (_PREPROCESSED + "/sub-{s}/ses-*/func/*_desc-confounds_timeseries.*",),
    "bold": (_PREPROCESSED + "/sub-{s}/ses-*/func/*_bold.*",),
    "betas": ("derivatives/versionB/*/prepared_betas/sub-{s}/*",),
}
_NUISANCE = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z") + ("csf", "white_matter")


def fetch_bold_moments(
    data_dir=None,
    *,
    subjects=("01",),
    what=("events", "confounds"),
    server=_SERVER,
    dry_run=False,
    n_retries=4,
    verbose=1,
):
    """Download parts of BOLD Moments from OpenNeuro.

    The films are not there (they have their own terms): get them from the authors' page, which
    the data set's README names, and put them into ``stimuli/`` (``stimuli/train/0444.mp4``).

    Parameters
    ----------
    data_dir : path-like or None, default=None
        None: the variable ``BRAINNRDS_DATA``, else ``~/brainnrds_data``; there in ``ds005165``.
    subjects : sequence of str, default=("01",)
    what : sequence of {"events", "confounds", "bold", "betas"}, default=("events", "confounds")
        "bold" (preprocessed runs) and "betas" are large.
    server : str
        Address of the bucket.
    dry_run : bool, default=False
        Only list files and sizes.
    n_retries : int, default=4
    verbose : int, default=1
        1 announces the size and shows progress.

    Returns
    -------
    dataset : Bunch
        ``bids_dir``, ``derivatives_dir`` : Path; ``files`` : DataFrame with path and n_bytes;
        ``description``, ``licence``, ``citation``.

    Raises
    ------
    InputError
        Nothing matches, or a download fails.
    """
    unknown = set(what) - set(_WHAT)
    if unknown or not what:
        raise InputError(f"`what` must be among {tuple(_WHAT)}; got {tuple(what)}.")
    home = data_home(data_dir) / _DATASET
    subjects = [str(subject).removeprefix("sub-") for subject in subjects]
    rows = [("dataset_description.json", None), ("README", None)]
    for subject in subjects:
        for part in what:
            for pattern in _WHAT[part]:
                pattern = pattern.format(s=subject)
                prefix = pattern.split("*")[0]
                found = [
                    (name, size)
                    for name, size in _list(server, prefix, verbose)
                    if Path(name).match(pattern)
                ]
                if not found:
                    raise InputError(f"{server}/{_DATASET} has no {pattern}.")
                rows += found
    files = pd.DataFrame(rows, columns=["path", "n_bytes"])
    if verbose:
        tqdm.write(f"{len(files)} files, {files['n_bytes'].sum() / 1e9:.2f} GB, go to {home}.")
    if not dry_run:
        for row in files.itertuples():
            download(
                f"{server}/{_DATASET}/{urllib.parse.quote(row.path)}",
                home / row.path,
                n_bytes=None if pd.isna(row.n_bytes) else int(row.n_bytes),
                n_retries=n_retries,
                verbose=verbose,
            )
    return Bunch(
        bids_dir=home,
        derivatives_dir=home / _PREPROCESSED,
        files=files,
        description=__doc__,
        licence="CC0",
        citation=_CITATION,
    )


def _list(server, prefix, verbose):
    """Names (below the data set) and sizes of the files under a prefix, page by page."""
    token, found = None, []
    while True:
        query = {"list-type": "2", "prefix": f"{_DATASET}/{prefix}"}
        if token:
            query["continuation-token"] = token
        url = f"{server}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                page = ElementTree.fromstring(response.read(50_000_000))
        except (OSError, ElementTree.ParseError) as error:
            raise InputError(f"The list of files cannot be had from {server}: {error}") from error
        space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
        for entry in page.iter(f"{space}Contents"):
            name = entry.findtext(f"{space}Key").removeprefix(f"{_DATASET}/")
            if ".." in Path(name).parts or name.startswith("/"):
                raise InputError(f"{server} lists a file outside the data set: {name}.")
            found.append((name, int(entry.findtext(f"{space}Size"))))
        token = page.findtext(f"{space}NextContinuationToken")
        if not token:
            return found


# --- trials ------------------------------------------------------------------------------------


def bold_moments_trials(bids_dir, subject, *, session=None, task=None):
    """Table of the trials: which clip was shown when.

    Parameters
    ----------
    bids_dir : path-like
    subject : str
        With or without ``sub-``.
    session, task : str or None, default=None
        Keep one; None: all.

    Returns
    -------
    trials : DataFrame
        One row per clip shown, in the order of runs and onsets: ``session``, ``task``, ``run``,
        ``onset``, ``duration`` (s from the start of the run), ``stim_file`` (such as
        "train/0444.mp4"), ``repeat`` (1 for the first time that the clip was shown, ...),
        ``t_r``. Oddballs (no clip of the set) are left out; ``trials.attrs["oddballs"]`` holds
        their rows.

    Raises
    ------
    InputError
        No runs; tables without the columns.
    """
    bids_dir, subject = Path(bids_dir), str(subject).removeprefix("sub-")
    if not bids_dir.is_dir():
        raise InputError(f"No such directory: {bids_dir}.")
    paths = sorted(bids_dir.glob(f"sub-{subject}/ses-*/func/*_events.tsv"), key=_run_key)
    tables = []
    for path in paths:
        labels = _labels(path)
        if (session is not None and labels["ses"] != str(session).removeprefix("ses-")) or (
            task is not None and labels["task"] != str(task).removeprefix("task-")
        ):
            continue
        table = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"stim_file": str})
        lacking = {"onset", "duration", "stim_file", "trial_type"} - set(table.columns)
        if lacking:
            raise InputError(f"{path} must have the columns {', '.join(sorted(lacking))}.")
        table = table.sort_values("onset", kind="stable")
        table.insert(0, "session", labels["ses"])
        table.insert(1, "task", labels["task"])
        table.insert(2, "run", labels["run"])
        table["t_r"] = _repetition_time(path)
        tables.append(table)
    if not tables:
        raise InputError(f"No events of subject {subject} in {bids_dir}.")
    trials = pd.concat(tables, ignore_index=True)
    is_clip = trials["stim_file"].notna()
    oddballs = trials[~is_clip].reset_index(drop=True)
    trials = trials[is_clip].reset_index(drop=True)
    trials["repeat"] = trials.groupby("stim_file").cumcount() + 1
    trials.attrs["oddballs"] = oddballs
    return trials


def _labels(path):
    return dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)


def _run_key(path):
    labels = _labels(path)
    return labels.get("ses", ""), labels["task"], int(labels["run"])


def _repetition_time(events):
    path = events.with_name(events.name.replace("_events.tsv", "_bold.json"))
    if not path.is_file():
        raise InputError(f"No sidecar {path} with the RepetitionTime.")
    seconds = pd.read_json(path, typ="series").get("RepetitionTime")
    if not isinstance(seconds, (int, float)) or seconds <= 0:
        raise InputError(f"RepetitionTime of {path} must be in s; got {seconds}.")
    return float(seconds)


# --- responses ---------------------------------------------------------------------------------


def estimate_betas(
    bold, events, *, t_r, start_time=None, nuisance=None, model="lss", high_pass=1 / 128
):
    """Estimate the response to each trial with nilearn's general linear model.

    Parameters
    ----------
    bold : array of shape (n_volumes, n_voxels)
        One run.
    events : DataFrame
        ``onset`` and ``duration`` in s, one row per trial; a column ``trial_type`` is not used.
        Rows whose ``stim_file`` is missing (oddballs) are modelled together and not returned.
    t_r : float
        Repetition time in s.
    start_time : float or None, default=None
        Time in s that volume 0 stands for; None: t_r / 2, as fMRIPrep aligns slices.
    nuisance : array of shape (n_volumes, n_nuisance) or None, default=None
        Finite confounds.
    model : {"lss", "lsa"}, default="lss"
        One model per trial with the other trials as one regressor (least squares - separate;
        Mumford et al. 2012), or all trials at once (least squares - all).
    high_pass : float, default=1/128
        Cut-off of the cosine drift model, Hz.

    Returns
    -------
    betas : float32 array of shape (n_trials, n_voxels)
        In the order of the rows of `events` that have a clip.
    """
    from nilearn.glm.first_level import make_first_level_design_matrix

    bold = np.asarray(bold, dtype=np.float64)
    if bold.ndim != 2:
        raise InputError(f"`bold` must have shape (n_volumes, n_voxels); got {bold.shape}.")
    if model not in ("lss", "lsa"):
        raise InputError(f"`model` must be 'lss' or 'lsa'; got {model!r}.")
    if nuisance is not None:
        nuisance = np.asarray(nuisance, dtype=float)
        if nuisance.shape[0] != len(bold) or not np.isfinite(nuisance).all():
            raise InputError(
                f"`nuisance` must be finite with {len(bold)} rows; got shape {nuisance.shape}."
            )
    frame_times = (t_r / 2 if start_time is None else start_time) + t_r * np.arange(len(bold))
    events = events.reset_index(drop=True)
    if "stim_file" in events:
        is_clip = events["stim_file"].notna().to_numpy()
    else:
        is_clip = np.ones(len(events), dtype=bool)
    if not is_clip.any():
        raise InputError("`events` must have at least one trial with a clip; got none.")

    table = events[["onset", "duration"]].copy()
    table["trial_type"] = [
        f"trial{index:04d}" if shown else "oddball" for index, shown in enumerate(is_clip)
    ]
    design = make_first_level_design_matrix(
        frame_times,
        table,
        hrf_model="glover",
        drift_model="cosine",
        high_pass=high_pass,
        add_regs=nuisance,
    )
    names = [f"trial{index:04d}" for index in np.flatnonzero(is_clip)]
    nuisance = design.drop(columns=names).to_numpy()
    return single_trial_betas(bold, design[names].to_numpy(), nuisance, model=model)


def bold_moments_betas(
    bids_dir,
    subject,
    *,
    derivatives=None,
    space,
    masker=None,
    session=None,
    task=None,
    nuisance=_NUISANCE,
    model="lss",
    verbose=0,
):
    """Estimate single-trial betas from the preprocessed runs, run by run.

    Parameters
    ----------
    bids_dir : path-like
    subject : str
    derivatives : path-like or None, default=None
        None: ``derivatives/versionB/fmriprep``.
    space : str
        Space of the volumes, e.g. "MNI152NLin2009cAsym".
    masker : nilearn masker or None, default=None
        Fitted, from a run's image to (n_volumes, n_voxels); None: each run's own brain mask, which
        must then be the same in all runs.
    session, task : str or None, default=None
    nuisance : sequence of str
        Columns of the confounds table; leading missing values become 0.
    model : {"lss", "lsa"}, default="lss"
    verbose : int, default=0

    Returns
    -------
    responses : Bunch
        ``bold`` : float32 (n_trials, n_voxels), z-scored per run; ``trials`` : DataFrame, row i
        belongs to sample i; ``runs`` : (n_trials,) int label of the run; ``films`` : (n_trials,)
        int label of the clip, the same for its repeats; ``masker``.

    Raises
    ------
    InputError
        A run without its image, mask or confounds.
    """
    from nilearn.maskers import NiftiMasker

    bids_dir = Path(bids_dir)
    derivatives = bids_dir / _PREPROCESSED if derivatives is None else Path(derivatives)
    subject = str(subject).removeprefix("sub-")
    trials = bold_moments_trials(bids_dir, subject, session=session, task=task)
    every = pd.concat([trials, trials.attrs["oddballs"]]).sort_values("onset", kind="stable")
    names = list(dict.fromkeys(zip(trials["session"], trials["task"], trials["run"], strict=True)))
    parts, runs = [], []
    progress = tqdm(names, desc="runs", unit="run", disable=not verbose)
    for label, (ses, name, run) in enumerate(progress):
        folder = derivatives / f"sub-{subject}" / f"ses-{ses}" / "func"
        stem = f"sub-{subject}_ses-{ses}_task-{name}_run-{run}"
        image = folder / f"{stem}_space-{space}_desc-preproc_bold.nii.gz"
        for path in (image, folder / f"{stem}_desc-confounds_timeseries.tsv"):
            if not path.is_file():
                raise InputError(f"Not found: {path}.")
        if masker is None:
            mask = folder / f"{stem}_space-{space}_desc-brain_mask.nii.gz"
            if not mask.is_file():
                raise InputError(f"Not found: {mask}; give a fitted `masker`.")
            masker = NiftiMasker(mask_img=str(mask), standardize=None).fit()
        bold = masker.transform(nib.load(image))
        shown = every[(every["session"] == ses) & (every["task"] == name) & (every["run"] == run)]
        table = load_nuisance(folder / f"{stem}_desc-confounds_timeseries.tsv", nuisance)
        if len(table) != len(bold):
            raise InputError(f"{image} must have {len(table)} volumes; got {len(bold)}.")
        betas = estimate_betas(bold, shown, t_r=shown["t_r"].iloc[0], nuisance=table, model=model)
        betas -= betas.mean(axis=0)
        deviation = betas.std(axis=0)
        betas /= np.where(deviation > 0, deviation, 1)
        parts.append(betas)
        runs.append(np.full(len(betas), label))
    return Bunch(
        bold=np.concatenate(parts),
        trials=trials,
        runs=np.concatenate(runs),
        films=pd.factorize(trials["stim_file"], sort=True)[0],
        masker=masker,
    )


def load_nuisance(path, columns=_NUISANCE):
    """Columns of a confounds table, leading missing values 0: (n_volumes, n_columns)."""
    table = pd.read_csv(path, sep="\t", na_values="n/a")
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise InputError(f"{path} must have the column {lacking[0]}.")
    values = table[list(columns)].to_numpy(dtype=float)
    first = np.isnan(values).cumprod(axis=0).astype(bool)
    values = np.where(first, 0.0, values)
    if not np.isfinite(values).all():
        raise InputError(f"{path} must be finite after its first rows.")
    return values


def load_betas(path, trials):
    """Load released single-trial betas that are stored as plain arrays.

    Parameters
    ----------
    path : path-like
        ``.npy`` (n_trials, n_voxels), or HDF5 (``.h5``, ``.hdf5``, ``.mat`` of version 7.3) with
        one data set "betas" or "betasmd". The release's ``.pkl`` files are refused, since loading
        a pickle runs code: convert them once, with a Python in which you trust them
        (``numpy.save("betas.npy", pickle.load(file)[0].reshape(-1, n_voxels))``).
    trials : DataFrame
        From :func:`bold_moments_trials`, in the order of the betas.

    Returns
    -------
    bold : float32 array of shape (n_trials, n_voxels)

    Raises
    ------
    InputError
        Another format, or another number of trials.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle"):
        raise InputError(f"{path} is a pickle, which can run code: save its array as .npy first.")
    if not path.is_file():
        raise InputError(f"Betas not found: {path}.")
    if suffix == ".npy":
        betas = np.load(path, allow_pickle=False)
    elif suffix in (".h5", ".hdf5", ".mat"):
        import h5py

        with h5py.File(path, "r") as file:
            names = [name for name in ("betas", "betasmd") if name in file]
            if not names:
                raise InputError(f"{path} must hold 'betas' or 'betasmd'; has {list(file)}.")
            betas = file[names[0]][()]
    else:
        raise InputError(f"{path} must be .npy or HDF5; got {suffix}.")
    if betas.ndim == 2 and betas.shape[0] != len(trials) and betas.shape[1] == len(trials):
        betas = betas.T  # as MATLAB stores them
    if betas.ndim != 2 or len(betas) != len(trials):
        raise InputError(
            f"{path} must have shape ({len(trials)}, n_voxels), one row per trial; got "
            f"{betas.shape}."
        )
    if not np.isfinite(betas).all():
        raise InputError(f"{path} must be finite.")
    return betas.astype(np.float32)
