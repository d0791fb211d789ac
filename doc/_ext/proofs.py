"""The ``proofs`` directive: each file of doc/proofs/ as claim, figures, chart and command.

A function per file turns what a proof has measured into a `Proof`; every number in it comes from
the file, and a file that lacks one stops the build. A file without a function is shown as its
tables (``results``), a proof that did not reach its bounds says so.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from results import result_section
from sphinx.util.docutils import SphinxDirective

OURS, CONTROL, OTHER, BOUND = "#c23b22", "#7f7f7f", "#3b6fb6", "#000000"


@dataclass(frozen=True)
class Proof:
    """One section of the page."""

    claim: str  # what is claimed: the title
    setting: str  # what was done
    found: list[str]  # sentences with the figures
    draw: Callable  # figure -> None
    script: str = ""  # without one: the inputs are not in the repository
    options: str = ""
    size: tuple = (7.0, 2.4)  # inches
    table: tuple = ()  # rows of texts, the header first


def percent(share, digits=1):
    return f"{100 * share:.{digits}f} %"


def minus(text):
    """Numbers below zero with a minus sign in place of the hyphen."""
    return re.sub(r"(?<![\w\-])-(?=\d)", "\u2212", text)


def span(values, form="{:.3f}"):
    """'.1 to .3', or one number where there is no more to say."""
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def dots(axes, rows, *, color=OURS, bound=None):
    """Values of each name on a line of its own, the first at the top, with a tick for its bound."""
    rng = np.random.default_rng(0)
    for row, (name, values) in enumerate(rows.items()):
        shift = rng.uniform(-0.18, 0.18, len(values)) if len(values) > 2 else 0
        shade = color.get(name, CONTROL) if isinstance(color, dict) else color
        axes.plot(values, row + np.zeros(len(values)) + shift, "o", ms=3.5, color=shade, alpha=0.7)
        if bound and name in bound:
            axes.plot([bound[name]] * 2, [row - 0.35, row + 0.35], color=BOUND, lw=1.5)
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))


def rates_below_05(tests):
    """Chart of the shares of p below .05, a line for each design."""
    names = list(dict.fromkeys(row["test"] for row in tests))
    designs = list(dict.fromkeys(row["design"] for row in tests))

    def draw(figure):
        axes = figure.subplots()
        low, high = tests[0]["rate_bounds"]
        axes.axvspan(low, high, color="0.9")
        axes.axvline(0.05, color=BOUND, lw=0.8, ls=":")
        for i, name in enumerate(names):
            rows = [row for row in tests if row["test"] == name]
            axes.errorbar(
                [row["rate_below_05"] for row in rows],
                np.arange(len(rows)) + 0.15 * (i - (len(names) - 1) / 2),
                xerr=[2 * row["rate_standard_error"] for row in rows],
                fmt="o", ms=3, lw=0.8, label=name,
            )  # fmt: skip
        axes.set(yticks=range(len(designs)), yticklabels=designs, xlim=(0, 0.1))
        axes.invert_yaxis()
        axes.set_title("share of p below .05 (± 2 SE; grey: allowed)")
        axes.legend(frameon=False, fontsize=8, loc="upper left")

    return draw


def null(result):
    tests, columns = result["tests"], result["columns"]
    names = list(dict.fromkeys(row["test"] for row in tests))
    designs = list(dict.fromkeys(row["design"] for row in tests))
    bounds = dict.fromkeys(tuple(row["rate_bounds"]) for row in tests)
    allowed = [f"{percent(low, 0)} to {percent(high, 0)}" for low, high in bounds]
    missed = [
        f"{r['design']}, {r['test']} ({percent(r['rate_below_05'], 2)} ± "
        f"{percent(r['rate_standard_error'], 2)})"
        for r in tests
        if not r["passed"]
    ]
    n_sets = sorted({row["n_data_sets"] for row in tests})
    sets = f"{n_sets[0]} to {n_sets[-1]}" if len(n_sets) > 1 else f"{n_sets[0]}"

    return Proof(
        "p-values are honest where nothing can be predicted",
        f"Noise went through the whole analysis: features of {columns['video']} and "
        f"{columns['image']} columns, banded ridge with inner cross-validation, held-out "
        f"predictions, tests with default blocks of {', '.join(names)}. {len(designs)} designs: "
        f"{', '.join(designs)}; {sets} data sets of {tests[0]['n_voxels_per_data_set']} voxels for "
        "each.",
        [
            f"Of p-values, {percent(min(r['rate_below_05'] for r in tests))} to "
            f"{percent(max(r['rate_below_05'] for r in tests))} were below .05; nominal is 5 %, "
            f"allowed are {' or, with noise of AR(1) .9, '.join(allowed)}.",
            *(
                [f"Outside of that, {len(missed)} of {len(tests)}: {'; '.join(missed)}."]
                if missed
                else []
            ),
            "A map with any voxel at q < .05 (false discovery rate) came up in at most "
            f"{percent(max(r['share_any_discovery'] for r in tests))} of data sets, one with any "
            "voxel at p < .05 by the maximum statistic in at most "
            f"{percent(max(r['share_any_family_wise'] for r in tests))}; nominal is 5 % for both.",
        ],
        rates_below_05(tests),
        "prove_null.py",
        f"--n-data-sets {tests[0]['n_data_sets']}",
        size=(7.0, 5.0),
    )


def data_sets(result):
    rows = result["data_sets"]
    measured = [row for row in rows if row.get("encode") == 0]
    refused = [f"{row['title']} ({row['reason']})" for row in rows if row["validate"] == 2]

    def ratios(what):
        return [row["measured"][what] / row["estimated"][what] for row in measured]

    def draw(figure):
        axes = figure.subplots()
        kinds = {"memory": ratios("memory"), "disk": ratios("disk"), "time": ratios("seconds")}
        dots(axes, kinds)
        axes.axvline(1, color=BOUND, lw=0.8, ls=":")
        axes.set(xscale="log", xlim=(0.1, 10), xlabel="measured / estimated, a dot a data set")

    return Proof(
        "Public data sets go in, from their names to the report",
        f"{len(rows)} data sets by their published names and texts, with small images of noise and "
        "small films. `brainnrds-validate` read each with its recipe and what the recipe says is "
        "to be typed; `encode` analysed the first participant, with options that make it quick "
        f"(``{result['options_that_make_it_quick']}``).",
        [
            f"{result['n_accepted']} were accepted, and {result['n_analysed']} analysed to their "
            f"report: {', '.join(row['title'] for row in measured)}.",
            *([f"Refused, with what is missing: {'; '.join(refused)}."] if refused else []),
            f"What was measured was {span(ratios('memory'), '{:.2f}')} times the estimate of "
            f"memory, {span(ratios('disk'), '{:.2f}')} times that of disk and "
            f"{span(ratios('seconds'), '{:.1f}')} times that of time.",
        ],
        draw,
        "prove_data_sets.py",
        size=(7.0, 1.8),
    )


def group(result):
    errors, power, fixed = result["errors"], result["power"], result["fixed_effects"]
    names = {"p_max": "maximum statistic", "p_tfce": "cluster enhancement"}
    extended = [row for row in power if row["effect"] == "extended"]
    focal = [row for row in power if row["effect"] != "extended"]
    few = {row["test"]: row for row in fixed}

    def draw(figure):
        left, right = figure.subplots(1, 2)
        labels = []
        for row in errors:
            label = f"{row['n_people']} people, {row['sides']}"
            if label not in labels:
                labels.append(label)
                left.plot([row["attainable_level"]] * 2, [len(labels) - 1.4, len(labels) - 0.6],
                          color=BOUND, lw=1.5)  # fmt: skip
            shift, color = (-0.12, OTHER) if row["correction"] == "p_max" else (0.12, OURS)
            error = 2 * row["standard_error"]
            left.errorbar(row["family_wise_error"], labels.index(label) + shift, xerr=error,
                          fmt="o", ms=3, lw=0.8, color=color)  # fmt: skip
        left.set(yticks=range(len(labels)), yticklabels=labels, xlim=(0, 0.1))
        left.invert_yaxis()
        left.set_title("any voxel at p < .05 (± 2 SE; line: attainable)")
        numbers = [str(row["n_people"]) for row in extended]
        for shift, key, color in ((-0.2, "p_max", OTHER), (0.2, "p_tfce", OURS)):
            heights = [row[key] for row in extended]
            places = np.arange(len(numbers)) + shift
            right.bar(places, heights, 0.4, color=color, label=names[key])
        right.set(xticks=range(len(numbers)), xticklabels=numbers, xlabel="people", ylim=(0, 1))
        right.set_title("share of an extended effect that is found")
        right.legend(frameon=False, fontsize=8)

    def found(rows):
        return "; ".join(
            f"of {row['n_people']} people {percent(row['p_tfce'], 0)} (maximum statistic: "
            f"{percent(row['p_max'], 0)})"
            for row in rows
        )

    def rows_of_errors():
        yield "people", "test", "attainable", *names.values(), "allowed"
        kinds = dict.fromkeys((row["n_people"], row["sides"]) for row in errors)
        for n_people, sides in kinds:
            here = [r for r in errors if (r["n_people"], r["sides"]) == (n_people, sides)]
            rows = {row["correction"]: row for row in here}
            low, high = here[0]["bounds"]
            measured = (
                f"{percent(rows[key]['family_wise_error'])} ± "
                f"{percent(rows[key]['standard_error'])}"
                for key in names
            )
            allowed = f"{percent(low)} to {percent(high)}"
            yield str(n_people), sides, percent(here[0]["attainable_level"]), *measured, allowed

    rates = [row["family_wise_error"] for row in errors]
    missed = [row for row in errors + fixed if not row["passed"]]
    return Proof(
        "Group tests are honest, and enhancement finds what has extent",
        f"Smooth maps of people without an effect ({errors[0]['n_groups']} groups of each size) "
        "went through the sign-flip test; others held a patch with an effect, or a single voxel "
        "with a larger one. Three people, of whom each was tested where nothing can be predicted, "
        f"were combined as fixed effects ({fixed[0]['n_groups']} groups).",
        [
            f"Any voxel was significant at .05, family-wise, in {percent(min(rates))} to "
            f"{percent(max(rates))} of groups. Attainable are "
            + ", ".join(
                f"{percent(row['attainable_level'])} ({row['n_people']} people, {row['sides']})"
                for row in errors
                if row["correction"] == "p_max" and row["attainable_level"] < 0.045
            )
            + " and else nearly 5 %.",
            f"Of an extended effect enhancement found, {found(extended)}; of a single voxel with a "
            f"large one, {found(focal)}. Outside of the extended effect were "
            f"{percent(max(row['p_tfce_outside'] for row in extended))} of voxels at most.",
            f"Fixed effects of {fixed[0]['n_people']} people: p < .05 in "
            f"{percent(few['one model']['below_05'])} of voxels for one model and "
            f"{percent(few['difference']['below_05'])} for a difference, p < .001 in "
            f"{percent(few['one model']['below_001'], 2)} and "
            f"{percent(few['difference']['below_001'], 2)}; any q < .05 in "
            f"{percent(few['one model']['any_q'])} and {percent(few['difference']['any_q'])} "
            "of groups.",
            *([f"Outside of their bounds: {len(missed)} rows."] if missed else []),
            f"The table has the share of {errors[0]['n_groups']} groups without an effect in which "
            "any voxel was significant at .05, family-wise (± SE).",
        ],
        draw,
        "prove_group.py",
        f"--n-groups {errors[0]['n_groups']}",
        size=(9.0, 3.2),
        table=tuple(rows_of_errors()),
    )


def cluster(result):
    runs, n_people = result["runs"], result["n_people"]
    others = runs[1:]
    killed = others[-1]["n_killed"]

    def draw(figure):
        axes = figure.subplots()
        shades = [CONTROL, *[OURS] * len(others)]
        minutes = [row["seconds"] / 60 for row in runs]
        axes.barh([row["run"] for row in runs], minutes, color=shades, height=0.6)
        axes.invert_yaxis()
        axes.set(xlabel="minutes, participants and group")

    return Proof(
        "Many people on a cluster come out as one after the other",
        f"{n_people} simulated people with {result['n_films']} films each were encoded and taken "
        "together by the App: one after the other; on a Dask cluster of "
        f"{result['n_workers']} processes; and on such a cluster of which one was killed at work.",
        [
            f"All runs ended well; {killed} of {result['n_workers']} workers "
            f"{'was' if killed == 1 else 'were'} killed.",
            f"In {others[0]['n_maps']:,} maps, of people and of the group, no value differs "
            "from that of one after the other by more of its map's largest value than "
            + " and ".join(f"{row['largest_difference']:.1e} ({row['run']})" for row in others)
            + f"; {result['largest_difference_allowed']:.0e} is allowed.",
            f"All workers shared one machine ({result['device']}), which did other work as well: "
            "its minutes do not say what a cluster gains.",
        ],
        draw,
        "prove_cluster.py",
        f"--n-workers {result['n_workers']}",
        size=(7.0, 1.7),
    )


def transfer(result):
    curve, null, design = result["curve"], result["other_bold"], result["design"]
    kinds = {"from scratch": CONTROL, "adapted": OURS, "adapted + aligned": OTHER}

    def draw(figure):
        axes = figure.subplots()
        for i, (kind, color) in enumerate(kinds.items()):
            rows = [row for row in curve if row["kind"] == kind]
            axes.errorbar(
                [row["minutes"] * (1 + 0.02 * (i - 1)) for row in rows],
                [row["gain_px"] for row in rows],
                yerr=[2 * row["standard_error"] for row in rows],
                marker="o", ms=4, lw=1, color=color, label=kind,
            )  # fmt: skip
        axes.axhline(0, color=BOUND, lw=0.8, ls=":")
        axes.set(xlabel="minutes of the new person's own data", ylabel="brain gain (px)")
        axes.set_title("mean of new people (± 2 SE)")
        axes.legend(frameon=False, fontsize=8)

    def gain(kind, minutes):
        rows = [row for row in curve if row["kind"] == kind]
        return min(rows, key=lambda row: abs(row["minutes"] - minutes))["gain_px"]

    few, many = result["few_minutes"], result["many_minutes"]
    return Proof(
        "A new person's decoder needs few minutes where others taught it the rest",
        f"{result['n_people']} simulated new people, each with a decoder of "
        f"{design['n_others']} others who saw {design['minutes_of_others']:.0f} minutes of films; "
        f"scored in {design['test_minutes']:.0f} minutes of films that nobody's training saw.",
        [
            f"With {few} minutes the adapted decoder gains {gain('adapted', few):.3f} px over BOLD "
            f"of other films, the aligned one {gain('adapted + aligned', few):.3f} px; from "
            f"scratch it is {gain('from scratch', few):.3f} px, and with {many} minutes "
            f"{gain('from scratch', many):.3f} px.",
            f"Adapted with {few} minutes is at least as good as from scratch with {many} in "
            f"{result['n_ahead']['adapted']} of {result['n_people']} people, aligned in "
            f"{result['n_ahead']['adapted + aligned']}.",
            "With BOLD of other films in the place of the person's, gains are "
            + minus(span([row["gain_px"] for row in null]))
            + f" px on average (bound: {result['largest_null_gain_px']} px either way).",
        ],
        draw,
        "prove_transfer.py",
        f"--n-people {result['n_people']}",
        size=(6.0, 3.0),
    )


def planted(result):
    figures, bounds, seeds = result["figures"], result["bounds"], result["seeds"]
    of_noise = sum(seed["n_significant_noise"] for seed in seeds)
    names = {
        "area under the ROC curve": "auc",
        "right sign": "sign_right",
        "map of unique video": "unique_correlation_video",
        "map of unique image": "unique_correlation_image",
    }

    def draw(figure):
        axes = figure.subplots()
        limits = {
            name: bounds[key.removesuffix("_video").removesuffix("_image")]
            for name, key in names.items()
        }
        dots(axes, {name: [s[key] for s in seeds] for name, key in names.items()}, bound=limits)
        axes.set(xlim=(0.85, 1.005), title="one dot per data set; tick: bound for the median")

    def unique(space):
        value = figures[f"unique_correlation_{space}"]["median"]
        return f"{value:.3f} ({figures[f'unique_limit_true_features_{space}']['median']:.3f})"

    return Proof(
        "Video > Image finds what was planted",
        f"{result['n_seeds']} simulated data sets at default settings; "
        f"{percent(figures['share_of_noise_voxels']['median'], 0)} of their voxels answer to "
        "nothing, and the others repeat with a median explainable variance of "
        f"{figures['median_single_run_ev']['median']:.2f}.",
        [
            "Motion voxels are told from static ones with an area under the ROC curve of "
            f"{figures['auc']['median']:.3f} (median; worst {figures['auc']['worst']:.3f}).",
            f"Of voxels with a significant difference (median "
            f"{figures['n_significant']['median']:.0f} of "
            f"{np.median([seed['n_voxels'] for seed in seeds]):.0f}) "
            f"{percent(figures['sign_right']['median'], 0)} have the right sign; {of_noise} voxels "
            f"without a response were among them, in {result['n_seeds']} data sets together.",
            f"The map of unique variance correlates {unique('video')} with what was planted for "
            f"video and {unique('image')} for image. In brackets: what the same data allow when "
            "the true features are known.",
        ],
        draw,
        "prove_planted.py",
        size=(7.0, 2.0),
    )


def trials(result):
    tests, designs = result["tests"], result["designs"]
    n_sets = tests[0]["n_data_sets"]
    missed = [f"{row['design']}, {row['test']}" for row in tests if not row["passed"]]
    low, high = tests[0]["rate_bounds"]
    rates = [row["rate_below_05"] for row in tests]
    outside = f"Outside of that, {len(missed)} of {len(tests)}: {'; '.join(missed)}."
    return Proof(
        "p-values of trial designs are honest where BOLD is noise",
        f"Noise went through the general linear model of each run and then through the analysis of "
        f"trials: clips every {result['spacing']:g} s, volumes every {result['t_r']:g} s. "
        f"{len(designs)} designs: {'; '.join(designs)}; {n_sets} data sets of "
        f'{tests[0]["n_voxels_per_data_set"]} voxels for each. In "three runs" and "in one '
        'order", features resemble those of the clip before, and stretches of runs are held out.',
        [
            f"Of p-values, {percent(min(rates))} to {percent(max(rates))} were below .05; nominal "
            f"is 5 %, allowed are {percent(low, 0)} to {percent(high, 0)}.",
            *([outside] if missed else []),
            "A map with any voxel at q < .05 (false discovery rate) came up in at most "
            f"{percent(max(row['share_any_discovery'] for row in tests))} of data sets.",
        ],
        rates_below_05(tests),
        "prove_trials.py",
        size=(7.0, 4.0),
    )


def coverage(result):
    rows, design = result["coverage"], result["design"]
    low, high = result["bounds"]

    def label(row):
        folds = "fitted once" if row["n_folds"] == 1 else f"{row['n_folds']} folds"
        return f"{folds}, {'planted signal' if row['signal'] else 'noise'}, {row['unit']}s"

    def draw(figure):
        axes = figure.subplots()
        axes.axvspan(low, high, color="0.9")
        axes.axvline(0.95, color=BOUND, lw=0.8, ls=":")
        axes.errorbar(
            [row["coverage"] for row in rows],
            range(len(rows)),
            xerr=[2 * row["standard_error"] for row in rows],
            fmt="o", ms=4, color=OURS,
        )  # fmt: skip
        axes.set(yticks=range(len(rows)), yticklabels=[label(row) for row in rows])
        axes.set(xlim=(0.88, 1), xlabel="share of intervals that hold the true score (± 2 SE)")
        axes.invert_yaxis()

    return Proof(
        "95 % intervals hold the true score 95 times in 100",
        f"Films of {design['film_length_volumes'] * design['t_r_s']:.0f} s were predicted in "
        f"{design['tested_films']} folds that train each other, or by a model that "
        f"{design['tested_films']} other films had trained; noise alone, or with a planted signal; "
        f"single voxels and parcels of {design['voxels_per_parcel']}; "
        f"{rows[0]['n_data_sets']} data sets of each kind. For a model fitted once the true score "
        f"is its own in {design['further_films']} further films.",
        [
            f"Of intervals, {percent(min(row['coverage'] for row in rows))} to "
            f"{percent(max(row['coverage'] for row in rows))} held the true score; nominal is "
            f"95 %, allowed are {percent(low, 0)} to {percent(high, 0)}.",
        ],
        draw,
        "prove_coverage.py",
        size=(7.0, 2.6),
    )


def spaces(result):
    found, contrast, bounds = result["spaces"], result["contrast"], result["bounds"]
    design = result["design"]
    labels = {
        "unique_correlation": "correlation with planted unique variance",
        "auc": "area under the curve, own voxels against others",
        "false_positives": "p < .05 in voxels of noise",
        "false_positives_elsewhere": "p < .05 in voxels of other spaces",
    }

    def values(key):
        return [rows[key]["mean"] for rows in found.values()]

    def wins(key):
        return percent(contrast[key]["mean"])

    def draw(figure):
        left, right = figure.subplots(1, 2)
        dots(
            left,
            {name: [rows["unique_correlation"]["mean"]] for name, rows in found.items()},
            bound=dict.fromkeys(found, bounds["unique_correlation"][0]),
        )
        left.set(xlim=(0, 1), title=labels["unique_correlation"])
        shown = {
            "sound, without control": "confound_without_control",
            "sound, with control": "confound_with_control",
            "motion, without control": "motion_without_control",
            "motion, with control": "motion_with_control",
        }
        dots(right, {name: [contrast[key]["mean"]] for name, key in shown.items()})
        right.axvline(0.025, color=BOUND, lw=0.8, ls=":")
        right.set(xlim=(-0.03, 1.03), title="share of voxels called Video > Image")

    return Proof(
        "Of four spaces each finds its own voxels, and a control space takes off what it holds",
        f"Motion, single frames, sound and words of "
        f"{', '.join(map(str, design['columns'].values()))} columns; sound goes with motion "
        f"(r {design['coupling']}). Voxels hear one space, several or none; {design['films']} "
        f"films of {design['film_length_volumes'] * design['t_r_s']:.0f} s, {design['folds']} "
        f"folds, {result['n_data_sets']} data sets. The planted unique variance was measured by "
        "regression in a long film without noise.",
        [
            f"Unique variance that was found correlates with what was planted by "
            f"{span(values('unique_correlation'))} over voxels (at least "
            f"{bounds['unique_correlation'][0]}); voxels of a space stand before others by an area "
            f"under the curve of {span(values('auc'))} (at least {bounds['auc'][0]}).",
            f"Where nothing is heard, {percent(min(values('false_positives')))} to "
            f"{percent(max(values('false_positives')))} of p-values of unique variance are below "
            f".05; where other spaces are heard, "
            f"{percent(min(values('false_positives_elsewhere')))} to "
            f"{percent(max(values('false_positives_elsewhere')))}: the test is careful there. "
            "It is, too, for a space of few columns that many voxels hear, such as words: what "
            "these voxels have in common hides how differently the folds are fitted, and the test "
            "allows for the most that folds can share.",
            f"Of voxels that hear sound alone, {wins('confound_without_control')} are Video > "
            f"Image at p < .05 without a control space, {wins('confound_with_control')} with sound "
            f"in every model. Of voxels that see motion, {wins('motion_without_control')} and "
            f"{wins('motion_with_control')}.",
        ],
        draw,
        "prove_spaces.py",
        f"--n-data-sets {result['n_data_sets']}",
        size=(7.0, 2.2),
    )


def mixtures(result):
    rows = result["rows"]
    kinds = {
        "same": "the second space repeats the first",
        "one": "the second space is noise",
        "either": "each voxel follows one space",
        "both": "each voxel follows both",
    }

    def gains(kinds, way="first space"):
        return [row["default"] - row[way] for row in rows if row["kind"] in kinds]

    def draw(figure):
        axes = figure.subplots()
        shades = {"same": CONTROL, "one": CONTROL, "either": OURS, "both": OURS}
        values = {name: gains([kind]) for kind, name in kinds.items()}
        dots(axes, values, color={kinds[kind]: shade for kind, shade in shades.items()})
        axes.axvline(0, color=BOUND, lw=0.8)
        axes.set(xlabel="banded ridge minus ridge on the first space (held-out r)")
        axes.set_title("one dot per number of training films and strength of the signal")

    films = [row["n_films"] for row in rows]
    return Proof(
        "Banded ridge costs little where spaces say nothing different, and gains where they do",
        "Two feature spaces, responses simulated from one or both, "
        f"{min(films)} to {max(films)} training films, scored in three new films; "
        f"{rows[0]['n_data_sets']} data sets of each kind.",
        [
            "Where the second space repeats the first, or is noise, banded ridge at its defaults "
            f"gets {span(gains(['same', 'one']), '{:+.4f}')} r more than ridge on the first space "
            "alone, the one that an oracle would choose.",
            f"Where both say something, it gets {span(gains(['either', 'both']), '{:+.3f}')} more.",
            "Against mixtures that every voxel chooses for itself on left-out films, the defaults "
            f"get {span(gains(list(kinds), 'own, films'), '{:+.4f}')} r.",
        ],
        draw,
        "prove_mixtures.py",
        size=(7.0, 2.0),
    )


def brain_gain(result):
    cases, data_sets = result["cases"], result["data_sets"]
    kinds = {
        "planted": (OURS, "motion in BOLD", [c for c in cases if c.startswith("planted")]),
        "early": (CONTROL, "BOLD at rest, stopped early", [c for c in cases if "early" in c]),
        "end": ("0.75", "BOLD at rest, trained to the end", [c for c in cases if "the end" in c]),
        "predictable": (OTHER, "motion told by the frame", ["predictable"]),
    }

    def draw(figure):
        left, right = figure.subplots(1, 2)
        start = 0
        for color, label, names in kinds.values():
            rows = sorted(
                (row for row in data_sets if row["case"] in names), key=lambda row: row["gain_px"]
            )
            x = start + np.arange(len(rows))
            for axes, middle, low in (
                (left, "gain_px", "low"),
                (right, "gain_over_image_only_px", "gain_over_image_only_low"),
            ):
                axes.vlines(x, [r[low] for r in rows], [r[middle] for r in rows], color=color)
                axes.plot(x, [r[middle] for r in rows], ".", ms=3, color=color, label=label)
            start += len(rows) + 4
        for axes, title in ((left, "brain gain"), (right, "gain over image-only")):
            axes.axhline(0, color=BOUND, lw=0.8)
            axes.set(xticks=[], xlabel="data sets", title=title)
            axes.set_yscale("symlog", linthresh=0.1)
        left.set(ylabel="px per step, line down to\nthe interval's lower end")
        handles = left.get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=2, frameon=False, fontsize=8)

    def count(names, key):
        n = sum(cases[name]["n_data_sets"] for name in names)
        return f"{sum(cases[name][key] for name in names)} of {n}"

    early, end, planted = (kinds[kind][2] for kind in ("early", "end", "planted"))
    default = [name for name in cases if "default network" in name]
    gains = [cases[name]["gain_px_mean"] for name in planted]
    frame = cases["predictable"]
    return Proof(
        "The brain gain is found where there is one, and only there",
        "Small data sets go through `MotionDecoder` and `compare_to_controls`. The gain is how "
        "much less error the decoder has than the same network, trained and tested with BOLD of "
        f"other films; {data_sets[0]['n_networks']} networks for each data set. BOLD at rest is "
        "1 / f noise with networks in common, with films shared by all data sets, or anew."
        + (
            f" Of {len(data_sets)} data sets {sum(cases[c]['n_data_sets'] for c in default)} were "
            "decoded by networks of default size, the others by small ones."
            if default
            else " Networks are small."
        ),
        [
            f"BOLD at rest, training stopped early: interval above 0 in "
            f"{count(early, 'n_interval_above_0')} data sets, p < .05 in "
            f"{count(early, 'n_p_below_05')}, paired p < .05 in "
            f"{count(early, 'n_p_paired_below_05')}; claimed as a gain: "
            f"{count(early, 'n_supported')}. Over the image-only control, which learns at another "
            "rate, the interval lay above 0 in "
            f"{count(early, 'n_image_only_interval_above_0')}.",
            f"BOLD at rest, trained to the end: interval above 0 in "
            f"{count(end, 'n_interval_above_0')}, p < .05 in {count(end, 'n_p_below_05')}, "
            f"paired p < .05 in {count(end, 'n_p_paired_below_05')}; claimed as a gain: "
            f"{count(end, 'n_supported')}.",
            f"Motion in BOLD: the gain is {span(gains)} px per step on average, "
            f"with an interval above 0 in {count(planted, 'n_interval_above_0')} data sets and "
            f"less error than every control in {count(planted, 'n_beats_every_control')}; claimed "
            f"in {count(planted, 'n_supported')}, those whose training had ended.",
            "Motion that the frame gives away, with little in BOLD: the image-only control wins, "
            f"as it should, in {frame['n_image_only_wins']} of {frame['n_data_sets']}.",
        ],
        draw,
        "prove_brain_gain.py",
        size=(7.0, 2.8),
    )


def reanimation(result):
    true, null, resume = result["planted"], result["null"], result["resume"]
    of = "flow_error_px, moving clips, over {}".format
    rows = {
        "over still clips": true["gains"][of("zero")],
        "over permuted flow": true["gains"][of("permuted")],
        "over training on unrelated BOLD": true["gains"][of("unrelated_bold")],
        "the same, BOLD of other runs": null["gains"][of("unrelated_bold")],
    }
    zero, permuted, unrelated, nothing = rows.values()
    small = sum(p < 0.05 for p in null["gains"]["flow_error_px, all clips, over permuted"]["p"])
    ssim = true["gains"]["ssim, all clips, over zero"]["gain"]

    def draw(figure):
        axes = figure.subplots()
        shades = dict(zip(rows, (OURS, OURS, OURS, CONTROL), strict=True))
        dots(axes, {name: row["gain"] for name, row in rows.items()}, color=shades)
        axes.axvline(0, color=BOUND, lw=0.8)
        axes.set(xlabel="gain of decoded flow: flow error less (px)", title="one dot per data set")

    return Proof(
        "Decoded flow makes better video where BOLD carries motion, and only there",
        "The splatting renderer gets the same initial frames with decoded flow, with flow decoded "
        "at another time (permuted), with that of decoders trained and tested on BOLD that cannot "
        "know the film, and with none. Scored is the clip's own motion, where motion was planted.",
        [
            f"Decoded flow beats permuted flow by {span(permuted['gain'], '{:.2f}')} px and a "
            f"still clip by {span(zero['gain'], '{:.2f}')} px in {true['n_data_sets']} data sets, "
            f"each with p ≤ {max(*permuted['p'], *zero['p']):.4f}.",
            f"What the brain adds: {span(unrelated['gain'], '{:.2f}')} px over decoders trained on "
            f"unrelated BOLD (p ≤ {max(unrelated['p']):.4f}); with BOLD of other runs "
            f"{np.mean(nothing['gain']):.4f} px on average, with p < .05 in "
            f"{sum(p < 0.05 for p in nothing['p'])} of {null['n_data_sets']} data sets.",
            "By structural similarity, over all clips, the gain over a still clip is "
            f"{span(ssim)}: a still clip is never blurred, and often nothing moves.",
            f"BOLD of other runs: the mean gain over permuted flow is "
            f"{null['mean_gain_over_permuted_px']:.4f} px, with p < .05 in {small} of "
            f"{null['n_data_sets']} data sets.",
            f"The analysis of {resume['n_clips']:,} clips was killed {len(resume['kills'])} times: "
            f"{len(resume['broken_after_a_kill'])} broken files, "
            f"{len(resume['differing_at_the_end'])} of {resume['n_files_compared']:,} files other "
            f"than undisturbed, {resume['n_of_these_not_rendered_again']:,} of "
            f"{resume['n_finished_before_the_last_run']:,} finished clips kept.",
        ],
        draw,
        "prove_reanimation.py",
        size=(7.0, 2.0),
    )


def sample(result):
    true, null = result["cases"]["planted"], result["cases"]["null"]
    rows = {row["clips"]: row for row in result["gain of decoded flow in the clips"]
            if row["case"] == "planted"}  # fmt: skip
    permuted = rows["flow_error_px, all, over permuted"]
    size = result["settings"]["size"]
    options = "" if size == "default" else f"--{size} "

    def draw(figure):
        axes = figure.subplots()
        values = {
            "motion in BOLD": true["brain_gain_px"],
            "films exchanged": null["brain_gain_px"],
        }
        dots(axes, values, color={"motion in BOLD": OURS, "films exchanged": CONTROL})
        axes.axvline(0, color=BOUND, lw=0.8)
        axes.set(xlabel="brain gain (px per step)", title="one dot per data set")

    return Proof(
        "The App finds motion in the BOLD of the sample data, and none in that of other films",
        "`decode` and `reanimate` as a user runs them, on sample data. The control: the films "
        "change places, so that each goes with the BOLD of another run."
        + (f" This run was a small one ({size}: coarse flow, few epochs)." if options else ""),
        [
            f"With motion in BOLD the brain gain is {span(true['brain_gain_px'], '{:.2f}')} px "
            f"(permuted BOLD: p ≤ {max(true['brain_gain_p']):.3f}), and the decoder beats every "
            f"control in {true['n_decoder_beats_every_control']} of {true['n_data_sets']} data "
            "sets; clips of decoded flow beat those of permuted flow by "
            f"{span(permuted['gain'], '{:.2f}')} px.",
            f"With films exchanged the gain is {span(null['brain_gain_px'])} px, and p of permuted "
            f"BOLD {span(null['brain_gain_p'], '{:.2f}')}.",
            f"Of each kind there {'is' if true['n_data_sets'] == 1 else 'are'} only "
            f"{true['n_data_sets']}: this shows that the parts fit together; the rates of error "
            "stand in the other proofs.",
        ],
        draw,
        "prove_sample.py",
        f"{options}--n-seeds {result['settings']['n_seeds']}",
        size=(7.0, 1.6),
    )


def himalaya(result):
    cpu = {case["case"]: case for case in result["cases"] if "auto" in case}
    cuda = [case for case in result["cases"] if case.get("measured")]
    kinds = {"cross-validation score": "worst_cv_score", "prediction": "worst_prediction",
             "held-out r": "worst_score"}  # fmt: skip

    def draw(figure):
        axes = figure.subplots()
        for (kind, key), shade in zip(kinds.items(), (OTHER, OURS, CONTROL), strict=True):
            worst = [max(case[solver][key] for solver in ("auto", "himalaya"))
                     for case in cpu.values()]  # fmt: skip
            axes.plot(worst, range(len(cpu)), "o", ms=4, color=shade, label=kind)
        axes.axvline(next(iter(cpu.values()))["bound"], color=BOUND, lw=1.5)
        axes.set(xscale="log", yticks=range(len(cpu)), yticklabels=cpu, xlim=(1e-8, 3e-4))
        axes.set(xlabel="largest difference; line: bound", ylim=(len(cpu) - 0.5, -0.5))
        axes.legend(frameon=False, fontsize=8, loc="lower left")

    speed = [case["himalaya"]["seconds"] / case["auto"]["seconds"] for case in cpu.values()]
    found = [
        "The largest difference of a prediction, from himalaya called directly in "
        f"{len(cpu)} designs, is "
        f"{max(c[s]['worst_prediction'] for c in cpu.values() for s in ('auto', 'himalaya')):.0e}, "
        f"that of a held-out r "
        f"{max(c[s]['worst_score'] for c in cpu.values() for s in ('auto', 'himalaya')):.0e}.",
        "Mixtures and penalties are those of himalaya in "
        f"{percent(min(c['auto']['share_same_selection'] for c in cpu.values()), 0)} of voxels or "
        "more; where they differ, scores do not, within the bound.",
        f"The exact solver was {span(speed, '{:.1f}')} times as fast as himalaya's search in the "
        "same model.",
    ]
    found += [
        f"On a GPU ({case['device']}) scores differ from the CPU's by {case['auto_worst_r']:.0e} r "
        f"at most."
        for case in cuda
    ]
    return Proof(
        "VideoEncodingModel gives himalaya's own results",
        "The model, by both of its solvers, against himalaya called directly on the same kernels, "
        "mixtures, penalties and folds.",
        found,
        draw,
        "prove_himalaya.py",
        size=(7.0, 2.6),
    )


def kills(result):
    hit, calm = result["kills"], result["calm_seconds"]
    parts = {part: result[part] for part in ("two", "disks", "places")}
    colours = {"SIGKILL": OURS, "SIGTERM": OTHER, "SIGINT": CONTROL}

    def draw(figure):
        axes = figure.subplots()
        for row, analysis in enumerate(calm):
            for round_ in result["rounds"]:
                if round_["part"] == "kills" and round_["key"][0] == analysis:
                    moments = np.array(round_["moments"]) / calm[analysis]
                    axes.plot(moments, row + np.zeros(len(moments)), "|", ms=14,
                              color=colours[round_["key"][1]])  # fmt: skip
        for name, colour in colours.items():
            axes.plot([], [], "|", ms=14, color=colour, label=name)
        axes.set(yticks=range(len(calm)), yticklabels=list(calm), ylim=(len(calm) - 0.5, -0.5))
        axes.set(xlabel="moment of the signal, in times that a calm run takes")
        axes.legend(frameon=False, fontsize=8, loc="upper right")

    signals = ", ".join(f"{name} {n}" for name, n in hit["by_signal"].items())
    return Proof(
        "Whatever happens to a run, the same command ends in the same results",
        f"The analyses of a few voxels were stopped at random moments ({signals}), one process or "
        "all of it; two ran at once on one output and one work folder; disks of output or work "
        "filled up at a tenth, half and nine tenths of what was to be written; places could not be "
        "written, there was no home, no temporary folder, an ASCII locale, another user.",
        [
            f"{hit['n']} signals hit {hit['rounds']} runs, which were begun again until they got "
            f"through: the results of {hit['identical']} equal those of a calm run to the bit. "
            f"After each signal all files were read: {hit['broken_files']} were broken, "
            f"{hit['orphans']} processes went on, {hit['tracebacks']} tracebacks were printed.",
            f"Hidden temporary files left when a killed run had got through: at most "
            f"{hit['left_over']} (the next write of the same file removes them after a day).",
            *(
                f"{what}: {parts[part]['passed']} of {parts[part]['n']} as they should be."
                for part, what in (
                    ("two", "Two processes at once, the same results"),
                    ("disks", "Full disks, one line where there was no room, and the same results "
                     "once there was"),
                    ("places", "Places, the same results or one line"),
                )
            ),
        ],
        draw,
        "prove_kills.py",
    )  # fmt: skip


def bad_input(result):
    after, before = result["after"], result["before"]
    fuzz, disturbed, public = (result[name] for name in ("fuzz", "disturbed", "public"))
    outcomes = {
        "good": "well", "harmless": "accepted: right or noted", "unknowable": "nobody can know",
        "crash": "crash, traceback", "wrong": "hang, escape, silently wrong",
    }  # fmt: skip
    colours = dict(zip(outcomes, (OTHER, "#7fa66b", CONTROL, "#c9b458", OURS), strict=True))
    drawn = {"before": before, "after": after}

    def stack(axes, names, counts):
        left = np.zeros(len(names))
        for (label, colour), values in counts.items():
            axes.barh(names, values, left=left, color=colour, label=label)
            left += values
        axes.invert_yaxis()

    def draw(figure):
        top, bottom = figure.subplots(2, 1, height_ratios=(2, len(fuzz)))
        stack(top, list(drawn), {
            (outcomes[name], colours[name]): np.array([row.get(name, 0) for row in drawn.values()])
            for name in outcomes
        })  # fmt: skip
        top.set(xlabel="inputs")
        stack(bottom, [row["kind"] for row in fuzz], {
            (label, colour): np.array([row[name] for row in fuzz])
            for name, label, colour in (("refused", "refused in one line", OTHER),
                                        ("read", "read", "#7fa66b"), ("other", "other", OURS))
        })  # fmt: skip
        bottom.set(xlabel="files with random damage")
        for axes in (top, bottom):
            axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))

    rows = [*result["families"], {"family": "all", **after}, {"family": "all, before", **before}]
    damaged = {name: sum(row[name] for row in fuzz) for name in ("n", "refused", "read", "other")}
    return Proof(
        "Damaged, hostile and contradictory input ends in a line, or in the right result",
        result["what"],
        [
            f"{after['good']} of {after['n']} inputs ended well, {after['harmless']} were "
            f"accepted with a word or without harm, of {after['unknowable']} nobody can know; "
            f"{after['crash']} ended in a crash or traceback, {after['wrong']} in a hang, an "
            "escape or a wrong result without a word. Before, of "
            f"{before['n']}: {before['good']}, {before['harmless']}, {before['crash']} and "
            f"{before['wrong']}.",
            f"Of {damaged['n']:,} files with random damage, of {len(fuzz)} kinds, "
            f"{damaged['refused']} were refused in one line, {damaged['read']} were read, "
            f"{damaged['other']} did anything else.",
            f"Of {disturbed['n']} runs that were interrupted, or in a hard place (read-only, "
            f"another user, other locales), {disturbed['good']} ended as they should; "
            f"{disturbed['not_run']} more were not run, of kinds that the proof of kills has.",
            f"{public['passed']} of {public['n']} faults of neighbouring tools that users reported "
            "in public are none here.",
        ],
        draw,
        size=(7.0, 5.2),
        table=(
            ("inputs", "n", *outcomes.values()),
            *(
                (row["family"], str(row["n"]), *(str(row.get(name, 0)) for name in outcomes))
                for row in rows
            ),
        ),
    )


def extraction(result):
    kills, cluster, memory = (result["parts"][name] for name in ("kills", "cluster", "memory"))
    halves = [memory[f"peak_bytes_{half}_half"] / 2**30 for half in ("first", "second")]

    def draw(figure):
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        kept = [kill["chunks_kept"] for kill in kills["kills"]]
        left.bar(np.arange(len(kept)) + 1, kept, color=OURS)
        left.axhline(kills["n_chunks"], color=BOUND, lw=0.8, ls=":")
        left.set(xlabel="kill", ylabel="chunks kept", title="found again after each kill")
        left.set(xticks=range(0, len(kept) + 1, 5))
        right.bar(["first half", "second half"], halves, color=OTHER, width=0.6)
        right.axhline(memory["bound_bytes"] / 2**30, color=BOUND, lw=1.5)
        right.set(ylabel="peak memory (GiB)", title="film of two hours")

    return Proof(
        "Features survive kills, lost workers and long films",
        "Extraction was killed at random moments, lost a worker of its cluster, and read a film of "
        f"{memory['film'].split(',')[0]}.",
        [
            f"After {len(kills['kills'])} kills the store opened each time; "
            f"{kills['identical_to_uninterrupted']} of {kills['finished_after_kills']} finished "
            "extractions equal an undisturbed one to the bit.",
            f"A cluster of {cluster['workers']} workers that lost one after "
            f"{cluster['chunks_done_at_the_kill']} of {cluster['chunks']} chunks gave features "
            f"that differ by {cluster['largest_difference']:g} from those of one process.",
            f"The peak of memory was {halves[0]:.2f} GiB in the first half of the film and "
            f"{halves[1]:.2f} in the second ({memory['bound_bytes'] / 2**30:.0f} allowed). "
            f"{memory['note'].capitalize()}.",
        ],
        draw,
        "prove_extraction.py",
    )


def scale(result):
    peak = result["peak_gib_after"]
    bound = float(result["bounds"]["peak_gib"].removeprefix("<"))

    def draw(figure):
        axes = figure.subplots()
        names = {"data": "data loaded", "fit": "after the fit", "score_map": "after scoring"}
        axes.barh(list(names.values()), [peak[name] for name in names], color=OTHER, height=0.6)
        axes.axvline(bound, color=BOUND, lw=1.5)
        axes.invert_yaxis()
        axes.set(xlabel="peak memory of the process (GiB); line: bound", xlim=(0, bound * 1.05))

    return Proof(
        "A model of the whole brain fits in the memory of a laptop",
        f"{result['n_volumes']:,} volumes, {result['n_voxels']:,} grayordinates, feature spaces of "
        f"{' and '.join(f'{n:,}' for n in result['n_features'])} columns with "
        f"{len(result['delays'])} delays, {result['n_iter']} mixtures; fitted on "
        f"{result['n_training_volumes']:,} volumes, scored on the rest.",
        [
            f"The peak is {result['peak_gib']:.1f} GiB ({bound:.0f} allowed). The fit took "
            f"{result['seconds_to_fit'] / 60:.0f} minutes ({result['device']}, not alone on the "
            f"machine: {result['cpu_seconds'] / 60:.0f} minutes of processor time).",
            f"Where signal was planted, held-out r is {result['mean_r_planted']:.3f} on average "
            f"(the signal itself reaches {result['mean_r_planted_oracle']:.3f}), elsewhere "
            f"{result['mean_r_elsewhere']:.4f}.",
        ],
        draw,
        "prove_scale.py",
        f"--n-iter {result['n_iter']}",
        size=(7.0, 1.7),
    )


def other_data(result):
    planted, null = (
        [row for row in result["rows"] if row["case"] == case] for case in ("planted", "null")
    )
    tests = ("video", "image", "joint", "videoMinusImage", "videoUnique", "imageUnique")

    def rates(row):
        return [row[f"below_05_{test}"] for test in tests if f"below_05_{test}" in row]

    def p_of(row):
        values = [p for p in row["p"] if p is not None]
        none = "no p: too few blocks of 40 s can change places"
        return f"permuted BOLD: p {span(values)}" if values else none

    def draw(figure):
        axes = figure.subplots()
        gains = {
            f"{row['kind']}, {'motion in BOLD' if row['case'] == 'planted' else 'exchanged'}": row[
                "gain_px"
            ]
            for row in result["rows"]
        }
        dots(axes, gains, color={name: CONTROL for name in gains if name.endswith("exchanged")}
             | {name: OURS for name in gains if not name.endswith("exchanged")})  # fmt: skip
        axes.axvline(0, color=BOUND, lw=0.8)
        axes.set(xlabel="brain gain (px per step)", title="one dot per data set")

    return Proof(
        "Encode and decode hold on data unlike the default ones",
        "Sample data went through the App: "
        f"{', '.join(dict.fromkeys(row['kind'] for row in result['rows']))}. For the null, films "
        "had changed places, so that BOLD has nothing to do with them.",
        [
            *(
                f"{row['kind']}, {row['n_data_sets']} data sets: *Video > Image* tells voxels of "
                f"motion from all others with an AUC of {span(row['auc'])}; brain gain "
                f"{span(row['gain_px'], '{:.2f}')} px, interval above 0 in {row['n_gain_above_0']} "
                f"({p_of(row)})."
                for row in planted
            ),
            *(
                f"{row['kind']}, films exchanged, {row['n_data_sets']} data sets: p < .05 in "
                f"{span([100 * rate for rate in rates(row)], '{:.1f}')} % of voxels, from test to "
                f"test; brain gain {span(row['gain_px'])} px, claimed in {row['n_supported']}."
                for row in null
            ),
        ],
        draw,
        "prove_other_data.py",
        f"--n-seeds {max(row['n_data_sets'] for row in result['rows'])}",
        size=(7.0, 2.6),
    )


def memory(result):
    rows, bound = result["analyses"], result["bound_gib"]
    missing = {"encode", "decode", "reanimate"} - {row["analysis"] for row in rows}

    def draw(figure):
        axes = figure.subplots()
        peaks = [row["peak_gib"] for row in rows]
        axes.barh([row["analysis"] for row in rows], peaks, color=OTHER, height=0.6)
        axes.axvline(bound, color=BOUND, lw=1.5)
        axes.invert_yaxis()
        axes.set(xlabel="peak host memory (GiB); line: bound", xlim=(0, bound * 1.05))

    return Proof(
        "Analyses of a whole brain stay within their memory",
        f"{result['n_volumes']:,} volumes x {result['n_grayordinates']:,} grayordinates of noise "
        f"({result['bold_gib']:.1f} GiB of BOLD), each analysis of the App by itself, with all "
        "that it starts; short trainings and small grids, as only the time depends on them.",
        [
            *(
                f"{row['analysis']}: {row['peak_gib']:.1f} GiB ({bound:.0f} allowed)."
                for row in rows
            ),
            *(
                f"{name} has not been measured with {result['n_volumes']:,} volumes."
                for name in sorted(missing)
            ),
        ],
        draw,
        "prove_memory.py",
        size=(7.0, 1.0 + 0.3 * len(rows)),
    )


def wen2018(result):
    right = [row for row in result["alignment"] if row["rules"] == "as documented"]
    wrong = [row for row in result["alignment"] if row["rules"] != "as documented"]
    full, large = result["scale"]

    def draw(figure):
        axes = figure.subplots()
        rows = {"as documented": right, "one volume off": wrong}
        values = {name: [row["found_s"] for row in rows[name]] for name in rows}
        dots(axes, values, color={"as documented": OURS, "one volume off": CONTROL})
        axes.axvline(right[0]["planted_s"], color=BOUND, lw=0.8)
        axes.set(xlabel="where the impulse is found (s of film time)", title="each kind of run")

    return Proof(
        "Dynamic Natural Vision is converted on time, whole, in little memory",
        f"An impulse was planted at {right[0]['planted_s']:.0f} s of film time in each kind of run "
        "of a small copy of the release, and looked for after the conversion to BIDS. The control: "
        "the rules for the scan's start one volume off.",
        [
            f"It is found to {max(row['worst_miss_s'] for row in right):.3f} s or better "
            f"({result['bound_s']} allowed). One volume off, it is missed by "
            f"{span([abs(row['found_s'] - row['planted_s']) for row in wrong], '{:.0f}')} s: such "
            "a fault would be seen.",
            f"{full['converted']} of {full['expected']} runs of the full tree were converted; the "
            f"peak for runs of the full grid was {large['peak_gib']:.2f} GiB "
            f"({large['bound_gib']:.0f} allowed).",
        ],
        draw,
        "prove_wen2018.py",
        size=(7.0, 1.6),
    )


def io(result):
    kills = result["kills"]
    modes = {name: result["memory"][name] for name in ("average", "concatenate")}

    def draw(figure):
        axes = figure.subplots()
        axes.barh(list(modes), [mode["peak_gib"] for mode in modes.values()], color=OTHER)
        for row, mode in enumerate(modes.values()):
            axes.plot([mode["bound_gib"]] * 2, [row - 0.4, row + 0.4], color=BOUND, lw=1.5)
        axes.set(xlabel="peak memory of loading (GiB); tick: bound")

    return Proof(
        "Files are whole after a kill, and loading stays within its memory",
        "Processes that wrote tables, flow, clips and maps were killed at random moments; "
        f"{result['memory']['n_runs']} runs of {result['memory']['n_volumes']} volumes were "
        "loaded.",
        [
            f"{kills['n_broken']} of {kills['n_files_checked']:,} files were broken after "
            f"{kills['n_kills']} kills.",
            *(
                f'`repeats="{name}"`: a peak of {mode["peak_gib"]:.1f} GiB for a result of '
                f"{mode['result_gib']:.1f} GiB ({mode['bound_gib']:.1f} allowed)."
                for name, mode in modes.items()
            ),
        ],
        draw,
        "prove_io.py",
        size=(7.0, 1.5),
    )


# in the order of the page
PROOFS = {
    "data_sets": data_sets,
    "planted": planted,
    "null": null,
    "trials": trials,
    "coverage": coverage,
    "spaces": spaces,
    "mixtures": mixtures,
    "group": group,
    "transfer": transfer,
    "cluster": cluster,
    "brain_gain": brain_gain,
    "reanimation": reanimation,
    "sample": sample,
    "himalaya": himalaya,
    "wen2018": wen2018,
    "extraction": extraction,
    "kills": kills,
    "bad_input": bad_input,
    "io": io,
    "scale": scale,
    "memory": memory,
    "other_data": other_data,
}


def text_of(proof, name, result):
    """The section of a proof in reStructuredText; its chart is ``generated/proofs/<name>.png``."""
    lines = [proof.claim, "-" * len(proof.claim), ""]
    if not result["passed"]:
        lines += ["**Not reached:** at least one figure missed its bound.", ""]
    if result.get("quick"):
        lines += ["*From a quick run, which proves nothing.*", ""]
    lines += [proof.setting, "", *(f"- {minus(sentence)}" for sentence in proof.found), ""]
    lines += [f".. image:: /generated/proofs/{name}.png", f"   :alt: {proof.claim}", ""]
    if proof.table:
        lines += [".. list-table::", "   :header-rows: 1", "   :class: results", ""]
        for row in proof.table:
            lines += [f"   {' ' if i else '*'} - {cell}" for i, cell in enumerate(row)]
        lines += [""]
    if proof.script:
        command = f"   python tests/prove/{proof.script} {proof.options}".rstrip()
        lines += [".. code-block:: bash", "", f"{command} \\"]
        lines += [f"       --output doc/proofs/{name}.json", ""]
    seconds = result.get("seconds")
    took = f", {seconds / 60:.0f} minutes" if isinstance(seconds, (int, float)) else ""
    lines += [f"Measured on: {result['device']}{took}. All figures: "
              f":download:`{name}.json </proofs/{name}.json>`."]  # fmt: skip
    return "\n".join(lines)


def draw_chart(proof, path):
    with plt.rc_context({"font.size": 9, "axes.titlesize": 9}):
        figure = plt.figure(figsize=proof.size, layout="constrained")
        proof.draw(figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)


def read_results(source):
    """Name to content of each file of proofs/, in the order of the page."""
    results = {}
    for path in sorted((Path(source) / "proofs").glob("*.json")):
        if not path.name.startswith(".") and not path.stem.endswith(".partial"):
            try:
                results[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue  # being written
    return {name: results[name] for name in [*PROOFS, *results] if name in results}


def draw_charts(app):
    """Before any page is read: the front page shows one of them, too."""
    for name, result in read_results(app.srcdir).items():
        if name in PROOFS:
            path = Path(app.srcdir) / "generated" / "proofs" / f"{name}.png"
            draw_chart(PROOFS[name](result), path)


class Proofs(SphinxDirective):
    def run(self):
        shown = []
        for name, result in read_results(self.env.srcdir).items():
            path = Path(self.env.srcdir) / "proofs" / f"{name}.json"
            self.env.note_dependency(str(path))
            if name in PROOFS:
                text = text_of(PROOFS[name](result), name, result)
                shown += self.parse_text_to_nodes(text, allow_section_headings=True)
            else:
                shown.append(result_section(path, result))
        return shown


def setup(app):
    app.add_directive("proofs", Proofs)
    app.connect("builder-inited", draw_charts)
    return {"parallel_read_safe": True, "version": "1"}
