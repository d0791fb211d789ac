"""Features from elsewhere: every format says the same, on the film's clock, or is refused."""

import gzip
import json
import string

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainnrds._checks import InputError
from brainnrds.analyses.extract import extract_features
from brainnrds.features import WordEncoder
from brainnrds.io import (
    FeatureFiles,
    FlowFiles,
    WordEmbeddings,
    WordRate,
    read_feature_file,
    read_transcript,
    write_clip,
)

TIMES = np.arange(40) * 0.25
FEATURES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def write(folder, kind, times=TIMES, features=FEATURES, name="film"):
    folder.mkdir(exist_ok=True)
    columns = [f"f{i}" for i in range(features.shape[1])]
    table = pd.DataFrame({"time": times, **dict(zip(columns, features.T, strict=True))})
    path = folder / f"{name}{kind}"
    if kind == ".h5":
        with h5py.File(path, "w") as file:
            file["times"], file["features"] = times, features
    elif kind == ".npy":
        np.save(path, features)
        np.save(folder / f"{name}_times.npy", times)
    elif kind == ".parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    elif kind == "_stim.tsv.gz":
        with gzip.open(path, "wt") as file:
            table[columns].to_csv(file, sep="\t", header=False, index=False)
        about = {"SamplingFrequency": 1 / np.diff(times[:2])[0], "StartTime": times[0]}
        (folder / f"{name}_stim.json").write_text(json.dumps({**about, "Columns": columns}))
    else:
        table.to_csv(path, sep="\t", index=False)
    return path


@pytest.mark.parametrize("kind", [".h5", ".npy", ".parquet", ".tsv", "_stim.tsv.gz"])
def test_every_format_says_the_same(tmp_path, kind):
    times, features = read_feature_file(write(tmp_path, kind))
    np.testing.assert_allclose(times, TIMES, atol=1e-12)
    np.testing.assert_allclose(features, FEATURES, atol=1e-6)
    assert FeatureFiles(tmp_path).find("stimuli/film.mp4").name == f"film{kind}"


def test_a_feature_that_is_time_has_the_middle_of_each_clip(tmp_path):
    # the mean of frames of .01 s over [t, t + d) is t + d / 2, less half a frame
    clock = np.arange(2000) * 0.01
    write(tmp_path, ".npy", clock, clock[:, None].astype(np.float32))
    times = np.array([0.0, 1.5, 3.2, 17.9])
    means = FeatureFiles(tmp_path).features_of("film.mp4", times, 2.0)
    np.testing.assert_allclose(means[:, 0], times + 1.0 - 0.005, atol=1e-4)


