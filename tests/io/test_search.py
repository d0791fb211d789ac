"""Files by their labels: names inside the data set alone, BIDS' inheritance, .bidsignore."""

import json

import pytest

from brainnrds.io import InputError
from brainnrds.io._search import applicable, describe, list_files, matches, same_label


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


def listed(root, **options):
    files = [file for found in list_files(root, **options).values() for file in found]
    return {file.path.relative_to(root).as_posix(): file for file in files}


BOLD = "sub-01/ses-a/func/sub-01_ses-a_task-x_run-1_bold.nii.gz"


def test_names_are_read_and_folders_above_are_not(tmp_path):
    # each of these folders would give labels of its own
    root = make(tmp_path / "task-rest" / "sub-lab_acq-old" / "ses-2024" / "data", BOLD)
    assert listed(root)[BOLD].entities == {
        "subject": "01",
        "session": "a",
        "task": "x",
        "run": "1",
        "suffix": "bold",
        "extension": ".nii.gz",
    }
    assert describe(listed(root)[BOLD].labels) == "sub-01_ses-a_task-x_run-1"


def test_labels_come_from_folders_where_names_lack_them(tmp_path):
    make(tmp_path, "sub-01/ses-a/task-x_bold.nii.gz")
    [file] = listed(tmp_path).values()
    assert (file.entities["subject"], file.entities["session"]) == ("01", "a")
    make(tmp_path, "sub-02/func/sub-03_task-x_bold.nii.gz")
    with pytest.raises(InputError, match=r"sub-03_task-x_bold.nii.gz must be named as .* sub-02/"):
        listed(tmp_path)


def test_what_is_no_data_is_left_out(tmp_path):
    make(
        tmp_path,
        BOLD,
        "task-x_bold.json",
        "old/sub-01/func/sub-01_task-x_events.tsv",
        "sourcedata/sub-01/func/sub-01_task-x_bold.nii.gz",
        "sub-01/ses-a/beh/sub-01_ses-a_task-x_events.tsv",
        "sub-01/ses-a/func/.sub-01_task-x_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_run-1_run-2_bold.nii.gz",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_boldref.nii.gz",
        "sub-01/ses-a/func/notes_bold.txt",
    )
    assert set(listed(tmp_path)) == {BOLD, "task-x_bold.json"}
    assert set(listed(tmp_path, subjects=["02"])) == {"task-x_bold.json"}


@pytest.mark.parametrize(
    ("line", "ignored"),
    [
        ("sub-01/", True),
        ("/sub-01", True),
        ("*_bold.nii.gz", True),
        ("**/func/", True),
        ("sub-*/ses-?/func/*", True),
        ("func", True),
        ("ses-a/func", False),  # a slash inside: from the root
        ("*_events.tsv", False),
        ("# sub-01/", False),
        ("sub-01/\n!*_run-1_*", False),
    ],
)
def test_bidsignore(tmp_path, line, ignored):
    make(tmp_path, BOLD)
    (tmp_path / ".bidsignore").write_text(f"\n{line}\n")
    assert (BOLD not in listed(tmp_path, bidsignore=True)) == ignored
    assert BOLD in listed(tmp_path)  # derivatives list there what is to be read


def test_links_in_circles_end(tmp_path):
    make(tmp_path, BOLD)
    (tmp_path / "sub-01" / "again").symlink_to("..")
    assert BOLD in listed(tmp_path)


def test_database(tmp_path):
    root, database = make(tmp_path / "bids", BOLD, "task-x_bold.json"), tmp_path / "db" / "raw.json"
    first = list_files(root, subjects=["02"], database=database)
    assert list_files(root, database=database) == first == list_files(root)
    with pytest.raises(InputError, match="is of .*bids; expected"):
        list_files(tmp_path, database=database)
    (root / "task-x_bold.json").unlink()
    with pytest.raises(InputError, match="out of date: task-x_bold.json is gone"):
        list_files(root, database=database)
    content = json.loads(database.read_text())
    for files in (["../bids/task-x_bold.json"], ["/etc/passwd"], [3], "task-x_bold.json", None):
        database.write_text(json.dumps({**content, "files": files}))
        with pytest.raises(InputError, match="must list files"):
            list_files(root, database=database)
    database.write_bytes(b"SQLite format 3\0")
    with pytest.raises(InputError, match="readable JSON"):
        list_files(root, database=database)


def test_inheritance_by_folder_and_by_label(tmp_path):
    names = [
        "task-x_bold.json",
        "bold.json",
        "task-y_bold.json",
        "sub-01/sub-01_bold.json",
        "sub-01/ses-b/ses-b_task-x_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_run-01_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_run-2_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_acq-y_run-1_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_echo-1_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_echo-2_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_part-phase_bold.json",
    ]
    files = list_files(make(tmp_path, *names))
    labels = {"subject": "01", "session": "a", "task": "x", "run": "1"}
    folder = ("sub-01", "ses-a", "func")
    found = applicable(files, labels, folder, suffix="bold", extension=".json")
    expected = [names[1], names[0], names[3], names[5], names[9], names[6]]
    assert sorted(p.relative_to(tmp_path).as_posix() for p in found) == sorted(expected)
    assert found[-1].name.endswith(("run-01_bold.json", "echo-1_bold.json"))
    assert found[0].name == "bold.json"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1", "01", True),
        ("1", "10", False),
        ("a", "A", False),
        ("²", "2", False),
        ("0", "00", True),
    ],
)
def test_labels_are_numbers_where_they_are_digits(first, second, same):
    assert same_label(first, second) == same
    assert same_label("9" * 5000, "0" + "9" * 5000)
    assert same_label("0", "00")


def test_a_label_may_be_asked_to_be_absent():
    assert matches({"desc": "preproc"}, "desc", ["preproc", None])
    assert matches({}, "desc", ["preproc", None])
    assert not matches({}, "desc", "preproc")
    assert not matches({"desc": "None"}, "desc", None)
