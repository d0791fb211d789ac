"""Recipes: what they hold, and whether the public data sets are accepted with them."""

import json
import re

import pandas as pd
import pytest
import skeletons

from brainnrds.analyses.options import EncodeOptions, Selection
from brainnrds.cli import main_validate, parse
from brainnrds.datasets import list_recipes, load_recipe
from brainnrds.io import InputError
from brainnrds.io.film_table import read_film_table

RECIPES = list_recipes()


@pytest.mark.parametrize("name", RECIPES.index)
def test_recipes_are_whole(name):
    """Options are options, tables are tables or say what is to be filled in."""
    recipe = load_recipe(name)
    fields = set(Selection.__dataclass_fields__) | {"confounds"}
    assert set(recipe.options) <= fields and recipe.download
    assert recipe.design in ("films", "one film", "trials")
    values = {key: value for key, value in recipe.options.items() if key != "confounds"}
    assert Selection(bids_dir="bids", **values).keywords()
    if name == "nndb":
        with pytest.raises(InputError, match="must be filled in: onset, film_start is empty"):
            read_film_table(recipe.options["films"])
    else:
        assert "films" not in recipe.options or len(read_film_table(recipe.options["films"]).rows)
        assert "films" not in recipe.options or recipe.sources


def test_parts_of_budapest_follow_each_other():
    """A part begins where the one before ended, less what its run showed again."""
    table = pd.read_csv(load_recipe("budapest").options["films"], sep="\t")
    end = table["film_start"] + table["duration"]
    assert (end[:-1].to_numpy() - table["film_start"][1:].to_numpy()).tolist() == [10, 20, 12, 11]


def test_a_recipe_fills_in_what_is_not_given(tmp_path):
    arguments = [str(tmp_path), "out", "participant", "--recipe", "emo-film"]
    _, options, selection = parse(arguments)
    assert selection.space == "MNI" and options.confounds == ()
    assert selection.derivatives == tmp_path / "derivatives" / "preprocessing"
    assert selection.films.name == "films.tsv"
    assert selection.keywords()["bids_filter"] == {"desc": "ppres"}
    _, options, selection = parse([*arguments, "--space", "subject", "--confounds", "motion"])
    assert selection.space == "subject" and options.confounds == ("motion",)
    # the group level reads results alone
    _, _, selection = parse([str(tmp_path), "out", "group", "--recipe", "emo-film"])
    assert selection.space == "MNI"
    assert EncodeOptions().confounds != ()


def test_recipes_for_nothing_and_for_another_data_set(tmp_path, capsys):
    with pytest.raises(InputError, match="A recipe must be one of animal-clips, .*; got 'frinds'"):
        load_recipe("frinds")
    about = {"Name": "FilmFestival", "BIDSVersion": "1.5.0"}
    (tmp_path / "dataset_description.json").write_text(json.dumps(about))
    assert load_recipe("film-festival", tmp_path).title == "FilmFestival"
    with pytest.raises(InputError, match=r"song is for ds004592, SONG; .* is 'FilmFestival'"):
        load_recipe("song", tmp_path)
    assert main_validate([str(tmp_path), "--recipe", "song"]) == 2
    assert "Recipe song is for" in capsys.readouterr().err


# what is there, what is typed, and what comes of it ----------------------------------------------


def friends(name):
    task = re.search(r"task-(s\d+)(e\d+[ab])", name)
    film = f"{task[1]}/friends_{task[1]}{task[2]}.mkv"
    return {"onset": [0], "duration": [600.0], "stim_file": [film]}


def movie10(name):
    task = re.search(r"task-([a-z]+)(\d+)", name)
    return {"onset": [0], "duration": [600.0], "stim_file": [f"{task[1]}/{task[1]}{task[2]}.mkv"]}


def sherlock_merlin(name):
    film = {"SherlockMovie": "Sherlock.m4v", "MerlinMovie": "Merlin.mp4"}
    film = next((f for task, f in film.items() if task in name), "talk.wav")
    return {"onset": [25.5], "duration": [1415.5], "stim_file": [film]}


def sherlock(name):
    return {"onset": [0], "duration": [1200]}


