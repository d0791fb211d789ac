"""New films: what a kept model predicts for them, and which models and films it refuses."""

import dataclasses
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainnrds import VideoEncodingModel, load_runs
from brainnrds.analyses import PredictOptions, encode, predict_films
from brainnrds.analyses.options import EncodeOptions
from brainnrds.cli import main_predict
from brainnrds.io import InputError, load_json

# whole Apps: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)


def transcripts(folder, films):
    folder.mkdir()
    for i, film in enumerate(films):
        onsets = np.sort(np.random.default_rng(i).uniform(0, 40, 60))
        words = pd.DataFrame({"onset": onsets, "duration": 0.1, "word": "word"})
        words.to_csv(folder / f"{Path(film).stem}.tsv", sep="\t", index=False)
    return folder


@pytest.fixture(scope="module")
def kept(short_movies, tmp_path_factory):
    return kept_by_the_app(short_movies, tmp_path_factory.mktemp("kept"))


def kept_by_the_app(short_movies, folder, **more):
    """A model with a control space of words, the data, and its held-out predictions."""
    data = load_runs(short_movies.bids_dir, subject="01", verbose=0)
    options = EncodeOptions(
        test_films=(data.film_names[0],),
        control_spaces=("words=word-rate",),
        transcript=str(transcripts(folder / "words", data.stim_files)),
        keep=("model", "predictions"),
        n_iter=2,
        n_permutations=100,
        n_jobs=1,
        **more,
    )
    encode.encode_participant(
        short_movies.bids_dir, folder / "out", "01", options, work_dir=folder / "work", verbose=0
    )
    return folder, data


def model_of(folder):
    (path,) = (folder / "out/sub-01/func").glob("*feat-joint_desc-encode_model.h5")
    return path


def read(folder, name):
    paths = [next(folder.rglob(f"*hemi-{hemi}_*{name}.func.gii")) for hemi in "LR"]
    values = np.concatenate([np.array(nib.load(path).agg_data()) for path in paths], axis=1)
    return values, load_json(paths[0].with_name(paths[0].name.replace(".func.gii", ".json")))


def test_a_film_of_the_data_gets_its_held_out_predictions(kept, tmp_path, capsys):
    """From its first volume that looks back at nothing but itself to the end of the film."""
    check_a_film_of_the_data(kept, tmp_path, capsys)


def test_a_model_of_components_holds_what_makes_them(short_movies, tmp_path, capsys):
    kept = kept_by_the_app(short_movies, tmp_path, n_components=20)
    model = VideoEncodingModel.load(model_of(kept[0]))
    assert model.n_features_in_ == 41 and model.projection_.n_features_in_ > 1000
    check_a_film_of_the_data(kept, tmp_path / "new", capsys)


def check_a_film_of_the_data(kept, tmp_path, capsys):
    folder, data = kept
    film = data.stim_files[0]
    code = main_predict(
        [str(model_of(folder)), str(tmp_path / "out"), str(film), "--transcript",
         str(folder / "words"), "-w", str(folder / "work"), "--device", "cpu"]
    )  # fmt: skip
    assert code == 0 and "predictions.func.gii" in capsys.readouterr().out
    predicted, about = read(tmp_path / "out", "desc-predict_predictions")
    held_out, stored = read(folder / "out", "feat-joint_desc-encode_predictions")
    times = pd.Index(np.round(about["FilmTime"], 3))
    rows = times.get_indexer(np.round(stored["FilmTime"], 3))
    compared = (np.array(stored["FilmTime"]) >= 8) & (np.array(stored["FilmTime"]) < 40)
    assert compared.sum() >= 10 and (rows[compared] >= 0).all()
    np.testing.assert_allclose(predicted[rows[compared]], held_out[compared], atol=2e-5)
    assert held_out[compared].std() > 0.05
    # the response goes on after the end, and then there is rest
    assert about["FilmTime"][-1] >= 40 + 6 and about["Film"] == film.name
    assert (tmp_path / "out/dataset_description.json").exists()


def test_what_is_shown_decides(kept, tmp_path):
    """Another film has other predictions; words in place of words count, too."""
    folder, data = kept
    how = {"work_dir": folder / "work", "verbose": 0}
    options = PredictOptions(transcript=str(folder / "words"), device="cpu", n_jobs=1)
    first, second = predict_films(model_of(folder), data.stim_files[:2], None, options, **how)
    assert first.predictions.shape[1] == len(data.voxels) and first.files == ()
    alone = predict_films(model_of(folder), data.stim_files[1:2], None, options, **how)[0]
    np.testing.assert_allclose(alone.predictions, second.predictions, atol=1e-5)
    assert abs(np.corrcoef(first.predictions.ravel(), second.predictions.ravel())[0, 1]) < 0.5
    later = dataclasses.replace(options, first_volume=1.0)
    shifted = predict_films(model_of(folder), data.stim_files[:1], None, later, **how)[0]
    assert shifted.times[0] == 1 and not np.allclose(shifted.predictions, first.predictions)
    others = transcripts(tmp_path / "words", data.stim_files[::-1])
    other = dataclasses.replace(options, transcript=str(others))
    reworded = predict_films(model_of(folder), data.stim_files[:1], None, other, **how)[0]
    assert not np.allclose(reworded.predictions, first.predictions, atol=1e-3)


def test_models_and_films_that_do_not_fit_are_refused(kept, tmp_path, capsys):
    folder, data = kept
    film = str(data.stim_files[0])
    path, words = model_of(folder), ["--transcript", str(folder / "words")]
    model = VideoEncodingModel.load(path)
    whole = model.metadata_

    def stored(name, **changed):
        metadata = {key: value for key, value in {**whole, **changed}.items() if value != "gone"}
        return model.save(tmp_path / f"{name}.h5", metadata=metadata)

    other = {**whole["Extractors"], "image": {**whole["Extractors"]["video"]}}
    fast = [stored("fast", Extractors=other), film, *words]
    for arguments, match in (
        ([stored("bare", Grid="gone"), film, *words], "got one without Grid"),
        (
            [stored("components", NumberOfComponents=5), film, *words],
            "was fitted to components .* lacks",
        ),
        (fast, "feature space image must be that of the model; got another"),
        ([path, film], "word-rate needs --transcript"),
        ([path, film, film, *words], "must have names of their own"),
        ([path, str(tmp_path / "nothing.mp4"), *words], "nothing.mp4"),
        ([path, film, *words, "--first-volume", "2"], "less than the repetition time, 2 s; got 2"),
        ([path, film, *words, "--feature-files", "mine=x"], "must name spaces of the model"),
        ([tmp_path / "none.h5", film, *words], "not found"),
    ):
        given, *rest = map(str, arguments)
        output = tmp_path / "out"
        code = main_predict([given, str(output), *rest, "-w", str(folder / "work")])
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and re.search(match, lines[-1]), lines
        assert not output.exists()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/dataset_description.json").write_text('{"Name": "other"}')
    with pytest.raises(InputError, match="must be empty or brainnrds' own"):
        predict_films(path, [film], tmp_path / "theirs", PredictOptions(), verbose=0)
