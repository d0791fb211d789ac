"""A released data set that is no BIDS becomes one: linked, written whole or not at all."""

import json
import os
import shutil

import nibabel as nib

from brainnrds.io import InputError, atomic_path

__all__ = [
    "begin_conversion",
    "count_volumes",
    "finish_conversion",
    "holds_conversion",
    "link",
    "write_json",
    "write_table",
]


def holds_conversion(output, record):
    """Whether `output` is this conversion already; raises if it is anything else."""
    if not output.exists():
        return False
    found = output / "sourcedata" / "conversion.json"
    if found.is_file():
        there = json.loads(found.read_text())
        if there == record:
            return True
        changed = sorted(key for key in record if there.get(key) != record[key])
        raise InputError(
            f"{output} holds another conversion ({', '.join(changed)} differ): choose another "
            "`output` or remove it."
        )
    if not output.is_dir() or any(output.iterdir()):
        raise InputError(f"`output` must be a new or an empty folder; got {output}.")
    return False


def begin_conversion(output, record):
    """Make, or go on in, ``<output>.partial``; one of another conversion is begun anew."""
    partial = output.with_name(output.name + ".partial")
    if partial.exists():
        started = partial / "started.json"
        if not started.is_file():
            raise InputError(f"{partial} is in the way and not ours: remove it.")
        if json.loads(started.read_text()) != record:
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / "started.json", record)
    return partial


def finish_conversion(partial, output, record):
    """Give a conversion its name."""
    (partial / "started.json").unlink()
    write_json(partial / "sourcedata" / "conversion.json", record)
    if output.exists():
        output.rmdir()
    os.replace(partial, output)


def count_volumes(path):
    """Volumes of a NIfTI or CIFTI series."""
    try:
        image = nib.load(path, mmap=False)
        if isinstance(image, nib.Cifti2Image):
            return image.shape[0]
        if len(image.shape) == 4:
            return image.shape[3]
    except Exception as error:
        raise InputError(f"{path} cannot be read (damaged or truncated): {error}") from error
    raise InputError(f"{path} must be a series of volumes; got shape {image.shape}.")


def write_json(path, content):
    """Write JSON whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_table(path, table):
    """Write TSV whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", float_format="%.6g")


def link(source, target, *, inside=False):
    """Hard link, else symbolic link (not with `inside`), else copy. An existing target stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
        return
    except OSError:
        pass  # another file system, or one without hard links
    if not inside:
        try:
            os.symlink(source, target)
            return
        except OSError:
            pass
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
