"""What a check tells: every row a sample or a counted problem, and how the splits came about."""

import json

import pytest

from harness.commands.data import main
from tests.conftest import drawings
from tests.data.shardfiles import shape_shards


@pytest.fixture
def five_each(tmp_path):
    """Ten drawings with five captions each, one caption a line of the table."""
    folder = tmp_path / "set"
    folder.mkdir()
    rows = ["image,caption,split"]
    for number, (name, (png, colour, shape)) in enumerate(drawings(10).items()):
        (folder / name).write_bytes(png)
        split = "train" if number < 8 else "test"
        rows += [f"{name},a {colour} {shape} {i},{split}" for i in range(5)]
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


def told(path, tmp_path, capsys, *options):
    """The exit code, and the tree of `--json`."""
    words = ["check", str(path), "--json", "--workers", "1", "--cache", str(tmp_path / "cache")]
    code = main([*words, *options])
    return code, json.loads(capsys.readouterr().out)


def test_files_splits_and_rows(five_each, tmp_path, capsys):
    code, tree = told(five_each, tmp_path, capsys)
    assert code == 0
    assert tree["schema"] == 1
    assert tree["refused"] is None
    assert tree["files"] == [{"file": "captions.csv", "rows": 50, "used": 50, "reason": None}]
    origin = "its column or field split"
    assert tree["splits"] == {
        "test": {"pictures": 2, "captions": 10, "origin": origin},
        "train": {"pictures": 8, "captions": 40, "origin": origin},
    }
    assert (tree["seen"], tree["usable"], tree["problems"], tree["notes"]) == (50, 50, [], [])
    assert tree["duplicates"] == {"within": {}, "across": []}
    assert set(tree["captions"]) == {"longest", "shortest"}


def test_a_broken_picture_takes_all_its_rows_with_it(five_each, tmp_path, capsys):
    (five_each / "003.png").write_bytes(b"GIF89a?")
    code, tree = told(five_each, tmp_path, capsys, "--max-bad-fraction", "0.09")
    assert code == 3  # 5 of 50 rows, though it is one of 50 things looked at
    assert (tree["seen"], tree["usable"]) == (50, 45)
    [problem] = tree["problems"]
    assert (problem["file"], problem["row"], problem["count"]) == ("003.png", None, 5)
    assert told(five_each, tmp_path, capsys, "--max-bad-fraction", "0.1")[0] == 0


def test_problems_name_file_and_row(five_each, tmp_path, capsys):
    with (five_each / "captions.csv").open("a") as file:
        file.write("\nlost.png,a bird,train\n000.png,,train\nlost.png,another,train\n")
    code, tree = told(five_each, tmp_path, capsys)
    assert code == 3
    assert tree["problems"] == [
        {"file": "captions.csv", "row": 52, "reason": "picture is not there", "count": 2},
        {"file": "captions.csv", "row": 53, "reason": "empty caption", "count": 1},
    ]
    assert (tree["seen"], tree["usable"]) == (53, 50)
    assert tree["files"][0]["reason"] == "2 x picture is not there; 1 x empty caption"


def test_shards_are_files_and_their_samples_rows(tmp_path, capsys):
    folder = shape_shards(tmp_path / "set", [3, 2])
    code, tree = told(folder, tmp_path, capsys)
    assert code == 0
    assert [(f["file"], f["rows"], f["used"]) for f in tree["files"]] == [
        ("train/000.tar", 3, 3),
        ("train/001.tar", 2, 2),
    ]
    assert tree["splits"]["train"]["pictures"] == 5
    assert tree["notes"] == ["there is no split test: metrics on it cannot be asked for"]


def test_refused_data_are_told_in_json_and_on_the_last_line(tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "captions.csv").write_text("image,caption\nlost.png,a bird\n")
    words = ["check", str(folder), "--cache", str(tmp_path / "cache")]
    assert main([*words, "--json"]) == 2
    printed = capsys.readouterr()
    tree = json.loads(printed.out)
    assert tree["refused"].startswith("no usable pair in")
    assert printed.err == f"error: {tree['refused']}\n"
    assert tree["files"][0]["rows"] == 1
    assert tree["problems"][0]["reason"] == "picture is not there"
    assert (tree["seen"], tree["usable"]) == (1, 0)
    assert main(words) == 2
    assert "captions.csv" in capsys.readouterr().out


def test_nothing_there_is_refused_in_json_too(tmp_path, capsys):
    code, tree = told(tmp_path / "nowhere", tmp_path, capsys)
    assert code == 2
    assert tree["refused"].startswith("no data at")


def test_the_tables_and_the_notes_are_printed(five_each, tmp_path, capsys):
    table = (five_each / "captions.csv").read_text().replace(",test", ",holdout")
    (five_each / "captions.csv").write_text(table)
    main(["check", str(five_each), "--workers", "1", "--cache", str(tmp_path / "cache")])
    printed = capsys.readouterr().out
    for words in (
        "captions.csv",
        "holdout",
        "its column or field split",
        "longest caption:",
        "note: there is no split test",
        "note: split 'holdout' is neither trained on nor tested",
        "usable: 0.00% unusable",
    ):
        assert words in printed
