"""One run of an analysis: what decides it, is it finished, where its files go, what it was.

An analysis makes a `Record`, settles what decides the result, asks whether that is finished
already, computes in steps that the work folder keeps, writes its files through the record, and
closes it. The file of the record is written last: it says that everything before it is there, with
a checksum of each file.
"""

import hashlib
import io
import json
import os
import platform
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib
import numpy as np
from joblib.externals.loky.process_executor import BrokenProcessPool

import brainnrds
from brainnrds._checks import InputError
from brainnrds._files import (
    atomic_path,
    check_replaceable,
    hash_file,
    hash_files,
    plain,
    to_json,
)
from brainnrds._processes import start_processes
from brainnrds.analyses.drawing import find_pycortex_subject
from brainnrds.analyses.options import Selection, deciding_values
from brainnrds.io import (
    check_output_dir,
    derivative_path,
    find_runs,
    load_json,
    save_flow,
    save_json,
    save_map,
    save_series,
    save_table,
    write_clip,
    write_dataset_description,
)
from brainnrds.io.bold import common_mask
from brainnrds.io.derivatives import find_results
from brainnrds.io.film_parts import cut_only_film
from brainnrds.io.images import make_masker
from brainnrds.reporting import write_report

__all__ = ["Record", "describe_run", "device_name", "read_record"]

# cores; with fewer, it takes longer to start processes than to draw here
_FEWEST_TO_DRAW = 4
_PACKAGES = ("numpy", "scipy", "scikit-learn", "nilearn", "nibabel", "pybids", "himalaya", "torch")


