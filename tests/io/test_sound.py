"""Sound in time with the frames, whatever the container says about where tracks begin."""

from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
from tiny_bids import make_tree

from brainnrds.analyses.extract import extract_features, movie_features
from brainnrds.features import Loudness, SoundEncoder, Spectrum
from brainnrds.io import InputError, load_runs, read_sound, write_clip


def write_film(
    path, wave, *, rate=44100, duration=4.0, channels=1, sound_start=0.0, hole=(0.0, 0.0)
):
    """A film of grey frames, 10 a second, with the given sound; `hole`: from when, how long."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        sound = container.add_stream("aac", rate=rate, layout="stereo" if channels == 2 else "mono")
        for i in range(int(duration * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        planes = np.repeat(wave[None], channels, axis=0).astype(np.float32)
        for start in range(0, len(wave), 1024):
            part = np.ascontiguousarray(planes[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=sound.layout.name)
            frame.rate, frame.time_base = rate, Fraction(1, rate)
            late = hole[1] if start >= hole[0] * rate else 0.0
            frame.pts = start + round((sound_start + late) * rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def burst(at, *, rate=44100, duration=4.0):
    """Silence with a tone of 50 ms."""
    t = np.arange(int(duration * rate)) / rate
    return np.where(np.abs(t - at - 0.025) < 0.025, np.sin(2 * np.pi * 800 * t), 0)


def onset(wave, rate):
    return np.argmax(np.abs(wave) > 0.2) / rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_burst_is_where_it_was_put(tmp_path, suffix, channels):
    path = write_film(tmp_path / f"film{suffix}", burst(1.3), channels=channels)
    wave = read_sound(path, rate=8000)
    assert wave.shape == (32000,) and wave.dtype == np.float32
    assert onset(wave, 8000) == pytest.approx(1.3, abs=0.03)


def test_a_track_that_begins_late_is_late(tmp_path):
    path = write_film(tmp_path / "film.mkv", burst(1.0), sound_start=0.8)
    assert onset(read_sound(path), 16000) == pytest.approx(1.8, abs=0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("rate", [32000, 44100, 48000])
@pytest.mark.parametrize("start", [-0.4, 0.0, 0.8])
def test_the_clock_is_that_of_the_pictures(tmp_path, suffix, rate, start):
    """Edit lists, delays of the encoder, tracks that begin before and after the pictures."""
    path = write_film(
        tmp_path / f"film{suffix}", burst(1.0, rate=rate), rate=rate, sound_start=start
    )
    assert onset(read_sound(path), 16000) == pytest.approx(1.0 + start, abs=0.005)


def test_a_hole_in_the_track_is_silence_and_moves_nothing(tmp_path):
    """The second burst is 1 s later than the samples before it say."""
    wave = burst(0.5) + burst(2.0)
    path = write_film(tmp_path / "film.mkv", wave, hole=(1.5, 1.0))
    heard = np.flatnonzero(np.abs(read_sound(path)) > 0.2) / 16000
    assert heard.min() == pytest.approx(0.5, abs=0.01)
    assert heard[heard > 1].min() == pytest.approx(3.0, abs=0.01)
    assert len(heard[(heard > 0.6) & (heard < 2.9)]) == 0


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    pytest.importorskip("transformers")
    from tiny_sequences import save_tiny

    folder = tmp_path_factory.mktemp("whisper")
    save_tiny("whisper", folder)
    return SoundEncoder(folder, context=0.0)


@pytest.mark.parametrize("away", [-0.1, 0.1])
@pytest.mark.parametrize(
    ("suffix", "rate", "start"), [(".mp4", 48000, 0.0), (".mkv", 44100, 0.7), (".mov", 44100, 0.0)]
)
def test_an_impulse_lands_in_the_volume_that_shows_it(
    tmp_path, listener, suffix, rate, start, away
):
    """From the film to the samples of a participant: a whole film, and a part of another.

    The border between two volumes is at 6 s of the first film, and at 17 s of the second, which an
    event shows from 11 s on: an impulse .1 s before it is in the one volume, after it in the other.
    """
    names = [f"a{suffix}", f"b{suffix}"]
    tree = make_tree(tmp_path, runs={"1": [(6.0, 20.0, names[0]), (40.0, 20.0, names[1])]})
    events = pd.read_csv(tree.events("1"), sep="\t").assign(film_start=[0.0, 11.0])
    events.to_csv(tree.events("1"), sep="\t", index=False)
    borders, seconds = (6.0, 17.0), (20.0, 32.0)
    for name, border, duration in zip(names, borders, seconds, strict=True):
        # the burst lasts 50 ms: before the border it must end there
        at = border + away - (0.05 if away < 0 else 0) - start
        write_film(
            tree.bids_dir / "stimuli" / name,
            burst(at, rate=rate, duration=duration - start),
            rate=rate,
            duration=duration,
            sound_start=start,
        )
    data = load_runs(tree.bids_dir, subject="01", confounds=(), verbose=0)
    extractors = {"loudness": Loudness(), "spectrum": Spectrum(8), "network": listener}
    X, spaces = movie_features(data, extractors, store_dir=tmp_path / "store", progress=False)
    shown = data.on_screen >= 0
    starts = np.array([border - 2.0 * (away < 0) for border in borders])
    expected = np.isin(data.film_times, starts) & shown
    assert expected.sum() == 2
    for name, columns in spaces.items():
        silent = np.median(X[shown][:, columns], axis=0)
        away_from_silence = np.abs(X[:, columns] - silent).max(axis=1)
        loud = away_from_silence > 0.2 * away_from_silence[shown].max()
        np.testing.assert_array_equal(loud & shown, expected, err_msg=name)


def test_a_short_track_ends_in_silence(tmp_path):
    path = write_film(tmp_path / "film.mp4", burst(0.5, duration=1.0))
    wave = read_sound(path)
    assert len(wave) == 64000 and np.abs(wave[20000:]).max() < 1e-3


def test_features_of_sound_go_through_the_store(tmp_path):
    """The burst at 2.6 s is in the clip from 2 to 3 s alone; the second time it is read."""
    path = write_film(tmp_path / "film.mp4", burst(2.6))
    films = [(path, [0.0, 1.0, 2.0, 3.0], 1.0)]
    how = {"store_dir": tmp_path / "store", "progress": False}
    (first,) = extract_features(films, {"sound": Loudness()}, **how)["sound"]
    assert first.shape == (4, 3)
    assert first[:, 0].argmax() == 2 and np.sort(first[:, 0])[-2] < first[2, 0] - 1.5
    before = [p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()]
    (again,) = extract_features(films, {"sound": Loudness()}, **how)["sound"]
    np.testing.assert_array_equal(first, again)
    assert [p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()] == before


@pytest.mark.parametrize("family", ["whisper", "wav2vec2", "hubert"])
def test_networks_hear_their_window_and_nothing_else(tmp_path, family):
    """A clip of 1 s with 1 s before it: sound outside changes nothing, sound inside does."""
    pytest.importorskip("transformers")
    from tiny_sequences import save_tiny

    save_tiny(family, tmp_path / "network")
    encoder = SoundEncoder(tmp_path / "network", context=1.0)
    films = [
        write_film(tmp_path / f"{i}.mp4", wave)
        for i, wave in enumerate([0 * burst(1), *(burst(at) for at in (0.4, 1.4, 2.4, 3.4))])
    ]
    found = extract_features(
        [(film, [0.0, 1.0, 2.0, 3.0], 1.0) for film in films],
        {"sound": encoder},
        store_dir=tmp_path / "store",
        progress=False,
    )["sound"]
    for second, features in enumerate(found[1:]):
        moved = np.abs(features - found[0]).max(axis=1) > 1e-4
        expected = [clip in (second, second + 1) for clip in range(4)]
        np.testing.assert_array_equal(moved, expected)


def test_a_film_without_sound_says_so(tmp_path):
    path = write_clip(tmp_path / "silent.mp4", np.zeros((8, 3, 16, 16)), fps=8)
    with pytest.raises(InputError, match=r"silent\.mp4 has no sound"):
        read_sound(path)
    with pytest.raises(InputError, match="has no sound"):
        extract_features(
            [(path, [0.0], 0.5)], {"sound": Loudness()}, store_dir=tmp_path / "s", progress=False
        )
