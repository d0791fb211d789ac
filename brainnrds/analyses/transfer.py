"""A decoder of other people for a new one: its brain gain against the minutes that it had.

Every number of minutes is a step that is kept in the work folder: an interrupted analysis goes on.
"""

import math

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from brainnrds._checks import InputError, check_device
from brainnrds.analyses.decode import (
    decoding_extractors,
    decoding_samples,
    decoding_stimuli,
    make_decoder,
)
from brainnrds.analyses.design import choose_design
from brainnrds.analyses.extract import describe_extractor
from brainnrds.analyses.options import TransferOptions
from brainnrds.analyses.record import Record
from brainnrds.blocks import FEWEST_BLOCKS, SHORTEST_BLOCK
from brainnrds.decoding import read_in_template, select_voxels, transfer_curve
from brainnrds.io import list_subjects, load_json, load_runs, load_table
from brainnrds.plotting import plot_gain_curve

__all__ = ["transfer_participant"]

_COLUMNS = {
    "minutes": "Of the participant's own training films",
    "kind": "from scratch: the participant's data alone; adapted: trained on other participants, "
    "only the layer that reads voxels is the participant's own; adapted + aligned: that layer "
    "begins with what others' layers gave at the same moments of the same films",
    "error_px": "End-point error in the test films, px of the grid per step",
    "unrelated_error_px": "The same of a decoder trained and tested with BOLD of other films",
    "gain_px": "Brain gain: unrelated_error_px minus error_px",
    "low": "Lower end of its 95 % interval over blocks of test clips and trainings",
    "high": "Its upper end",
    "p": "One-sided p-value of the gain, by the same error",
}


def transfer_participant(
    selection, output_dir, subject, options=None, *, work_dir="work", verbose=1
):
    """Decode the motion that one participant saw with a decoder of the others.

    Parameters
    ----------
    selection : Selection or path-like
        Which data; a path is the BIDS folder.
    output_dir : path-like
    subject : str
        Label without "sub-", of the new person. The decoder is trained on the others of the data
        set, or on those of the option `others`, without the participant's test films.
    options : TransferOptions or None, default=None
        None: the defaults. Films are split as in :func:`decode_participant`.
    work_dir : path-like, default="work"
        Steps that are finished there are not done again.
    verbose : int, default=1
        0 is silent.

    Returns
    -------
    result : Bunch
        With ``report`` (Path), ``table`` (DataFrame), ``told`` (what a terminal shows of it) and
        ``note`` (str).

    Raises
    ------
    InputError
        Before anything is written to `output_dir`, with one line that says what is wrong.
    """
    options = options or TransferOptions()
    record = _open(selection, output_dir, subject, options, work_dir, verbose)
    if choose_design(record.runs, options)[0] == "trials":
        raise InputError(
            "--analysis transfer is for continuous designs; this is one of trials "
            "(--design continuous: volume by volume)."
        )
    others = [
        _open(record.selection, output_dir, label, options, work_dir, verbose)
        for label in _others(record, subject, options)
    ]
    device = check_device(options.device)
    extractors = decoding_extractors(record.runs, options, device)
    record.settle(
        options,
        extractors={name: describe_extractor(extractor) for name, extractor in extractors.items()},
        others={other.subject: other.data_key for other in others},
    )
    if record.is_finished:
        return _result(record)
    with record.watching():
        samples, test = decoding_samples(record.runs, options, verbose)
        own = _see(record, samples, extractors)
        people = [_load_other(other, record, samples, test, extractors) for other in others]
        trunk = _fit_trunk(record, people, samples.bold.shape[1], device)
        template = _template(trunk, people, samples)
        table = _curve(record, trunk, own, test, template)
    record.open(_parameters(record, samples, own, test, people, trunk, template))
    note = _note(people, template, table)
    record.save_table(table, columns=_COLUMNS, description=note)
    figure = plot_gain_curve(table, label=f"brain gain (px of the {_grid(options)} grid per step)")
    record.save_figure(figure, "curve", stat="gain", description=note)
    most = table[table["minutes"] == table["minutes"].max()].set_index("kind")["gain_px"]
    summary = {"people in the decoder": len(people), "test clips": int((own.shown & test).sum())}
    summary |= {
        f"brain gain, {kind}, {table['minutes'].max():g} min": round(float(gain), 4)
        for kind, gain in most.items()
    }
    record.close(summary, random_state=options.random_state, device=device)
    return _result(record)


def _open(selection, output_dir, subject, options, work_dir, verbose):
    return Record.of_participant(
        "transfer",
        selection,
        output_dir,
        subject,
        work_dir=work_dir,
        n_jobs=options.n_processes,
        verbose=verbose,
    )


