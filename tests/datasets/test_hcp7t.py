"""HCP 7T movies: names of the release in, runs and clips at their times out."""

import os

import numpy as np
import pytest
from hcp7t_release import CLIPS, VOLUMES, make_release

from brainnrds.datasets import hcp7t_to_bids
from brainnrds.io import InputError, find_runs, load_runs
from brainnrds.io.film_parts import groups_of_films


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("hcp")
    make_release(root)
    return root


@pytest.fixture
def convert(release, tmp_path):
    def converted(**options):
        how = {"films": release / "films", "clips": CLIPS, "version": 2, "verbose": 0, **options}
        return hcp7t_to_bids(how.pop("source", release), tmp_path / "bids", **how)

    return converted


def test_what_is_found_is_what_was_shown(convert):
    """Every clip at its time, in its film; the last one is the same in all four runs."""
    done = convert()
    runs = find_runs(done.bids_dir, subject="100610")
    assert [run.n_volumes for run in runs] == list(VOLUMES)
    assert {(run.t_r, run.start_time, run.space, run.has_timing) for run in runs} == {
        (1.0, 0.5, "fsLR", True)
    }
    for run, (movie, rows) in zip(runs, CLIPS.groupby("movie"), strict=True):
        assert [film.onset for film in run.films] == rows["onset"].tolist()
        assert [film.footage[0] for film in run.films[:2]] == rows["onset"].tolist()[:2]
        assert {film.stim_file.name[:9] for film in run.films[:2]} == {f"7T_MOVIE{movie}"}
        # the same seconds of the first film, as long as the shortest showing
        assert run.films[2].film == "7T_MOVIE1_CC1_v2.mp4#t=300"
        assert run.films[2].footage == (300.0, 380.0)
    names = list(dict.fromkeys(film.film for run in runs for film in run.films))
    assert len(names) == 9 and len(set(groups_of_films(runs, names))) == 9
    data = load_runs(runs, confounds=())
    assert not data.has_repeats and data.n_repeats.max() == 4
    # linked, not copied
    [source] = done.runs["path"][done.runs["bids_name"] == "sub-100610_task-movie_run-1"]
    assert os.path.samefile(runs[0].bold[0], source)
    assert "_1.6mm_" in source.name and "_den-170k_" in runs[0].bold[0].name


def test_versions_and_meshes(convert):
    done = convert(mesh="32k", version={"100610": 1, "102311": 2})
    runs = find_runs(done.bids_dir)
    shown = {(run.subject, film.stim_file.name) for run in runs for film in run.films[:1]}
    assert ("100610", "7T_MOVIE2_HO1.mp4") in shown and ("102311", "7T_MOVIE2_HO1_v2.mp4") in shown
    assert "_den-91k_" in runs[0].bold[0].name
    assert not any("_1.6mm_" in path.name for path in done.runs["path"])
    before = sorted(path.stat().st_mtime_ns for path in done.bids_dir.rglob("*_events.tsv"))
    again = convert(mesh="32k", version={"100610": 1, "102311": 2})
    after = sorted(path.stat().st_mtime_ns for path in again.bids_dir.rglob("*_events.tsv"))
    assert before == after
    with pytest.raises(InputError, match="holds another conversion .mesh"):
        convert(version={"100610": 1, "102311": 2})


def test_film_times_of_ones_own(convert, tmp_path):
    """A film that did not begin with its run; a table in a file."""
    table = CLIPS.assign(film_start=CLIPS["onset"] - 8)
    path = tmp_path / "clips.tsv"
    table.to_csv(path, sep="\t", index=False)
    run = find_runs(convert(clips=path).bids_dir, subject="100610")[1]
    assert [film.footage[0] for film in run.films] == [12.0, 142.0, 292.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": CLIPS.drop(columns="clip")}, "the columns movie, clip, onset, duration"),
        ({"clips": CLIPS.assign(onset="soon")}, "a number in column onset"),
        ({"clips": CLIPS.assign(movie=CLIPS["movie"] + 1)}, "movies 1 to 4; got 5"),
        ({"clips": CLIPS.assign(duration=-1)}, "onsets and film_starts of 0 at least"),
        ({"clips": CLIPS.assign(duration=200)}, "must not overlap"),
        ({"clips": CLIPS[CLIPS["movie"] < 4]}, "rows for movie 4, version 2; got none"),
        ({"clips": CLIPS.assign(version=1)}, "rows for movie 1, version 2; got none"),
        ({"clips": CLIPS.assign(film_start=350)}, "lie within their film: a ends after"),
        (
            {"clips": CLIPS.assign(onset=np.where(CLIPS["movie"] == 2, CLIPS["onset"] + 90, 20),
                                   film_start=0).drop_duplicates(["movie", "onset"])},
            "must have been scanned: the last of run 2 ends at 45",
        ),
        ({"version": 3}, "say 1 or 2 for 100610; got 3"),
        ({"version": {"100610": 1}}, "say 1 or 2 for 102311; got None"),
        ({"mesh": "164k"}, "must be one of 59k, 32k"),
        ({"missing": "no"}, "'error' or 'skip'"),
        ({"subjects": ["999999"]}, "4 runs are missing, the first .*999999"),
        ({"source": "nowhere"}, "No such directory: nowhere"),
        ({"films": "nowhere"}, "No such directory: nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be(convert, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        convert(**options)
    assert not (tmp_path / "bids").exists() and not (tmp_path / "bids.partial").exists()


def test_partial_releases(tmp_path):
    root = tmp_path / "hcp"
    make_release(root, subjects=("100610",), meshes=("",))
    how = {"films": root / "films", "clips": CLIPS, "version": 2, "mesh": "32k", "verbose": 0}
    folder = root / "100610" / "MNINonLinear" / "Results" / "tfMRI_MOVIE3_7T_PA"
    [path] = folder.iterdir()
    second = path.with_name(path.name.replace("hp2000_clean", "hp2000_clean_rclean"))
    second.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="One file must be there for tfMRI_MOVIE3_7T_PA"):
        hcp7t_to_bids(root, tmp_path / "bids", **how)
    path.unlink()
    second.unlink()
    with pytest.raises(InputError, match="1 runs are missing, .* Go on with missing='skip'"):
        hcp7t_to_bids(root, tmp_path / "bids", **how)
    dry = hcp7t_to_bids(root, tmp_path / "bids", missing="skip", dry_run=True, **how)
    assert not dry.bids_dir.exists() and len(dry.runs) == 3
    done = hcp7t_to_bids(root, tmp_path / "bids", missing="skip", **how)
    assert [run.run for run in find_runs(done.bids_dir)] == ["1", "2", "4"]