class Record:
    """What an analysis writes on: of a participant from `of_participant`, of the group from here.

    Parameters
    ----------
    analysis : str
        "encode", "decode" or "reanimate".
    output_dir : path-like
    entities : dict
        "subject", "task", "space" of all names of files; without a subject the group's.
    work_dir : path-like, default="work"
    verbose : int, default=1
        0 is silent.

    Attributes
    ----------
    runs : list of Run
        Of a participant.
    key : str
        Of what decides the result, after `settle`.
    work : Path
        Folder of the steps, after `settle`.
    parameters : dict
        Of the sidecars, after `open`.
    inputs : dict of str to str
        SHA-256 of every input file of a participant, after `open`.
    pycortex_subject : str or None
        Folder of the surfaces that maps are drawn on, after `settle`; None: a template's.
    """

    def __init__(self, analysis, output_dir, entities, *, work_dir="work", verbose=1):
        self._start = time.perf_counter()
        self.analysis, self.entities, self.verbose = analysis, entities, verbose
        self.subject = entities.get("subject")
        self.output_dir, self.work_dir = Path(output_dir), Path(work_dir)
        self.warned = Counter()
        self._files = []
        self._n_jobs = 1
        self._drawing, self._executor = [], None
        self._sealing = self._being_sealed = None
        self.parameters, self.inputs = {}, {}
        self.pycortex_subject = None

    @classmethod
    def of_participant(
        cls, analysis, selection, output_dir, subject, *, work_dir="work", n_jobs=1, verbose=1
    ):
        """Find the runs of a participant and make its record.

        Parameters
        ----------
        analysis, output_dir, work_dir, verbose
            As of the class.
        selection : Selection or path-like
            Which data; a path is the BIDS folder.
        subject : str
            Label without "sub-".
        n_jobs : int, default=1
            Runs that are looked into at once, and files that are hashed.

        Returns
        -------
        record : Record

        Raises
        ------
        InputError
            The data set or the output folder cannot be used.
        """
        if not isinstance(selection, Selection):
            selection = Selection(bids_dir=Path(selection))
        check_output_dir(output_dir, selection.bids_dir, derivatives=selection.derivatives)
        start = time.perf_counter()
        keywords = {**selection.keywords(), "n_jobs": n_jobs}
        found = find_runs(selection.bids_dir, subject=subject, **keywords)
        with warnings.catch_warnings(record=True) as cut:
            warnings.simplefilter("always")
            runs = cut_only_film(found)
        tasks = {run.task for run in runs}
        entities = {
            "subject": subject,
            "task": tasks.pop() if len(tasks) == 1 else None,  # of several, a label would be wrong
            "space": runs[0].space,
        }
        record = cls(analysis, output_dir, entities, work_dir=work_dir, verbose=verbose)
        record.runs, record.selection, record._start = runs, selection, start
        record._n_jobs = n_jobs
        record._pass_on(cut)
        return record

    # what decides, and what is finished

    def settle(self, options, **inputs):
        """Say what decides the result; then `key`, `work` and `is_finished` are known.

        Parameters
        ----------
        options : instance of a dataclass of options
        **inputs
            What else decides, in JSON's types: descriptions of extractors, hashes.
        """
        self._settled = self.data_key
        decides = {
            "analysis": self.analysis,
            "subject": self.subject,
            "data": self._settled,
            "options": deciding_values(options),
            **inputs,
            "version": brainnrds.__version__,
        }
        text = json.dumps(decides, sort_keys=True, default=to_json)
        self.options = options
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self.work = self.work_dir / f"sub-{self.subject}" / f"{self.analysis}-{self.key[:16]}"
        if options.pycortex_subject is not None:
            masker = make_masker(self.runs[0].bold, common_mask(self.runs, options.mask))
            self.draw_on(options.pycortex_subject, masker)
            # figures are another run's; what was computed is the same
            text += self.pycortex_subject
            self.key = hashlib.sha256(text.encode()).hexdigest()

    def draw_on(self, pycortex_subject, masker):
        """Draw maps on the surfaces of a pycortex subject, which must be those of the data."""
        self.pycortex_subject = find_pycortex_subject(
            pycortex_subject, self.subject, masker, self.entities.get("space")
        )

    @property
    def data_key(self):
        """Of the runs alone: their files, by name, size and time of change."""
        text = json.dumps([_fingerprint(run) for run in self.runs])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def is_finished(self):
        """Whether this very run was done, and every file of it is whole."""
        path = check_replaceable(self.path("provenance"))
        if not path.exists():
            return False
        written = read_record(path, self.output_dir)
        if written is None:
            self.say(f"results of {path.name} are missing or damaged: done again")
        elif written["Key"] != self.key:
            self.say(f"{path.name} is of other options, inputs or another version: done again")
        return written is not None and written["Key"] == self.key

    def say(self, line):
        """Print a line of progress."""
        if self.verbose:
            print(line, flush=True)  # noqa: T201 : a step's name

    # steps in the work folder

    def step(self, name, compute, *, title=None):
        """Return the arrays of a step: read if they are whole in the work folder, else computed.

        Parameters
        ----------
        name : str
        compute : callable
            Returns a dict of arrays.
        title : str or None, default=None
            Said when it is computed.

        Returns
        -------
        arrays : dict of str to array
            Mapped from the files, read-only.
        """
        described = check_replaceable(self.work / f"{name}.json")
        if described == self._being_sealed:
            self.seal()
        arrays = self._read_step(name, described)
        if arrays is not None:
            return arrays
        self.say(title or name)
        paths = {}
        for key, array in compute().items():
            paths[key] = self.work / f"{name}.{key}.npy"
            with atomic_path(paths[key]) as temporary, open(temporary, "wb") as stream:
                np.save(stream, np.asarray(array), allow_pickle=False)
        self.seal()
        thread, self._being_sealed = ThreadPoolExecutor(1), described
        self._sealing = thread.submit(_seal_step, described, paths)
        thread.shutdown(wait=False)
        return _map_arrays(paths)

    def seal(self):
        """Wait until what is computed is found again: hashing goes on beside the next step."""
        sealing, self._sealing, self._being_sealed = self._sealing, None, None
        if sealing is not None:
            sealing.result()

    def _read_step(self, name, described):
        for path in self.work.glob(f"{name}.*.npy"):
            check_replaceable(path)
        try:
            checksums = load_json(described)
            paths = {key: self.work / f"{name}.{key}.npy" for key in checksums}
            if any(hash_file(path) != checksums[key] for key, path in paths.items()):
                return None
            return _map_arrays(paths)
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    @contextmanager
    def watching(self):
        """Count the warnings of the block for the record, and pass them on at its end."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield
        self._pass_on(caught)

    def _pass_on(self, caught):
        for message in caught:
            warnings.warn_explicit(
                message.message, message.category, message.filename, message.lineno
            )
            if is_ours(message.filename):
                self.warned[str(message.message)] += 1

    # results

    def path(self, kind, **entities):
        """Path of a result; `kind` names its pattern in ``bids_specs/derivatives.json``."""
        return derivative_path(
            self.output_dir, kind, {**self.entities, "desc": self.analysis, **entities}
        )

    def open(self, parameters):
        """Begin to write results; `parameters` go into the sidecar of each.

        So does, for a participant, one hash over the hashes of all input files.

        Raises
        ------
        InputError
            An input file is another one than when the analysis began.
        """
        self.seal()
        self.parameters = dict(parameters)
        if self.subject is not None:
            if self.data_key != self._settled:
                raise InputError("input files changed while they were analysed: run again.")
            self.inputs = self._hash_inputs()
            text = json.dumps(self.inputs, sort_keys=True)
            self.parameters["inputs_sha256"] = hashlib.sha256(text.encode()).hexdigest()
            write_dataset_description(
                self.output_dir, self.selection.bids_dir, derivatives=self.selection.derivatives
            )

    def _hash_inputs(self):
        """SHA-256 of every file that was read, by its place in the data set."""
        chosen = self.selection
        roots = [chosen.bids_dir, chosen.derivatives, chosen.stimuli]
        roots = [Path(root).absolute() for root in roots if root is not None]
        paths = sorted({path.absolute() for run in self.runs for path in _files_of(run)})
        names = [
            path.relative_to(next((r for r in roots if path.is_relative_to(r)), path.parent))
            for path in paths
        ]
        n_threads = joblib.effective_n_jobs(self._n_jobs)
        hashes = hash_files(map(os.path.realpath, paths), n_threads)
        return {name.as_posix(): digest for name, digest in zip(names, hashes, strict=True)}

    def add(self, *paths):
        """Count files, and their sidecars, among the results."""
        for path in map(Path, paths):
            sidecar = path.with_name(path.name.split(".")[0] + ".json")
            self._files += [path, sidecar] if sidecar.exists() else [path]

    def save_map(self, values, masker, *, description, unit, **entities):
        """Write a map; return its files relative to the output folder."""
        paths = save_map(
            self.output_dir,
            values,
            masker,
            {**self.entities, "desc": self.analysis, **entities},
            metadata={"Description": description, "Units": unit, **self.parameters},
        )
        self.add(*paths)
        return [path.relative_to(self.output_dir).as_posix() for path in paths]

    def save_maps(self, maps, masker, voxels):
        """Write maps side by side: compression and the disk take the time.

        Parameters
        ----------
        maps : iterable of tuple
            (feat or None, stat, values, description, unit) of each.
        masker
        voxels : bool array of shape (n_voxels,)
            All others become NaN.

        Returns
        -------
        files : dict of str to list of str
            Name of a map, its feat and stat -> its files, relative to the output folder.
        """

        def save(feat, stat, values, description, unit):
            about = {"description": description, "unit": unit, "feat": feat, "stat": stat}
            files = self.save_map(np.where(voxels, values, np.nan), masker, **about)
            return f"{feat}_{stat}" if feat else stat, files

        with ThreadPoolExecutor(joblib.effective_n_jobs(self._n_jobs)) as threads:
            return dict(threads.map(save, *zip(*maps, strict=True)))

    def save_table(self, table, *, columns, description, **entities):
        """Write a table."""
        path = self.path("table", **entities)
        metadata = {"Description": description, **self.parameters}
        save_table(path, table, columns=columns, metadata=metadata)
        self.add(path)

    def save_series(self, values, masker, *, t_r, metadata, **entities):
        """Write predicted BOLD as an image of time series."""
        entities = {**self.entities, "desc": self.analysis, **entities}
        metadata = {**metadata, **self.parameters}
        self.add(
            *save_series(self.output_dir, values, masker, entities, t_r=t_r, metadata=metadata)
        )

    def save_model(self, model, metadata, *, description, **entities):
        """Write a fitted encoding model, with what to know of it."""
        path = self.path("model", **entities)
        model.save(path, metadata=metadata)
        save_json(path.with_suffix(".json"), {"Description": description, **self.parameters})
        self.add(path)

    def save_flow(self, flow, *, arrays, contents):
        """Write flow of clips, with further arrays by clip."""
        path = self.path("flow")
        save_flow(path, flow, arrays=arrays, metadata={"Contents": contents, **self.parameters})
        self.add(path)

    def save_figure(self, figure, suffix, *, description="", dpi=100, **entities):
        """Write a figure, or the bytes of its PNG, and close it."""
        path = self.path("figure", suffix=suffix, **entities)
        png = figure if isinstance(figure, bytes) else _as_png(figure, dpi)
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(png)
        save_json(path.with_suffix(".json"), {"Description": description})
        self.add(path)

    def save_drawn(self, drawn, **how):
        """Write what `drawing` made, (suffix, figure), or nothing where that is None."""
        if drawn is not None:
            suffix, figure = drawn
            self.save_figure(figure, suffix, **how)

    def draw(self, job, **how):
        """Draw and write a figure: with many cores in another process, and by `close` at last.

        Parameters
        ----------
        job : partial
            Of a function that returns (suffix, figure), or None.
        **how
            As of `save_figure`.
        """
        if self._n_jobs < _FEWEST_TO_DRAW:
            self.save_drawn(job(), **how)
            return
        if self._executor is None:
            self._executor = start_processes(self._n_jobs)
        self._drawing.append((self._executor.submit(_draw_as_png, job), job, how))

    def _finish_drawing(self):
        for future, job, how in self._drawing:
            try:
                drawn, told = future.result()
            except BrokenProcessPool:  # for want of memory: one after the other
                self.save_drawn(job(), **how)
                continue
            for warned in told:
                warnings.warn_explicit(*warned)
            self.save_drawn(drawn, **how)
        self._drawing = []

    def save_page(self, page, suffix, *, description="", **entities):
        """Write a page of HTML that the report shows among its figures."""
        path = self.path("figure", suffix=suffix, extension=".html", **entities)
        with atomic_path(path) as temporary:
            Path(temporary).write_text(page, encoding="utf-8")
        save_json(path.with_suffix(".json"), {"Description": description})
        self.add(path)

    def save_clip(self, path, clip, *, fps, metadata):
        """Write a clip as video, with its sidecar."""
        write_clip(path, clip, fps=fps)
        save_json(path.with_suffix(".json"), metadata)
        self.add(path)

    def close(self, summary, *, random_state, device="cpu", **more):
        """Remove what an older run left, and write the record, last.

        Parameters
        ----------
        summary : dict
            The main results: name -> number or text.
        random_state : int
        device : str, default="cpu"
        **more
            Further entries.

        Returns
        -------
        report : Path
        """
        self._finish_drawing()
        files = {path.relative_to(self.output_dir).as_posix(): path for path in self._files}
        record_path = self.path("provenance")
        for old in find_results(self.output_dir, self.entities, self.analysis):
            if old != record_path and old.relative_to(self.output_dir).as_posix() not in files:
                old.unlink(missing_ok=True)
        described = describe_run(
            self.analysis,
            parameters=self.parameters,
            summary=summary,
            seeds={"random_state": random_state},
            device=device,
            seconds=time.perf_counter() - self._start,
            warned=self.warned,
        )
        digests = hash_files(files.values(), joblib.effective_n_jobs(self._n_jobs))
        checksums = dict(sorted(zip(files, digests, strict=True)))
        finished = {}
        if self.subject is not None:
            finished = {
                "Key": self.key,
                "Data": self.data_key,
                "Inputs": self.inputs,
                "Options": asdict(self.options),
                "Files": checksums,
            }
        content = plain({**described, **finished, **more})
        save_json(record_path, {**content, "Checksum": _checksum(content)})
        return self.report()

    def report(self):
        """Write the report of the participant or the group; return its path."""
        return write_report(self.output_dir, self.subject)


def _seal_step(described, paths):
    save_json(described, {key: hash_file(path) for key, path in paths.items()})


def _map_arrays(paths):
    return {k: np.load(p, mmap_mode="r", allow_pickle=False) for k, p in paths.items()}


def _as_png(figure, dpi=100):
    import matplotlib.pyplot as plt

    stream = io.BytesIO()
    figure.savefig(stream, dpi=dpi, format="png")
    plt.close(figure)
    return stream.getvalue()


def _draw_as_png(job):
    """Return the suffix and the PNG of what is drawn, or None, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        drawn = job()
        if drawn is not None:
            drawn = drawn[0], _as_png(drawn[1])
    return drawn, [(w.message, w.category, w.filename, w.lineno) for w in caught]