def _others(record, subject, options):
    """Labels of those on whom the decoder is trained."""
    known = list_subjects(record.selection.bids_dir, **_looked_for(record.selection))
    chosen = [label for label in options.others or known if label != subject]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InputError(f"--others must be participants of the data set; got {unknown}.")
    if len(chosen) < 2:
        raise InputError(
            f"A decoder for sub-{subject} must be trained on two other participants at least; got "
            f"{', '.join(chosen) or 'none'}."
        )
    return chosen


def _looked_for(selection):
    """What `list_subjects` takes of a selection."""
    taken = ("session", "task", "space", "derivatives", "bids_filter", "database_path")
    return {name: value for name, value in selection.keywords().items() if name in taken}


def _grid(options):
    return "{} x {}".format(*options.grid)


def _see(record, data, extractors):
    """What a person saw: flow, features of frames, and which samples count."""
    flow, image, has_cut, _ = decoding_stimuli(
        data, extractors, record.work_dir, record.options.n_processes, bool(record.verbose)
    )
    shown = (data.films != -1) & ~has_cut
    return Bunch(data=data, flow=flow, image=image, has_cut=has_cut, shown=shown)


def _load_other(other, record, samples, test, extractors):
    """A person of the decoder, without the test films and with the voxels that are chosen."""
    options = record.options
    data = load_runs(
        other.runs,
        repeats=options.repeats,
        verbose=int(bool(record.verbose)),
        **options.keywords(),
    )
    if abs(data.t_r - samples.t_r) > 1e-6:
        raise InputError(
            f"Participants must share one repetition time; got {samples.t_r:g} s of "
            f"sub-{record.subject} and {data.t_r:g} s of sub-{other.subject}."
        )
    tested = [samples.film_names[i] for i in np.unique(samples.films[test & (samples.films >= 0)])]
    hidden = {group for film, group in _groups(record.runs).items() if film in tested}
    theirs = _groups(other.runs)
    out = [name for name in data.film_names if theirs[name] in hidden]
    data = data[~data.shows(*out)] if out else data
    if not (data.on_screen >= 0).any():
        raise InputError(
            f"sub-{other.subject} must have seen films beside the test films {', '.join(tested)}; "
            "got none."
        )
    # at rest there is no flow to decode
    data.films = np.where(data.on_screen >= 0, data.films, -1)
    person = _see(record, data, extractors)
    voxels = np.flatnonzero(data.voxels)
    if options.n_voxels < len(voxels):
        decoder = make_decoder(options, data, len(voxels), checkpoint_path=None, device="cpu",
                               verbose=0)  # fmt: skip
        voxels = select_voxels(
            data.bold,
            person.flow,
            counted=person.shown,
            runs=data.runs,
            films=data.films,
            delays=decoder.delays,
            method=options.voxel_selection,
            n_voxels=options.n_voxels,
            film_times=data.film_times,
        )
    bold = np.ascontiguousarray(data.bold[:, voxels])
    data.bold = data.bold[:0].copy()  # what is not chosen goes: many people fit
    return Bunch(**person, bold=bold, subject=other.subject)


def _groups(runs):
    """Film -> what no split may separate it from, by a name that all participants share."""
    return {
        film.film: f"group {film.film_group}" if film.film_group else str(film.stim_file)
        for run in runs
        for film in run.films
    }


def _fit_trunk(record, people, n_voxels, device):
    """Train one decoder on all others, each with a layer of their own.

    Its parameters serve the new person, too, of whose `n_voxels` some are chosen.
    """
    width = max(person.bold.shape[1] for person in people)
    decoder = make_decoder(
        record.options,
        people[0].data,
        n_voxels,
        checkpoint_path=record.work / "trunk.pt",
        device=device,
        verbose=record.verbose,
    )
    record.say(f"decoder of {len(people)} others")
    films = _numbers([np.array(person.data.film_names) for person in people])
    return decoder.fit(
        np.concatenate([_widened(person.bold, width) for person in people]),
        np.concatenate([person.flow for person in people]),
        image_features=np.concatenate([person.image for person in people]),
        runs=_runs(people),
        films=np.concatenate(
            [
                np.where(p.data.films >= 0, numbers[p.data.films], -1)
                for p, numbers in zip(people, films, strict=True)
            ]
        ),
        has_cut=np.concatenate([person.has_cut for person in people]),
        subjects=_subjects(people),
    )


def _numbers(names):
    """One number for each film, whoever saw it."""
    every = np.unique(np.concatenate(names))
    return [np.searchsorted(every, some) for some in names]


def _widened(bold, width):
    return np.pad(bold, ((0, 0), (0, width - bold.shape[1])))


def _runs(people):
    """Run labels that no two people share."""
    starts = np.cumsum([0, *(person.data.runs.max() + 1 for person in people)])
    return np.concatenate([p.data.runs + s for p, s in zip(people, starts, strict=False)])


