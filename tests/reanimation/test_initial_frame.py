"""Initial frames out of BOLD: the regression against scikit-learn's, the choice of its penalty."""

import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge

from brainnrds.features import delay
from brainnrds.reanimation import InitialFrameDecoder


def planted(n_samples=60, n_voxels=40, seed=0):
    """BOLD that carries four colours of frames, linearly."""
    random = np.random.default_rng(seed)
    codes = random.normal(size=(n_samples, 4)).astype(np.float32)
    pictures = random.normal(size=(4, 3 * 16 * 16)).astype(np.float32)
    frames = np.clip(0.5 + 0.05 * codes @ pictures, 0, 1).reshape(-1, 3, 16, 16)
    bold = codes @ random.normal(size=(4, n_voxels)).astype(np.float32)
    return bold.astype(np.float32), frames


def test_initial_frames_come_back_out_of_noiseless_bold():
    bold, frames = planted()
    decoder = InitialFrameDecoder(delays=(0,), size=(16, 16), alphas=(1e-3,))
    predicted = decoder.fit(bold[:50], frames[:50]).predict(bold[50:])
    assert predicted.shape == frames[50:].shape and predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, frames[50:], atol=0.05)


def test_samples_without_a_film_and_run_borders():
    bold, frames = planted()
    films = np.repeat([0, -1, 1], 20)
    frames[20:40] = 0  # what stands there must not matter
    decoder = InitialFrameDecoder(delays=(-1, 0), size=(16, 16), alphas=(1e-3,))
    decoder.fit(bold, frames, runs=np.repeat([0, 1, 2], 20), films=films)
    predicted = decoder.predict(bold[40:])
    np.testing.assert_allclose(predicted[:-1], frames[40:-1], atol=0.05)
    with pytest.raises(ValueError, match="at least 3 samples"):
        decoder.fit(bold, frames, films=np.full(60, -1))
    with pytest.raises(ValueError, match="must have 40 voxels"):
        decoder.predict(bold[:, :3])
    with pytest.raises(ValueError, match="divide 8-bit images"):
        decoder.fit(bold, frames * 255)


def test_latents_of_any_diffusers_autoencoder():
    diffusers = pytest.importorskip("diffusers")
    import torch

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()
    bold, frames = planted(20)
    decoder = InitialFrameDecoder(vae, delays=(0,), size=(16, 16), alphas=(1e-3,))
    predicted = decoder.fit(bold, frames).predict(bold)
    assert decoder.latent_shape_ == (4, 8, 8)
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(frames) * 2 - 1).latent_dist.mode()
        targets = latents.numpy().reshape(20, -1)
        # few voxels carry the frames: the ridge is checked where it can be exact
        ridge = Ridge(1e-3).fit(bold.astype(np.float64), targets)
        fitted = ridge.predict(bold).reshape(latents.shape)
        expected = vae.decode(torch.from_numpy(fitted).float()).sample.numpy() / 2 + 0.5
    np.testing.assert_allclose(predicted, expected.clip(0, 1), atol=1e-5)
    assert np.corrcoef(fitted.ravel(), targets.ravel())[0, 1] > 0.5
    assert clone(decoder).autoencoder is vae


def slow_scenes(n_films=6, n_each=60, n_repeats=1, seed=0, snr=0.005):
    """Frames that change slowly, BOLD with little of them in autocorrelated noise, labels."""
    random = np.random.default_rng(seed)

    def autocorrelated(n, k, rho):
        noise = random.normal(size=(n, k))
        for t in range(1, n):
            noise[t] = rho * noise[t - 1] + np.sqrt(1 - rho**2) * noise[t]
        return noise

    to_frame, to_bold = random.normal(size=(3, 192)) / 2, random.normal(size=(3, 200)) / np.sqrt(3)
    bold, frames = [], []
    for _ in range(n_films):
        scenes = autocorrelated(n_each, 3, 0.97)
        for _ in range(n_repeats):
            bold.append(np.sqrt(snr) * scenes @ to_bold + autocorrelated(n_each, 200, 0.8))
            frames.append(0.5 + 0.1 * (scenes @ to_frame).reshape(n_each, 3, 8, 8))
    runs = np.repeat(np.arange(n_films * n_repeats), n_each)
    bold, frames = np.concatenate(bold), np.concatenate(frames).clip(0, 1)
    return bold.astype("f4"), frames.astype("f4"), runs, runs // n_repeats


