"""Small planted data for the tests of the decoder: BOLD that carries patches of motion and pans."""

import numpy as np


def autocorrelated(random, n_samples, n_columns, rho):
    """AR(1) noise of unit variance, (n_samples, n_columns)."""
    noise = random.normal(size=(n_samples, n_columns))
    series = noise.copy()
    for t in range(1, n_samples):
        series[t] = rho * series[t - 1] + np.sqrt(1 - rho**2) * noise[t]
    return series


def plant_motion(
    random_state,
    *,
    n_runs=10,
    n_per_run=48,
    n_voxels=60,
    snr=1.0,
    predictable=0.4,
    grid=4,
    person=None,
):
    """Return BOLD, flow, frame features and runs.

    People of the same `random_state` and another `person` (a seed) see the same films.

    Flow = pans and 2 x 2 patches that only the brain knows + `predictable` x patches that the frame
    features hold. BOLD answers 2 and 3 volumes later, with AR(1) noise.
    """
    random = np.random.default_rng(random_state)
    own = random if person is None else np.random.default_rng(person)

    def series(n_columns, rho, random=random):
        parts = [autocorrelated(random, n_per_run, n_columns, rho) for _ in range(n_runs)]
        return np.concatenate(parts)

    patches, pan, image = series(8, 0.4), series(2, 0.6), series(8, 0.2)
    n_samples = n_runs * n_per_run
    cells = np.ones((grid // 2, grid // 2))
    flow = 0.6 * np.kron(patches.reshape(n_samples, 2, 2, 2), cells) + 0.4 * pan[:, :, None, None]
    flow += predictable * np.kron(image.reshape(n_samples, 2, 2, 2), cells)
    drive = np.concatenate([patches, pan], axis=1) @ (own.normal(size=(10, n_voxels)) / np.sqrt(10))
    runs = np.repeat(np.arange(n_runs), n_per_run)
    bold = snr * np.concatenate(
        [
            0.7 * np.pad(drive[runs == run], ((2, 0), (0, 0)))[:n_per_run]
            + 0.7 * np.pad(drive[runs == run], ((3, 0), (0, 0)))[:n_per_run]
            for run in range(n_runs)
        ]
    )
    bold = bold + series(n_voxels, 0.5, own)
    features = image.reshape(n_samples, 2, 2, 2).astype(np.float32)
    return bold.astype(np.float32), flow[:, None].astype(np.float32), features, runs