def _subjects(people):
    return np.repeat([person.subject for person in people], [len(p.bold) for p in people])


def _template(trunk, people, samples):
    """What the layers of others gave at the moments that the participant saw, or None."""
    wanted = np.where(samples.films >= 0, np.arange(len(samples.films)), -1)
    moments = []
    for person in people:
        data = person.data
        numbers = np.full(len(data.films), -1)
        for film in np.unique(data.films[data.films >= 0]):
            name = data.film_names[film]
            if name not in samples.film_names:
                continue
            ours = np.flatnonzero(samples.films == samples.film_names.index(name))
            theirs = np.flatnonzero(data.films == film)
            if not len(ours):
                continue
            apart = np.abs(data.film_times[theirs][:, None] - samples.film_times[ours])
            near = apart.min(axis=1) <= samples.t_r / 2
            numbers[theirs[near]] = ours[apart.argmin(axis=1)[near]]
        moments.append(numbers)
    # a film that the participant saw several times has one moment of each volume
    moments = np.concatenate(moments)
    wanted = _first_of_moment(samples, wanted)
    width = max(person.bold.shape[1] for person in people)
    template = read_in_template(
        trunk,
        np.concatenate([_widened(person.bold, width) for person in people]),
        np.where(moments >= 0, wanted[moments], -1),
        wanted=wanted,
        runs=_runs(people),
        subjects=_subjects(people),
    )
    return template if np.isfinite(template).any() else None


def _first_of_moment(samples, wanted):
    """The first sample that shows what each sample shows, by film and volume."""
    volume = np.round(samples.film_times / samples.t_r).astype(int)
    places = np.stack([samples.films, volume])
    _, first, place = np.unique(places, axis=1, return_index=True, return_inverse=True)
    return np.where(wanted >= 0, first[place.ravel()], -1)


def _curve(record, trunk, own, test, template):
    """The gains, a step for each number of minutes."""
    options, data = record.options, own.data
    available = (~test).sum() * data.t_r / 60
    parts = []
    for minutes in sorted({min(wanted, available) for wanted in options.minutes}):

        def compute(minutes=minutes):
            curve = transfer_curve(
                trunk,
                data.bold,
                own.flow,
                test=test,
                minutes=[minutes],
                t_r=data.t_r,
                block_length=max(1, math.ceil(SHORTEST_BLOCK / data.t_r - 1e-9)),
                template=template,
                n_draws=options.n_draws,
                image_features=own.image,
                runs=data.runs,
                films=data.films,
                has_cut=own.has_cut,
                random_state=options.random_state,
            )
            kinds = {"kind": curve.pop("kind").to_numpy().astype("<U32")}
            return kinds | {name: values.to_numpy(float) for name, values in curve.items()}

        arrays = record.step(f"minutes-{minutes:.4g}", compute, title=f"{minutes:.3g} minutes")
        parts.append(pd.DataFrame({name: np.asarray(values) for name, values in arrays.items()}))
    return pd.concat(parts, ignore_index=True)[list(_COLUMNS)]


def _note(people, template, table):
    aligned = (
        "No film of theirs is among the participant's training films: nothing is aligned."
        if template is None
        else "Alignment is by training films of the participant's that they saw, too."
    )
    few = table["p"].isna().all()
    untested = f" No p-values: fewer than {FEWEST_BLOCKS} blocks of test clips." if few else ""
    return (
        f"Decoders of the participant's first minutes, from scratch and with what {len(people)} "
        f"other participants taught. No decoder saw the test films. {aligned}{untested}"
    )


def _parameters(record, samples, own, test, people, trunk, template):
    options = record.options
    return {
        "space": record.entities["space"],
        "confounds": list(options.confounds),
        "n_runs": len(record.runs),
        "n_films": len(samples.film_names),
        "t_r": samples.t_r,
        "repeats": options.repeats,
        "grid": list(options.grid),
        "n_steps": options.n_steps,
        "n_codes": len(trunk.codebook_.codes_),
        "delays_seconds": [delay * samples.t_r for delay in trunk.delays],
        "decoder": trunk.get_params() | {"checkpoint_path": None},
        "others": [person.subject for person in people],
        "n_others": len(people),
        "aligned": template is not None,
        "best_epoch": trunk.best_epoch_,
        "test_films": [samples.film_names[i] for i in np.unique(samples.films[own.shown & test])],
        "n_clips": {
            "training of the others": int(sum(person.shown.sum() for person in people)),
            "test": int((own.shown & test).sum()),
        },
        "block_duration": SHORTEST_BLOCK,
        "handled": samples.counts,
        "sources": samples.sources,
    }


def _result(record):
    path = record.path("table")
    table, note = load_table(path), load_json(path.with_suffix(".json"))["Description"]
    return Bunch(report=record.report(), table=table, told=[table], note=note)
