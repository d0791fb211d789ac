"""Gains of decoders of others for several new people, side by side and together."""

from brainnrds.analyses.group_gains import group_gains

__all__ = ["transfer_group"]


def transfer_group(
    output_dir, options=None, *, subjects=None, space=None, selection=None, work_dir=None
):
    """Combine the brain gains of participants who were each decoded with a decoder of others.

    Parameters
    ----------
    output_dir : path-like
        Where :func:`transfer_participant` wrote.
    options : GroupOptions or None, default=None
        None: the defaults.
    subjects : list of str or None, default=None
        None: all that are there.
    space : str or None, default=None
        None: each participant's only one; they may differ.
    selection : Selection, path-like or None, default=None
        The data set, whose participants without results are named; a path is the BIDS folder.
    work_dir
        Not needed: what participants wrote is enough.

    Returns
    -------
    result : Bunch
        With ``report``, ``table`` and ``note``, what kind of test it is.

    Raises
    ------
    InputError
        No participant was analysed, or they were analysed with different settings.
    """
    return group_gains(
        "transfer",
        output_dir,
        options,
        keys=["minutes", "kind"],
        names={"gain": "gain_px", "low": "low", "high": "high", "p": "p"},
        what="Brain gain over BOLD of other films, px of the grid per step",
        drawn=-1,  # the most minutes, with all that others taught
        subjects=subjects,
        space=space,
        selection=selection,
    )
