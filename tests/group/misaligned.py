"""People who see the same films with topographies of their own: for tests of alignment."""

import numpy as np
from scipy.signal import lfilter

T_R = 2.0
PARCELS = np.repeat([1, 2, 3], 15)


def autoregressive(rng, shape, rho):
    noise = rng.standard_normal(shape) * np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=0)


def see_films(seed, *, shuffled, n_people=4, n_films=6, length=150, noise=1.0):
    """Features, BOLD of each person, films: responses one volume later, turned inside parcels."""
    rng = np.random.default_rng(seed)
    films = np.repeat(np.arange(n_films), length)
    X = np.concatenate([autoregressive(rng, (length, 10), 0.5) for _ in range(n_films)])
    late = np.concatenate([np.pad(X[films == f], ((1, 0), (0, 0)))[:-1] for f in range(n_films)])
    response = late @ rng.standard_normal((10, len(PARCELS))) / np.sqrt(10)
    people = []
    for _ in range(n_people):
        turned = np.empty_like(response)
        for parcel in np.unique(PARCELS):
            own = PARCELS == parcel
            turn = np.linalg.qr(rng.standard_normal((own.sum(), own.sum())))[0]
            turned[:, own] = response[:, own] @ (turn if shuffled else np.eye(own.sum()))
        bold = turned + noise * autoregressive(rng, turned.shape, 0.3)
        people.append(((bold - bold.mean(0)) / bold.std(0)).astype(np.float32))
    return X.astype(np.float32), people, films