@pytest.mark.parametrize("moment", [0.05, 6.0, 11.98])
def test_an_impulse_lands_in_its_clip(tmp_path, moment):
    clock = np.arange(1500) * 0.01
    impulse = ((clock >= moment) & (clock < moment + 0.02)).astype(np.float32)
    write(tmp_path, ".h5", clock, impulse[:, None])
    times = np.arange(7) * 2.0
    found = FeatureFiles(tmp_path).features_of("film.mp4", times, 2.0)[:, 0]
    assert found.argmax() == int(moment // 2)
    assert found[int((moment - 0.1) // 2)] + found[int((moment + 0.1) // 2)] > 0


def test_what_does_not_cover_the_film_is_refused(tmp_path):
    write(tmp_path, ".tsv")
    features = FeatureFiles(tmp_path)
    with pytest.raises(InputError, match="must cover the film from 0 to 12 s; got 0 to 10 s"):
        features.features_of("film.mp4", np.array([0.0, 10.0]), 2.0)
    with pytest.raises(InputError, match=r"must hold one file other .* got none"):
        features.features_of("other.mp4", np.array([0.0]), 2.0)
    write(tmp_path, ".npy")
    with pytest.raises(InputError, match=r"got film.npy, film.tsv"):
        features.find("film.mp4")


@pytest.mark.parametrize(
    ("times", "features", "match"),
    [
        (TIMES[::-1], FEATURES, "ascend"),
        (np.append(TIMES[:-1], np.nan), FEATURES, "finite"),
        (TIMES, np.where(FEATURES == FEATURES[3, 1], np.inf, FEATURES), "finite"),
        (TIMES[:-1], FEATURES, "one row for each"),
        (TIMES[:1], FEATURES[:1], "at least 2 times"),
        (TIMES, FEATURES[:, :0], "at least 2 times"),
        (TIMES, FEATURES.astype(complex), "numbers|type"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, times, features, match):
    np.save(tmp_path / "film.npy", features)
    np.save(tmp_path / "film_times.npy", times)
    with pytest.raises(InputError, match=match):
        read_feature_file(tmp_path / "film.npy")


def test_bad_files_are_refused(tmp_path):
    np.save(tmp_path / "film.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="whole NPY file"):
        read_feature_file(tmp_path / "film.npy")
    (tmp_path / "film.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="HDF5 file with times and features"):
        read_feature_file(tmp_path / "film.h5")
    (tmp_path / "film.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="column 'time' or 'onset'; got a, b"):
        read_feature_file(tmp_path / "film.tsv")
    path = write(tmp_path, "_stim.tsv.gz")
    (tmp_path / "film_stim.json").write_text('{"SamplingFrequency": 0, "StartTime": 0}')
    with pytest.raises(InputError, match="must have SamplingFrequency above 0"):
        read_feature_file(path)
    with pytest.raises(InputError, match="no such folder"):
        FeatureFiles(tmp_path / "nowhere").describe()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must hold files that end in"):
        FeatureFiles(tmp_path / "empty").describe()


def test_a_recording_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "_stim.tsv.gz")
    with gzip.open(path, "wb") as file:
        file.write(b"1\t1\t1\n" * 100_000)
    monkeypatch.setattr("brainnrds.io.feature_files._LARGEST_ARRAY", 2**19)
    with pytest.raises(InputError, match="it has more than 0 GiB"):
        read_feature_file(path)
    path.write_bytes(path.read_bytes()[:-20])
    monkeypatch.undo()
    with pytest.raises(InputError, match="must be a readable TSV file"):
        read_feature_file(path)


def test_the_description_is_the_content(tmp_path):
    write(tmp_path, ".npy")
    before = FeatureFiles(tmp_path).describe()
    write(tmp_path, ".npy", features=FEATURES + 1)
    after = FeatureFiles(str(tmp_path)).describe()
    assert before.keys() == after.keys() and before != after


# transcripts -------------------------------------------------------------------------------------

SUBTITLES = """1
00:00:01,000 --> 00:00:03,000
<i>one</i> two
three four

2
00:01:00,500 --> 00:01:01,000
five
"""


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_words_of_a_caption_are_spread_over_it(tmp_path, suffix):
    text = SUBTITLES
    if suffix == ".vtt":
        text = "WEBVTT\n\n" + text.replace(",", ".").replace("00:01:00", "01:00", 1)
    (tmp_path / f"film{suffix}").write_text(text)
    words = read_transcript(tmp_path / f"film{suffix}")
    assert words["word"].tolist() == ["one", "two", "three", "four", "five"]
    np.testing.assert_allclose(words["onset"], [1, 1.5, 2, 2.5, 60.5])
    np.testing.assert_allclose(words["duration"], [0.5] * 5)


def test_word_rate_counts_onsets(tmp_path):
    onsets = [0.0, 0.4, 1.9, 2.0, 5.5]
    table = pd.DataFrame({"onset": onsets, "duration": 0.2, "word": list("abcde")})
    table.to_csv(tmp_path / "film.tsv", sep="\t", index=False)
    rates = WordRate(tmp_path).features_of("x/film.mp4", np.array([0.0, 2.0, 4.0]), 2.0)
    np.testing.assert_allclose(rates[:, 0], [1.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("onset\tword\n1\ta\n", "no duration"),
        ("onset\tduration\tword\n-1\t1\ta\n", "at least 0 s"),
        ("onset\tduration\tword\nx\t1\ta\n", "at least 0 s"),
        ("onset\tduration\tword\n2\t1\ta\n1\t1\tb\n", "in order"),
    ],
)
def test_bad_transcripts_are_refused(tmp_path, rows, match):
    (tmp_path / "film.tsv").write_text(rows)
    with pytest.raises(InputError, match=match):
        read_transcript(tmp_path / "film.tsv")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A film whose five words begin at known times, and a tiny network of text."""
    pytest.importorskip("transformers")
    from tiny_sequences import save_tiny

    folder = tmp_path_factory.mktemp("spoken")
    save_tiny("gpt2", folder / "gpt2")
    film = write_clip(folder / "film.mp4", np.zeros((8, 3, 16, 16)), fps=1)
    table = pd.DataFrame(
        {
            "onset": [0.0, 0.4, 1.9, 2.0, 5.5],
            "duration": 0.2,
            "word": ["the", "dog", "run", "to", "river"],
        }
    )
    (folder / "words").mkdir()
    table.to_csv(folder / "words" / "film.tsv", sep="\t", index=False)
    return film, folder, table


def test_words_count_where_they_begin(spoken):
    """Sums per second of what the network says of each word; 0 where nobody speaks."""
    film, folder, table = spoken
    encoder = WordEncoder(folder / "gpt2", context=2)
    words = WordEmbeddings(folder / "words", encoder)
    found = words.features_of(film, np.array([0.0, 2.0, 3.0, 5.0]), 2.0)
    each = encoder.transform(table["word"])
    expected = [each[:3].sum(0) / 2, each[3] / 2, np.zeros(16), each[4] / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_words_go_through_the_store(spoken, tmp_path):
    """What is stored is known by the film's transcript: another film's may change."""
    film, folder, table = spoken
    (tmp_path / "words").mkdir()
    table.to_csv(tmp_path / "words" / "film.tsv", sep="\t", index=False)
    words = WordEmbeddings(tmp_path / "words", WordEncoder(folder / "gpt2", context=2))
    films = [(film, [0.0, 2.0, 4.0], 2.0)]
    how = {"store_dir": tmp_path / "store", "progress": False, "chunk_size": 2}

    def extract():
        (features,) = extract_features(films, {"words": words}, **how)["words"]
        return features, {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("*.h5")}

    first, files = extract()
    np.testing.assert_allclose(first, words.features_of(*films[0]), rtol=1e-6, atol=1e-7)
    table.to_csv(tmp_path / "words" / "other.tsv", sep="\t", index=False)
    again, same_files = extract()
    np.testing.assert_array_equal(first, again)
    assert same_files == files and len(files) == 1
    table.assign(word="house").to_csv(tmp_path / "words" / "film.tsv", sep="\t", index=False)
    changed, more_files = extract()
    assert np.abs(changed - first).max() > 1e-3 and len(more_files) == 2


def test_a_film_without_a_transcript_is_named(spoken, tmp_path):
    film, folder, table = spoken
    table.to_csv(tmp_path / "another.tsv", sep="\t", index=False)
    words = WordEmbeddings(tmp_path, WordEncoder(folder / "gpt2"))
    with pytest.raises(InputError, match=r"must hold one file film with .* got none"):
        extract_features(
            [(film, [0.0], 1.0)], {"w": words}, store_dir=tmp_path / "s", progress=False
        )
    assert not (tmp_path / "s").exists()


def test_flow_of_others_is_read_at_its_times_and_brought_to_the_grid(tmp_path):
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(4, 1, 2, 8, 8)).astype(np.float32)
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["flow"], file["times"] = flow, np.array([4.0, 0.0, 2.0, 6.0])
    files = FlowFiles(tmp_path)
    found = files.flow_of("film.mp4", np.array([0.02, 4.0]), (1, 2, 8, 8))
    np.testing.assert_array_equal(found, flow[[1, 0]])
    coarse = files.flow_of("film.mp4", np.array([0.0]), (1, 2, 4, 4))
    expected = flow[1].reshape(1, 2, 4, 2, 4, 2).mean((3, 5)) / 2  # px of the coarse grid
    np.testing.assert_allclose(coarse[0], expected, atol=1e-6)
    with pytest.raises(InputError, match=r"got none at 3 s \(1 of 2 are missing\)"):
        files.flow_of("film.mp4", np.array([2.0, 3.0]), (1, 2, 8, 8))


@pytest.mark.parametrize(
    ("flow", "times", "match"),
    [
        (np.zeros((2, 1, 3, 4, 4), np.float32), [0.0, 1.0], "must hold `flow`"),
        (np.zeros((2, 1, 2, 4, 4), np.float32), [0.0], "must hold `flow`"),
        (np.full((2, 1, 2, 4, 4), np.nan, np.float32), [0.0, 1.0], "must be finite"),
    ],
)
def test_what_is_no_flow_is_refused(tmp_path, flow, times, match):
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["flow"], file["times"] = flow, np.array(times)
    with pytest.raises(InputError, match=match):
        FlowFiles(tmp_path).flow_of("film.mp4", np.array([0.0]), (1, 2, 4, 4))


def test_nobody_speaks(tmp_path):
    """A table without rows says so; subtitles without captions are none."""
    (tmp_path / "film.tsv").write_text("onset\tduration\tword\n")
    assert len(read_transcript(tmp_path / "film.tsv")) == 0
    assert WordRate(tmp_path).features_of("film.mp4", [0.0, 2.0], 2.0).tolist() == [[0.0], [0.0]]
    (tmp_path / "film.srt").write_text("no captions")
    with pytest.raises(InputError, match="got 0 words"):
        read_transcript(tmp_path / "film.srt")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=300) | st.text(string.printable, max_size=300).map(str.encode),
    suffix=st.sampled_from([".srt", ".vtt", ".tsv"]),
)
def test_any_transcript_is_read_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("words") / f"film{suffix}"
    path.write_bytes(content)
    try:
        words = read_transcript(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert (words["onset"] >= 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=300) | st.just(b"time\tf\n0\t1\n1\t2\n").map(lambda b: b * 2),
    kind=st.sampled_from([".h5", ".npy", ".tsv"]),
)
def test_any_feature_file_is_read_or_refused(tmp_path_factory, content, kind):
    folder = tmp_path_factory.mktemp("features")
    (folder / f"film{kind}").write_bytes(content)
    (folder / "film_times.npy").write_bytes(content)
    try:
        times, features = read_feature_file(folder / f"film{kind}")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(times) == len(features) and np.isfinite(features).all()