def named_by_tasks(skeleton, events):
    names = [path.rsplit("/")[-1] for path in skeletons.sections(skeleton)["raw"]]
    rows = [events(name)["stim_file"][0] for name in names if name.endswith("_events.tsv")]
    return {film: 620 for film in rows}


def titles(recipe, seconds=1550):
    return dict.fromkeys(
        read_film_table(load_recipe(recipe).options["films"]).rows["stim_file"], seconds
    )


ELSEWHERE = ["--derivatives", "{derivatives}", "--space", "MNI152NLin2009cAsym"]
FREE = [*ELSEWHERE, "--stimuli", "{films}"]
# recipe: skeleton, repetition time, films, more of the data set, what is typed, what is said
CASES = {
    "friends": ("cneuromod-friends", 1.49, friends, {}, FREE, 0),
    "movie10": ("cneuromod-movie10", 1.49, movie10, {}, FREE, 0),
    "bold-moments": (
        "ds005165", 1.75, 4, {}, ["--space", "MNI152NLin2009cAsym", "--stimuli", "{films}"], 0,
    ),
    "had": ("ds004488", 2.0, 3, {}, ELSEWHERE, "is of fMRIPrep's minimal level"),
    "animal-clips": ("ds000233", 2.0, 3, {}, FREE, 0),
    "budapest": ("ds003017", 1.0, {"budapest.mkv": 2900}, {"fmriprep": ("movie",)}, FREE, 0),
    "partly-cloudy": ("ds000228", 2.0, {"partly_cloudy.mp4": 340}, {}, FREE, 0),
    "sherlock": (
        "ds001132", 1.5, titles("sherlock"), {"events": sherlock, "fmriprep": ("sherlock",)},
        FREE, 0,
    ),
    "sherlock-merlin": (
        "ds001110", 1.5, {"Sherlock.m4v": 1450, "Merlin.mp4": 1510}, {"events": sherlock_merlin},
        ["--derivatives", "{derivatives}/fmriprep", "--stimuli", "{films}"], 0,
    ),
    "song": ("ds004592", 1.0, titles("song"), {"fmriprep": ("sitcomep", "documentary")}, FREE, 0),
    "film-festival": (
        "ds004042", 1.5, titles("film-festival", 500), {"fmriprep": ("movie",)}, FREE, 0,
    ),
    "emo-film": ("ds004892", 1.3, titles("emo-film", 1100), {}, ["--stimuli", "{films}"], 0),
    "studyforrest": (
        "ds000113", 2.0, {"forrest_gump.mkv": 7100}, {},
        ["--derivatives", "{derivatives}/fmriprep", "--stimuli", "{films}"], 0,
    ),
    "nndb": (
        "ds002837", 1.0, {}, {"fmriprep": ("500",)}, ELSEWHERE,
        "must be filled in: onset, film_start",
    ),
    "spacetop": ("ds005256", 0.46, 400, {}, FREE, 0),
}  # fmt: skip


@pytest.mark.skipif(not skeletons.ROOT.is_dir(), reason="no shared/skeletons beside the clone")
@pytest.mark.parametrize("name", CASES)
def test_public_data_sets_by_their_names(tmp_path, capsys, name):
    """With the recipe and what it says is to be typed they are accepted, or it is said why not."""
    skeleton, t_r, films, more, typed, expected = CASES[name]
    if callable(films):
        more, films = {"events": films}, named_by_tasks(skeleton, films)
    elif isinstance(films, int):
        films = skeletons.films_of_events(skeleton, films)
    places = skeletons.make(tmp_path, skeleton, t_r=t_r, films=films, **more)
    typed = [argument.format(**places) for argument in typed]
    code = main_validate([str(places["bids"]), "--recipe", name, *typed])
    told = capsys.readouterr()
    if expected == 0:
        assert code == 0, told.err
        assert "film groups, the units of every split" in told.out
        assert "one film group" not in told.out
    else:
        assert code == 2 and expected in told.err
    assert len(told.err.splitlines()) == (code == 2)


def test_every_recipe_is_tried():
    assert set(CASES) == set(RECIPES.index)
