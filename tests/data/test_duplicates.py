"""The same picture twice, under other names, in other splits and classes, read or not."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.commands.data import main
from harness.config import ClassFolder, Runtime
from harness.data.account import Leakage
from harness.data.catalog import notes_on
from harness.data.class_sets import open_class_folder
from harness.data.dataset import DataSet
from harness.data.duplicates import find_duplicates
from harness.data.sources.folder import open_folder
from harness.data.sources.shards import open_shards
from tests.data.shardfiles import write_tar


def picture(number: int) -> bytes:
    """A PNG of its own content; those of one hundred have one size."""
    pixels = np.full((9, 9, 3), number // 100, np.uint8)
    pixels[0, 0] = number % 100 + 1
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def captioned(root: Path, pictures: dict[str, tuple[str, int]]) -> Path:
    """`pictures`: name -> split, and number of its content."""
    root.mkdir(parents=True, exist_ok=True)
    rows = ["image,caption,split"]
    for name, (split, number) in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
        rows.append(f"{name},a picture called {name},{split}")
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    return root


LEAKING = {
    "a/1.png": ("train", 1),
    "a/2.png": ("train", 2),
    "a/3.png": ("train", 3),
    "a/again.png": ("train", 1),
    "b/x.png": ("test", 1),
    "b/y.png": ("test", 2),
    "b/z.png": ("test", 9),
    "c/v.png": ("validation", 2),
}


def test_leakage_is_of_content_whatever_the_names(tmp_path: Path) -> None:
    data = open_folder(str(captioned(tmp_path / "set", LEAKING)))
    assert find_duplicates(data, tmp_path).across == (
        Leakage(("test", "train"), 1, ("b/x.png", "a/1.png")),
        Leakage(("test", "train", "validation"), 1, ("b/y.png", "a/2.png", "c/v.png")),
    )
    assert notes_on(data, Runtime(cache=str(tmp_path)))[-2:] == [
        "leakage between splits: 1 picture of test and of train, such as b/x.png = a/1.png",
        "leakage between splits: 1 picture of test and of train and of validation, such as "
        "b/y.png = a/2.png = c/v.png",
    ]


def test_equal_sizes_and_beginnings_are_no_equal_content(tmp_path: Path) -> None:
    root = captioned(tmp_path / "set", {"1.png": ("train", 1), "2.png": ("test", 1)})
    long = bytes(10_000)
    (root / "1.png").write_bytes(picture(1) + long + b"x")
    (root / "2.png").write_bytes(picture(1) + long + b"y")
    assert find_duplicates(open_folder(str(root)), tmp_path).across == ()
    (root / "2.png").write_bytes(picture(1) + long + b"x")
    words = ["check", str(root), "--workers", "1", "--cache", str(tmp_path)]
    assert main([*words, "--max-bad-fraction", "1"]) == 0  # which looks at all, and keeps it
    assert find_duplicates(open_folder(str(root)), tmp_path).across != ()


def test_it_is_looked_for_once_and_reads_no_more_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {f"{i}.png": ("train", i) for i in range(30)} | {"t.png": ("test", 7)}
    root = captioned(tmp_path / "set", pictures)
    (root / "5.png").write_bytes(picture(5) + b"another size")
    read: list[str] = []

    def counted(data: DataSet) -> DataSet:
        whole = type(data).read
        monkeypatch.setattr(type(data), "read", lambda d, n: read.append(n) or whole(d, n))
        return data

    data = counted(open_folder(str(root)))
    first = find_duplicates(data, tmp_path)
    assert sorted(read) == ["7.png", "t.png"]  # of the others the beginnings alone
    assert find_duplicates(data, tmp_path) == first
    assert len(read) == 2
    kept = next((tmp_path / "duplicates").glob("*.json"))
    kept.write_text("{")
    assert find_duplicates(data, tmp_path) == first


def test_of_a_zip_the_checksums_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = captioned(tmp_path / "set", LEAKING)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, str(file.relative_to(root)))
    data = open_folder(str(tmp_path / "set.zip"))
    monkeypatch.delattr(type(data), "read")
    assert [each.pictures for each in find_duplicates(data, tmp_path).across] == [1, 1]


def test_shards_have_them_too(tmp_path: Path) -> None:
    for split, numbers in (("train", (1, 2, 3)), ("test", (9, 2))):
        members = [
            member
            for n in numbers
            for member in ((f"{split}{n}.png", picture(n)), (f"{split}{n}.txt", b"a caption"))
        ]
        write_tar(tmp_path / "set" / split / "0.tar", *members)
    data = open_shards(str(tmp_path / "set"), tmp_path / "cache")
    (leak,) = find_duplicates(data, tmp_path / "cache").across
    assert (leak.splits, leak.pictures) == (("test", "train"), 1)
    assert [name.split("@")[0] for name in leak.example] == [
        "test/0.tar/test2.png",
        "train/0.tar/train2.png",
    ]


def test_one_picture_in_two_classes_is_told(tmp_path: Path) -> None:
    for name, number in {"cat/1": 1, "cat/2": 2, "cat/3": 1, "dog/1": 4, "dog/2": 1}.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / f"{name}.png").write_bytes(picture(number))
    data = open_class_folder(ClassFolder(name="zoo", path=str(tmp_path / "set")))
    assert find_duplicates(data, tmp_path).lines(data) == [
        "in several classes: 1 picture of cat and of dog, such as cat/1.png = dog/2.png"
    ]


def test_check_counts_repeats_as_well_and_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = captioned(tmp_path / "set", LEAKING | {"broken.png": ("test", 11)})
    (root / "broken.png").write_bytes(b"<html>")
    words = ["check", str(root), "--workers", "1", "--cache", str(tmp_path / "cache")]
    assert main([*words, "--json", "--max-bad-fraction", "1"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["duplicates"] == {
        "within": {"train": 1},
        "across": [
            {"splits": ["test", "train"], "pictures": 1, "example": ["b/x.png", "a/1.png"]},
            {
                "splits": ["test", "train", "validation"],
                "pictures": 1,
                "example": ["b/y.png", "a/2.png", "c/v.png"],
            },
        ],
    }
    assert main([*words, "--max-bad-fraction", "1"]) == 0
    said = capsys.readouterr().out
    assert "note: leakage between splits: 1 picture of test and of train," in said
    assert "repeated: 1 picture has the content of another in train" in said


def test_a_data_set_without_sizes_is_not_looked_into(tmp_path: Path) -> None:
    class Unsized(DataSet):
        def read(self, image: str) -> bytes:
            raise AssertionError

    assert find_duplicates(Unsized("x", "f", "e", {}), tmp_path).across == ()


def test_a_thin_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = captioned(tmp_path / "set", {"a.png": ("train", 1), "thin.png": ("test", 2)})
    Image.new("L", (3, 200)).save(root / "thin.png")
    assert main(["check", str(root), "--workers", "1", "--cache", str(tmp_path / "cache")]) == 0
    assert "thin.png, 3 x 200" in capsys.readouterr().out
