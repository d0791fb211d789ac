"""What the right BOLD adds: the brain gain, with what is random about it."""

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from brainnrds._checks import InputError
from brainnrds.blocks import FEWEST_BLOCKS

__all__ = ["ERRORS", "brain_gain", "nanmean", "paired_gain"]

#: Which cells count -> the score that is the mean over them.
ERRORS = {"all": "end_point_error_px", "masked": "masked_error_px"}


def brain_gain(scores, null, blocks, *, control="unrelated_bold", converged=True, confidence=0.95):
    """What the right BOLD adds: the control's error minus the decoder's.

    Positive where BOLD told something that the film's frames and the training did not. Each side is
    a mean over trainings, and two things are random: which clips were shown, and how each training
    ended. The gain's variance is the sum of both: that of the mean over blocks of clips, and that
    of errors over trainings of one seed, pooled over seeds and sides (``n_draws - 1`` degrees of
    freedom), times ``1 / n_seeds + 1 / n_draws``; its degrees of freedom are Satterthwaite's [1]_.
    One-sided `p_paired` and the interval follow from Student's t. A second p-value asks whether the
    *decoder uses* the brain: the share of permutations of the test BOLD that have as small an
    error.

    Parameters
    ----------
    scores : dict of str -> dict of score -> array of shape (n_draws, n_clips)
        Of `score_flows`, with "decoder" and `control`. Draw d of the control has the seed of the
        decoder's training ``d % n_seeds``; `n_draws` is a multiple of `n_seeds`.
    null : dict of score -> array of shape (n_permutations,), or None
        Mean error of the fitted decoders with permuted BOLD; with "n_blocks" (int), how many can
        change places, and "n_orders" (float), in how many ways. None = no `p`.
    blocks : int array of shape (n_clips,)
        Neighbouring clips share slow noise: one label each.
    control : str, default="unrelated_bold"
        In the same state: the same network, trained as long as it learns.
    converged : bool or str, default=True
        Whether the validation error of every network had stopped falling; or why not. Networks that
        are still learning differ because they learn at different rates: no gain is then supported.
    confidence : float, default=0.95

    Returns
    -------
    gain : DataFrame
        Index ``cells``: "all" and, if any are masked, "masked". ``gain_px``; ``low``, ``high``
        (NaN with one draw); ``p_paired`` (over clips and trainings; NaN with fewer than 12
        blocks); ``p`` (permuted BOLD; NaN likewise); ``supported`` (converged, interval above 0,
        p < .05); ``note`` (empty if supported, else why not, and why there is no p);
        ``sd_training_px``, of errors over trainings of one seed; ``n_seeds``, ``n_draws``,
        ``n_blocks``, ``n_permutations``, ``smallest_p``; ``converged``.

    References
    ----------
    .. [1] Satterthwaite FE (1946). An approximate distribution of estimates of variance components.
       Biometrics Bulletin 2, 110-114.
    """
    rows = []
    n_permutations = 0 if null is None else len(null["end_point_error_px"])
    n_movable = 0 if null is None else null["n_blocks"]
    for cells, score in ERRORS.items():
        ours, theirs = scores["decoder"][score], scores[control][score]
        if not np.isfinite(theirs).any():
            continue
        row = {"cells": cells, **paired_gain(ours, theirs, blocks, confidence)}
        p = smallest = float("nan")
        notes = [] if converged is True else [f"not supported: {converged}"]
        if null is not None and n_movable < FEWEST_BLOCKS:
            notes.append(
                f"no p-value: {n_movable} blocks can change places, {FEWEST_BLOCKS} are needed: "
                "test more films"
            )
        elif null is not None:
            error = nanmean(ours)
            # the control's error is the same in every permutation: less error is more gain
            as_good = int((null[score] <= error * (1 + 1e-7)).sum())
            p = (1 + as_good) / (1 + n_permutations)
            smallest = max(1 / (1 + n_permutations), 1 / null["n_orders"])
        row.update(p=p, n_blocks=n_movable, n_permutations=n_permutations, smallest_p=smallest)
        row["converged"] = converged is True
        row["supported"] = converged is True and row["low"] > 0 and p < 0.05
        if not notes and not row["supported"]:
            notes.append(f"not supported: {_what_lacks(row['low'])}")
        row["note"] = "; ".join(notes)
        rows.append(row)
    columns = ["gain_px", "low", "high", "p_paired", "p", "supported", "note", "sd_training_px"]
    columns += ["n_seeds", "n_draws", "n_blocks", "n_permutations", "smallest_p", "converged"]
    return pd.DataFrame(rows).set_index("cells")[columns]


def _what_lacks(low):
    """Why a gain of networks that have learnt is not supported, from its interval's lower end."""
    if np.isnan(low):
        return "no interval, which takes two blocks of clips and `n_draws` of two"
    if low <= 0:
        return "the interval is not above 0, so that chance would do"
    return "permuted BOLD does as well, or was not tried (p)"


def paired_gain(ours, theirs, blocks, confidence=0.95):
    """Mean of theirs minus ours over clips and trainings, with interval and one-sided p."""
    n_seeds, n_draws = len(ours), len(theirs)
    if n_draws % n_seeds:
        raise InputError(
            "`n_draws` must be a multiple of `n_seeds`, so that every seed has as many controls; "
            f"got {n_draws} and {n_seeds}."
        )
    difference = theirs.mean(axis=0) - ours.mean(axis=0)
    counted = np.isfinite(difference)
    gain = float(difference[counted].mean())
    _, label = np.unique(np.asarray(blocks)[counted], return_inverse=True)
    n_blocks = int(label.max()) + 1
    result = {"gain_px": gain, "n_seeds": n_seeds, "n_draws": n_draws}
    nothing = dict.fromkeys(("low", "high", "p_paired", "sd_training_px"), float("nan"))
    df = n_draws - 1
    if n_blocks < 2 or df < 1:
        return result | nothing
    away = np.bincount(label, weights=difference[counted] - gain)
    of_clips = n_blocks / (n_blocks - 1) * (away**2).sum() / counted.sum() ** 2
    # trainings of one seed in a column; what all of a seed share (films, codebook) is no noise
    controls = theirs[:, counted].mean(axis=1).reshape(-1, n_seeds)
    errors = np.concatenate([ours[:, counted].mean(axis=1)[None], controls - gain])
    residual = errors - errors.mean(axis=0)
    noise = (residual**2).sum() / df
    of_training = noise * (1 / n_seeds + 1 / n_draws)
    variance = max(of_clips + of_training, 1e-300)
    df = variance**2 / max(of_clips**2 / (n_blocks - 1) + of_training**2 / df, 1e-300)
    reach = float(student_t.ppf((1 + confidence) / 2, df) * np.sqrt(variance))
    p = float(student_t.sf(gain / np.sqrt(variance), df))
    return result | {
        "low": gain - reach,
        "high": gain + reach,
        "p_paired": p if n_blocks >= FEWEST_BLOCKS else float("nan"),
        "sd_training_px": float(np.sqrt(noise)),
    }


def nanmean(values):
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
