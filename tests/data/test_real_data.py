"""The sources on real folders; HARNESS_TEST_DATA names one that holds flickr8k and cifar10."""

import os
from pathlib import Path

import pytest

from harness.config import ClassFolder
from harness.data.class_sets import open_class_folder
from harness.data.images import decode
from harness.data.sources.folder import open_folder


def real(name: str) -> Path:
    root = os.environ.get("HARNESS_TEST_DATA")
    if not root or not (Path(root) / name).exists():
        pytest.skip(f"HARNESS_TEST_DATA names no folder that holds {name}")
    return Path(root) / name


def test_flickr8k_by_its_folder():
    data = open_folder(str(real("flickr8k")))
    sizes = {n: (len(s), sum(len(c) for c in s.captions)) for n, s in data.splits.items()}
    assert sizes == {
        "train": (6_000, 30_000), "validation": (1_000, 5_000), "test": (1_000, 5_000),
        "extra": (91, 455),
    }  # fmt: skip
    assert data.indexed == 40_455
    assert data.problems == ()
    first = data.splits["train"].images[0]
    assert first == "1000268201_693b08cb0e.jpg"
    assert data.splits["train"].captions[0][1] == "A girl going into a wooden building ."
    assert decode(data.read(first), max_pixels=128 * 128).shape == (128, 128, 3)


def test_cifar10_by_its_zip():
    data = open_class_folder(ClassFolder(name="cifar10", path=str(real("cifar10") / "test.zip")))
    (task,) = data.tasks
    assert task.classnames == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    assert [task.labels["test"].count(label) for label in range(10)] == [1_000] * 10
    picture = decode(data.read(data.splits["test"].images[-1]), max_pixels=32 * 32)
    assert picture.shape == (32, 32, 3)
