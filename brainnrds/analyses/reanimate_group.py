"""What brains added to the clips of several participants, side by side and together."""

from brainnrds.analyses.group_gains import group_gains

__all__ = ["reanimate_group"]


def reanimate_group(
    output_dir, options=None, *, subjects=None, space=None, selection=None, work_dir=None
):
    """Combine the gains of decoded flow over every control, score by score.

    Parameters
    ----------
    output_dir : path-like
        Where :func:`reanimate_participant` wrote.
    options, subjects, space, selection, work_dir
        As in :func:`decode_group`.

    Returns
    -------
    result : Bunch
        As of :func:`decode_group`.

    Raises
    ------
    InputError
        No participant was analysed, or they were analysed with different settings.
    """
    return group_gains(
        "reanimate",
        output_dir,
        options,
        keys=["score", "flow"],
        names={"gain": "gain", "low": "gain_low", "high": "gain_high", "p": "p"},
        what="Gain of decoded flow over this flow, in the score's unit",
        subjects=subjects,
        space=space,
        selection=selection,
    )
