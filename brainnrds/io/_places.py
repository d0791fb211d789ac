"""Where a BIDS data set and its derivatives lie."""

from pathlib import Path

from brainnrds._checks import InputError
from brainnrds._files import load_json

__all__ = ["check_bids", "deeper", "derivatives_dir", "is_minimal", "minimal_level"]


def check_bids(bids_dir):
    if not bids_dir.is_dir():
        raise InputError(f"No such directory: {bids_dir}.")
    path = bids_dir / "dataset_description.json"
    if not path.exists() and not path.is_symlink():
        raise InputError(f"Not a BIDS data set: {bids_dir} has no dataset_description.json.")
    content = load_json(path)
    missing = [key for key in ("Name", "BIDSVersion") if not isinstance(content.get(key), str)]
    if missing:
        raise InputError(f"Not a BIDS data set: {path} has no {' and no '.join(missing)}.")


def _has_bold(folder):
    """Whether a folder has an image of BOLD in one of its participants' folders."""
    names = ("_bold.nii", "_bold.nii.gz", "_bold.func.gii", "_bold.dtseries.nii")
    return any(
        path.name.endswith(names)
        for pattern in ("sub-*/*", "sub-*/func/*", "sub-*/ses-*/*", "sub-*/ses-*/func/*")
        for path in folder.glob(pattern)
    )


def is_minimal(folder):
    """Whether a folder holds what fMRIPrep writes at its minimal level, and no more."""
    names = ("sub-*/func/*_desc-hmc_*", "sub-*/ses-*/func/*_desc-hmc_*")
    return any(True for name in names for _ in folder.glob(name)) and not _has_bold(folder)


def minimal_level(folder):
    """What to do about it, in one line."""
    return (
        f"No derivatives: {folder} is of fMRIPrep's minimal level, without BOLD; complete it with "
        f"`fmriprep <bids_dir> <output_dir> participant --level full --derivatives "
        f"minimal={folder} --output-spaces MNI152NLin2009cAsym fsaverage5`."
    )


def deeper(folder):
    """The folders one or two levels below that hold preprocessed BOLD."""
    below = [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))]
    return [
        path
        for path in below
        if path.is_dir() and not path.name.startswith(("sub-", ".")) and _has_bold(path)
    ]


def derivatives_dir(bids_dir, derivatives):
    if derivatives is not None:
        derivatives = Path(derivatives)
        if not derivatives.is_dir():
            raise InputError(f"No such directory: {derivatives} (derivatives).")
        return derivatives
    folder = bids_dir / "derivatives"
    if (folder / "fmriprep").is_dir():
        return folder / "fmriprep"
    datasets = [path for path in _folders(folder) if _has_bold(path)]
    if len(datasets) == 1:
        return datasets[0]
    if datasets:
        names = ", ".join(path.name for path in datasets)
        raise InputError(f"Several derivatives have BOLD: {names}; choose one with `derivatives`.")
    minimal = [path for path in _folders(folder) if is_minimal(path)]
    if minimal:
        raise InputError(minimal_level(minimal[0]))
    if load_json(bids_dir / "dataset_description.json").get("DatasetType") == "derivative":
        raise InputError(
            f"{bids_dir} is a derivative itself: give the raw data set, with events and films, and "
            "this folder as `derivatives`."
        )
    raise InputError(_no_derivatives(folder))


def _folders(folder):
    return [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def _no_derivatives(folder):
    below = deeper(folder) if folder.is_dir() else []
    there = f"; there is some in {', '.join(map(str, below[:3]))}" if below else ""
    return (
        f"No derivatives: {folder} must hold preprocessed BOLD (fMRIPrep) in sub-<label>/{there}: "
        "give `derivatives`."
    )
