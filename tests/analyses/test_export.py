"""Features as files: what is written comes back as it was, whatever the format."""

import numpy as np
import pandas as pd
import pytest

from brainnrds import load_runs
from brainnrds.analyses import export_features, movie_features
from brainnrds.analyses.encoders import make_extractors
from brainnrds.analyses.options import EncodeOptions, Selection
from brainnrds.cli import main_features
from brainnrds.io import FeatureFiles, InputError, load_json

# features of whole films: slow where the machine is loaded
pytestmark = pytest.mark.timeout(900)

SPACES = ("light=luminance", "cut=cuts")


@pytest.fixture(scope="module")
def computed(short_movies, tmp_path_factory):
    """The data, the store, and the features that the analysis would use."""
    work = tmp_path_factory.mktemp("work")
    data = load_runs(short_movies.bids_dir, subject="01", verbose=0)
    extractors, _ = make_extractors(EncodeOptions(feature_spaces=SPACES), "cpu")
    X, spaces = movie_features(data, extractors, store_dir=work / "features", progress=False)
    return data, work, X, spaces


@pytest.mark.parametrize("kind", ["h5", "npy", "tsv", "parquet"])
def test_files_give_the_same_features_back(short_movies, computed, tmp_path, kind, capsys):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    data, work, X, spaces = computed
    out = tmp_path / "out"
    code = main_features(
        [str(short_movies.bids_dir), str(out), "--participant-label", "01", "--format", kind]
        + ["--feature-space", *SPACES, "-w", str(work), "--n-cpus", "1", "--device", "cpu"]
    )
    assert code == 0
    written = capsys.readouterr().out.split()
    assert len(written) == len(spaces) * len(set(data.stim_files))
    files = {name: FeatureFiles(out / name) for name in spaces}
    again, columns = movie_features(data, files, store_dir=tmp_path, progress=False)
    assert columns == spaces
    np.testing.assert_allclose(again, X, atol=1e-6)
    about = load_json(out / "light.json")
    assert about["ClipDuration"] == data.t_r and "Luminance" in about["Extractor"]["class"]


def test_other_programs_read_them(short_movies, computed, tmp_path):
    data, work, X, spaces = computed
    options = EncodeOptions(feature_spaces=SPACES, n_jobs=1, device="cpu")
    selection = Selection(bids_dir=short_movies.bids_dir)
    how = {"kind": "tsv", "work_dir": work, "verbose": 0}
    paths = export_features(selection, tmp_path / "out", ["01"], options, **how)
    film = data.stim_files[0]
    (path,) = [p for p in paths if p.parent.name == "light" and p.stem == film.stem]
    table = pd.read_table(path)
    assert list(table)[:2] == ["onset", "duration"] and (table["duration"] == data.t_r).all()
    shown = np.flatnonzero((data.on_screen == 0) & (data.film_times >= 2))[0]
    row = np.abs(table["onset"] - data.film_times[shown]).argmin()
    np.testing.assert_allclose(
        table.iloc[row, 2:].to_numpy(float), X[shown, spaces["light"]], atol=1e-6
    )
    # of clips that begin at other moments, the parts that are seen are averaged
    times = table["onset"].to_numpy()[:5]
    between = FeatureFiles(path.parent).features_of(film, times[:-1] + data.t_r / 2, data.t_r)
    if np.allclose(np.diff(times), data.t_r):
        values = table.iloc[:5, 2:].to_numpy(float)
        np.testing.assert_allclose(between, (values[:-1] + values[1:]) / 2, atol=1e-5)


def test_what_cannot_be_written_is_refused(short_movies, tmp_path, capsys):
    bids = str(short_movies.bids_dir)
    for arguments, match in (
        ([bids, bids], "must not be the input"),
        ([bids, str(tmp_path / "out"), "--format", "mat"], "invalid choice"),
        (
            [bids, str(tmp_path / "out"), "--feature-space", "a=colours"],
            "--feature-space must name",
        ),
        ([bids, str(tmp_path / "out"), "--n-folds", "2"], "unrecognized arguments"),
    ):
        assert main_features([*arguments, "-w", str(tmp_path / "work")]) == 2
        assert match in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    selection = Selection(bids_dir=short_movies.bids_dir)
    with pytest.raises(InputError, match="--format must be one of h5, npy, tsv, parquet; got 'x'"):
        export_features(selection, tmp_path / "out", ["01"], EncodeOptions(), kind="x")