def read_record(path, output_dir):
    """Read the record of a finished analysis.

    Parameters
    ----------
    path, output_dir : path-like

    Returns
    -------
    written : dict or None
        None where there is none, or where it or a file of it is missing or changed.
    """
    try:
        written = load_json(path)
        whole = written.pop("Checksum", None) == _checksum(written) and all(
            hash_file(Path(output_dir) / name) == checksum
            for name, checksum in written["Files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return written if whole and "Key" in written else None


def _checksum(content):
    """Of a record's content, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_ours(filename):
    """Say whether a warning comes from this package."""
    return "brainnrds" in Path(filename).parts


def _files_of(run):
    """What is read of a run: BOLD, events, confounds, mask, films."""
    films = (presentation.stim_file for presentation in run.films)
    paths = (*run.bold, run.events, run.confounds, run.mask, *films)
    return [path for path in paths if path is not None]


def _fingerprint(run):
    """Tell a run's files and what it shows from changed ones without reading gigabytes."""
    shown = [[p.film, p.onset, p.duration, p.film_start, p.film_group] for p in run.films]
    status = [(path.name, path.stat()) for path in _files_of(run)]
    return shown, [[name, about.st_size, about.st_mtime_ns] for name, about in status]


def describe_run(analysis, *, parameters, summary, seeds, device, seconds, warned):
    """Describe a finished analysis, in the words that `brainnrds.reporting` reads.

    Parameters
    ----------
    analysis : str
    parameters : dict
        Everything that was chosen or found.
    summary : dict
        The main results: name -> number or text.
    seeds : dict
    device : str
    seconds : float
        Wall-clock time.
    warned : dict of str to int
        Warnings and how often each was met.

    Returns
    -------
    described : dict
    """
    versions = {"Python": platform.python_version(), "brainnrds": brainnrds.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "Analysis": analysis,
        "Summary": summary,
        "Parameters": parameters,
        "Command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "Seeds": seeds,
        "Device": device_name(device),
        "Seconds": round(seconds, 1),
        "Versions": versions,
        "Warnings": dict(warned),
    }


def device_name(device):
    """Name the hardware behind a device string."""
    if device.startswith("cuda"):
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {_n_cores()} cores)"


def _n_cores():
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