@pytest.mark.parametrize("n_repeats", [1, 2])
def test_the_penalty_is_that_of_ridge_regressions_with_films_left_out(n_repeats):
    alphas = 10.0 ** np.arange(1, 8)
    bold, frames, runs, films = slow_scenes(5, n_repeats=n_repeats)
    decoder = InitialFrameDecoder(size=(8, 8), alphas=alphas, n_components=10, random_state=0)
    decoder.fit(bold, frames, runs=runs, films=films)
    targets = decoder.basis_.transform(frames.reshape(len(frames), -1)).astype(np.float64)
    windows = delay(bold, decoder.delays, runs=runs).astype(np.float64)
    errors, of_mean = np.zeros(len(alphas)), 0
    for film in range(5):
        train, test = films != film, films == film
        of_mean += ((targets[test] - targets[train].mean(axis=0)) ** 2).sum()
        for i, alpha in enumerate(alphas):
            predicted = Ridge(alpha).fit(windows[train], targets[train]).predict(windows[test])
            errors[i] += ((targets[test] - predicted) ** 2).sum()
    np.testing.assert_allclose(decoder.cv_errors_, errors / of_mean, rtol=1e-6)
    assert decoder.alpha_ == alphas[np.argmin(errors)]
    # and the regression of all films is scikit-learn's
    ridge = Ridge(decoder.alpha_).fit(windows, targets)
    expected = decoder.basis_.inverse_transform(ridge.predict(windows)).reshape(frames.shape)
    predicted = decoder.predict(bold, runs=runs)
    np.testing.assert_allclose(predicted, expected.clip(0, 1), atol=1e-5)


def test_new_films_are_decoded_no_worse_than_by_the_mean_frame():
    """Leave-one-out over overlapping windows chose a penalty with 1.5 times its error."""
    shares = []
    for seed in range(3):
        bold, frames, runs, films = slow_scenes(14, 120, seed=seed)
        train = films < 8
        decoder = InitialFrameDecoder(size=(8, 8), n_components=10, random_state=0)
        decoder.fit(bold[train], frames[train], runs=runs[train], films=films[train])
        predicted = decoder.predict(bold[~train], runs=runs[~train])
        error = ((predicted - frames[~train]) ** 2).sum()
        shares.append(error / ((frames[~train] - frames[train].mean(axis=0)) ** 2).sum())
    assert np.mean(shares) < 1


def test_noise_for_bold_gives_the_mean_frame():
    _, frames, runs, films = slow_scenes(8, 60)
    noise = np.random.default_rng(1).normal(size=(len(frames), 200)).astype("f4")
    decoder = InitialFrameDecoder(size=(8, 8), random_state=0)
    decoder.fit(noise, frames, runs=runs, films=films)
    assert decoder.cv_errors_.min() > 0.98
    spread = decoder.predict(noise[::-1], runs=runs).std(axis=0).mean()
    assert spread < 0.2 * frames.std(axis=0).mean()


def test_one_film_is_cut_into_parts_with_gaps():
    bold, frames, _, _ = slow_scenes(1, 120, snr=5.0)
    decoder = InitialFrameDecoder(size=(8, 8), random_state=0).fit(bold, frames)
    assert decoder.cv_errors_.min() < 0.5
    with pytest.raises(ValueError, match="training samples in every fold"):
        decoder.fit(bold[:6], frames[:6])
    with pytest.raises(ValueError, match="`alphas` must be positive"):
        clone(decoder).set_params(alphas=(0.0, 1.0)).fit(bold, frames)


def test_fitting_takes_no_more_memory_than_the_bold():
    """Windows of five delays in double precision took 21 times the BOLD."""
    random = np.random.default_rng(0)
    bold = random.normal(size=(300, 40_000)).astype(np.float32)
    frames = random.random((300, 3, 8, 8)).astype(np.float32)
    runs = np.repeat(np.arange(3), 100)
    decoder = InitialFrameDecoder(size=(8, 8), n_components=5, random_state=0)
    tracemalloc.start()
    decoder.fit(bold, frames, runs=runs, films=runs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * bold.nbytes
