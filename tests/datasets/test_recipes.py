"""Recipes: what they hold, and whether the public data sets are accepted with them."""

import json

import pandas as pd
import pytest
import skeletons
from public_sets import SETS, lay_out

from brainnrds.analyses.options import EncodeOptions, Selection
from brainnrds.cli import main, main_validate, parse
from brainnrds.datasets import list_recipes, load_recipe
from brainnrds.io import InputError
from brainnrds.io.film_table import read_film_table

RECIPES = list_recipes()
SMALLEST = {"partly-cloudy": "pixar001", "sherlock-merlin": "01"}


@pytest.mark.parametrize("name", RECIPES.index)
def test_recipes_are_whole(name):
    """Options are options, tables are tables or say what is to be filled in."""
    recipe = load_recipe(name)
    fields = set(Selection.__dataclass_fields__) | {"confounds"}
    assert set(recipe.options) <= fields and recipe.download
    assert recipe.design in ("films", "one film", "trials")
    values = {key: value for key, value in recipe.options.items() if key != "confounds"}
    assert Selection(bids_dir="bids", **values).keywords()
    if name in ("nndb", "ibc"):
        with pytest.raises(
            InputError, match="must be filled in: onset, film_start(, stim_file)? is"
        ):
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

names_are_there = pytest.mark.skipif(
    not skeletons.ROOT.is_dir(), reason="no shared/skeletons beside the clone"
)


@names_are_there
@pytest.mark.parametrize("name", SETS)
def test_public_data_sets_by_their_names(tmp_path, capsys, name):
    """With the recipe and what it says is to be typed they are accepted, or it is said why not."""
    typed = lay_out(name, tmp_path)
    code = main_validate(typed)
    told = capsys.readouterr()
    if SETS[name].refused is None:
        assert code == 0, told.err
        assert "units of every split" in told.out
        assert "one film group" not in told.out
    else:
        assert code == 2 and SETS[name].refused in told.err
    assert len(told.err.splitlines()) == (code == 2)


@names_are_there
@pytest.mark.parametrize("name", ["partly-cloudy", "sherlock-merlin"])
def test_public_data_sets_to_their_report(tmp_path, capsys, name):
    """The two smallest; tests/prove/prove_data_sets.py takes all."""
    bids_dir, *typed = lay_out(name, tmp_path)
    out = tmp_path / "out"
    person = SMALLEST[name]
    code = main(
        [bids_dir, str(out), "participant", "--participant-label", person, *typed]
        + [*SETS[name].quick, "--work-dir", str(tmp_path / "work")]
    )
    assert code == 0, capsys.readouterr().err
    assert "</html>" in (out / f"sub-{person}.html").read_text()


def test_every_recipe_is_tried():
    assert set(SETS) == set(RECIPES.index)
