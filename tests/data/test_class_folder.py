"""A folder or zip with a sub-folder of pictures a class."""

import shutil

import pytest

from harness.config import ClassFolder
from harness.data.class_sets import open_class_folder
from harness.errors import DataError


@pytest.fixture
def animals(tmp_path):
    place = tmp_path / "animals"
    for name in ("polar-bear/2.jpg", "polar-bear/1.jpg", "sea_lion/x.PNG", "ant/deep/er/y.webp"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    (place / "README.txt").write_text("not a class")
    return place


def opened(path, **more):
    return open_class_folder(ClassFolder(name="zoo", path=str(path), **more))


def test_classes_labels_and_templates(animals):
    data = opened(animals, templates=("a photo of a {c}.", "a {c}"))
    assert data.name == "zoo"
    assert data.splits["test"].images == [
        "ant/deep/er/y.webp", "polar-bear/1.jpg", "polar-bear/2.jpg", "sea_lion/x.PNG"
    ]  # fmt: skip
    assert data.splits["test"].captions == [(), (), (), ()]
    (task,) = data.tasks
    assert task.name == "zoo"
    assert task.classnames == ("ant", "polar bear", "sea lion")
    assert task.labels == {"test": [0, 1, 1, 2]}
    assert task.templates == ("a photo of a {c}.", "a {c}")
    assert data.problems == ()
    assert data.read("sea_lion/x.PNG") == b"sea_lion/x.PNG"


@pytest.mark.parametrize("base_dir", ["animals", "."])
def test_a_zip_with_or_without_a_folder_around_the_classes(animals, base_dir):
    root = animals.parent if base_dir == "animals" else animals
    archive = shutil.make_archive(
        str(animals.parent / base_dir.strip(".")) + "z", "zip", root, base_dir
    )
    data = opened(archive)
    assert data.tasks[0].classnames == ("ant", "polar bear", "sea lion")
    assert data.tasks[0].labels == {"test": [0, 1, 1, 2]}


def test_a_file_that_is_no_picture_is_a_problem(animals):
    (animals / "ant" / "notes.doc").write_text("x")
    data = opened(animals)
    assert [(p.where, p.reason) for p in data.problems] == [
        ("ant/notes.doc", "not a picture by its suffix")
    ]
    assert data.indexed == 5
    assert len(data.splits["test"]) == 4


def test_fingerprint_is_of_the_content_not_of_the_place(animals, tmp_path):
    before = opened(animals).fingerprint
    assert opened(shutil.copytree(animals, tmp_path / "b")).fingerprint == before
    (animals / "ant" / "new.jpg").write_bytes(b"1")
    assert opened(animals).fingerprint != before


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ((), "no picture in any"),
        (("a.jpg", "b.jpg"), "no picture in any"),
        (("cat/a.jpg", "cat/b.jpg"), "pictures in 1 sub-folders"),
        (("cat/a.txt", "dog/b.txt"), "no picture in any"),
        (("train/cat/a.jpg", "val/cat/b.jpg"), "holds the splits train, val, not classes"),
    ],
)
def test_what_is_no_class_folder_says_so(tmp_path, files, reason):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=reason):
        opened(tmp_path)
