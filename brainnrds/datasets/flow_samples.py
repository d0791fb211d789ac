"""Flow and BOLD as arrays, with a known truth: what an example of decoding needs, in a moment."""

import numpy as np
from sklearn.utils import Bunch, check_random_state

from brainnrds._checks import InputError

__all__ = ["make_flow_samples"]

_REGIONS = ("patches", "camera", "none")


def make_flow_samples(
    *,
    n_films=12,
    n_clips=60,
    n_voxels=90,
    grid=(8, 8),
    n_patches=2,
    snr=1.0,
    frame_share=0.4,
    random_state=None,
):
    """Simulate BOLD of somebody who sees patches of motion and a moving camera.

    The flow of a clip is a camera pan, plus motion of its own in each of ``n_patches ** 2``
    patches, both known to the brain alone, plus motion of the patches that features of the initial
    frame give away. BOLD answers 4 and 6 s later (2 and 3 volumes), with AR(1) noise.

    Parameters
    ----------
    n_films : int, default=12
        Each is a run of its own.
    n_clips : int, default=60
        Per film; one per volume.
    n_voxels : int, default=90
        A third answers to patches, a third to the camera, a third to nothing.
    grid : tuple (height, width), default=(8, 8)
        Multiples of `n_patches`.
    n_patches : int, default=2
        Per side.
    snr : float, default=1.0
        Standard deviation of the response over that of the noise, about.
    frame_share : float, default=0.4
        Standard deviation of the motion that the frame gives away, px per step; the patches' other
        motion has 0.6, the camera 0.4.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    samples : Bunch
        ``bold`` (n_samples, n_voxels) float32, ``flow`` (n_samples, 1, 2, height, width) float32 in
        px of the grid per step, ``image_features`` (n_samples, 2, n_patches, n_patches), ``films``
        int (n_samples,), ``regions`` (n_voxels,) of str ("patches", "camera" or "none"), ``t_r`` =
        2.0 s.
    """
    height, width = grid
    if height % n_patches or width % n_patches:
        raise InputError(f"`grid` must be multiples of {n_patches} patches; got {grid!r}.")
    random = check_random_state(random_state)
    films = np.repeat(np.arange(n_films), n_clips)

    def autocorrelated(n_columns, rho):
        series = random.normal(size=(n_films, n_clips, n_columns))
        for t in range(1, n_clips):
            series[:, t] = rho * series[:, t - 1] + np.sqrt(1 - rho**2) * series[:, t]
        return series

    shape = (len(films), 2, n_patches, n_patches)
    patches = autocorrelated(2 * n_patches**2, 0.4)
    camera = autocorrelated(2, 0.6)
    frame = autocorrelated(2 * n_patches**2, 0.2).reshape(shape)
    local = 0.6 * patches.reshape(shape) + frame_share * frame
    flow = np.kron(local, np.ones((height // n_patches, width // n_patches)))
    flow += 0.4 * camera.reshape(len(films), 2, 1, 1)

    regions = np.array(_REGIONS)[np.arange(n_voxels) * 3 // n_voxels]
    drive = np.zeros((n_films, n_clips, n_voxels))
    for name, source in (("patches", patches), ("camera", camera)):
        weights = random.normal(size=(source.shape[2], (regions == name).sum()))
        drive[:, :, regions == name] = source @ (weights / np.sqrt(len(weights)))
    bold = autocorrelated(n_voxels, 0.5)
    for lag in (2, 3):
        bold[:, lag:] += 0.7 * snr * drive[:, :-lag]
    return Bunch(
        bold=bold.reshape(len(films), n_voxels).astype(np.float32),
        flow=flow[:, None].astype(np.float32),
        image_features=frame.astype(np.float32),
        films=films,
        regions=regions,
        t_r=2.0,
    )
