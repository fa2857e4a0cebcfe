"""Records of benchmarks, where they are found, and how labels get their names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.dataset import DataSet
from harness.errors import ConfigError, DataError
from harness.evaluate.suites import BENCHMARKS, SUITES, benchmarks_of, suite
from harness.evaluate.suites.find import Found, Hole, find
from harness.evaluate.suites.open import open_found
from harness.evaluate.suites.records import Benchmark, Builder, ClassNames
from tests.evaluate.benchmark_cases import (
    CAPTIONS,
    CLASSES,
    caption_folder,
    class_folder,
    png,
    retrieval_webdataset,
    shard,
    webdataset,
)


def opened(benchmark: Benchmark, root: Path) -> DataSet:
    found = find(benchmark, str(root))
    assert isinstance(found, Found), found
    return open_found(found, root / "cache")


# --------------------------------------------------------------------------- records


def test_the_customary_eleven_and_what_they_are_judged_by() -> None:
    judged = {b.name: b.metrics for b in SUITES["lightclip11"]}
    per_class = {name for name, m in judged.items() if m == ("mean_per_class_recall",)}
    assert len(judged) == 11
    assert per_class == {"caltech101", "fgvc_aircraft", "flowers102", "pets"}
    assert all(judged[name] == ("acc1",) for name in judged.keys() - per_class)


def test_retrieval_is_on_karpathys_splits() -> None:
    sizes = {b.name: (b.samples, b.captions) for b in SUITES["retrieval"]}
    assert sizes == {"flickr30k": (1000, 5000), "mscoco": (5000, 25010), "flickr8k": (1000, 5000)}


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_record_is_whole(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert benchmark.samples > 0 or benchmark.task == "choice"
    if benchmark.task == "classification":
        assert benchmark.classes is not None
        assert benchmark.chance == pytest.approx(1 / benchmark.classes)
        if benchmark.hub is not None:
            assert benchmark.prompts is not None
            assert all("{c}" in template for template in benchmark.prompts.templates)
        if benchmark.classnames is not None:
            assert len(benchmark.classnames.names) >= benchmark.classes
    elif benchmark.task == "choice":
        assert benchmark.is_built_in != bool(benchmark.fetch_command("DATA"))
    else:
        assert (benchmark.captions is not None, benchmark.chance) == (True, None)


def test_imagenet_has_eighty_templates_and_a_synset_for_every_name() -> None:
    imagenet = BENCHMARKS["imagenet1k"]
    assert imagenet.prompts is not None
    assert imagenet.classnames is not None
    assert len(imagenet.prompts.templates) == 80
    assert len(imagenet.classnames.names) == len(imagenet.classnames.ids) == 1000
    place = imagenet.classnames.ids.index("n01440764")
    assert imagenet.classnames.names[place] == "tench"


def test_an_unknown_suite_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown suite 'lightclip'; nearest: lightclip11"):
        suite("lightclip")


def test_a_set_of_two_suites_is_evaluated_once() -> None:
    names = [b.name for b in benchmarks_of(["cifar10", "lightclip11"])]
    assert names.count("cifar10") == 1
    assert len(names) == 11


def test_records_and_looking_for_them_import_no_torch() -> None:
    code = (
        "import sys, harness.evaluate.suites as s, harness.evaluate.suites.open\n"
        "from harness.evaluate.suites.find import find\n"
        "[find(b, None) for b in s.BENCHMARKS.values()]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------- finding


def test_what_is_not_there_is_a_hole_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    hole = find(BENCHMARKS["cars"], str(tmp_path))
    assert isinstance(hole, Hole)
    assert str(hole) == (
        f"cars: not below {tmp_path} (looked for cars/ and cars.zip); this fetches it: "
        "hf download clip-benchmark/wds_cars --repo-type dataset --include 'test/*' '*.txt' "
        f"--local-dir {tmp_path}/cars"
    )
    assert "no data root is given" in str(find(BENCHMARKS["cars"], None))
    assert "there is no folder" in str(find(BENCHMARKS["cars"], str(tmp_path / "no")))


@pytest.mark.parametrize("inner", ["", "test", "zip"])
def test_class_folders_are_found_in_their_customary_places(tmp_path: Path, inner: str) -> None:
    if inner == "zip":
        class_folder(tmp_path / "made")
        shutil.make_archive(str(tmp_path / "patches" / "test"), "zip", tmp_path / "made")
    else:
        class_folder(tmp_path / "patches" / inner)
    data = opened(CLASSES, tmp_path)
    assert data.tasks[0].classnames == ("blue", "green", "red")
    assert list(data.tasks[0].labels["test"]) == [0, 0, 1, 1, 2, 2]


def test_clip_benchmarks_layout_is_read_by_its_own_labels_and_names(tmp_path: Path) -> None:
    webdataset(tmp_path / "patches")
    data = opened(CLASSES, tmp_path)
    task, split = data.tasks[0], data.split("test")
    assert task.classnames == ("red", "green", "blue")
    assert sorted(task.labels["test"]) == [0, 0, 1, 1, 2, 2]
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    for image, label in zip(split.images, task.labels["test"], strict=True):
        colour = colours[task.classnames[label]]
        assert data.read(image) in {png(colour, 0), png(colour, 10)}


def test_captions_of_a_table_and_of_clip_benchmarks_layout(tmp_path: Path) -> None:
    caption_folder(tmp_path / "a" / "told")
    retrieval_webdataset(tmp_path / "b" / "told")
    table = opened(CAPTIONS, tmp_path / "a").split("test")
    tars = opened(CAPTIONS, tmp_path / "b").split("test")
    assert sorted(table.captions) == [("blue",), ("green",), ("red", "a red one")]
    # A line separator within a caption does not make it two.
    assert tars.captions == [("red", "a red one"), ("green",), ("blue",)]


def test_captions_that_name_no_split_are_all_of_the_test_set(tmp_path: Path) -> None:
    folder = caption_folder(tmp_path / "told")
    rows = [row.split(",") for row in (folder / "captions.csv").read_text().splitlines()]
    kept = "".join(f"{image},{text}\n" for image, split, text in rows if split != "train")
    (folder / "captions.csv").write_text(kept)
    assert sorted(opened(CAPTIONS, tmp_path).split("test").captions) == [
        ("blue",), ("green",), ("red", "a red one"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [b"", b" \n", b"\xff", b"red\n&nbsp;", b"null"])
def test_a_bad_caption_is_told_with_its_shard_and_key(tmp_path: Path, text: bytes) -> None:
    folder = retrieval_webdataset(tmp_path / "told")
    members = {"0.jpg": png((255, 0, 0)), "0.txt": b"red", "1.jpg": png((0, 255, 0)), "1.txt": text}
    shard(folder / "test" / "0.tar", members)
    with pytest.raises(DataError, match=r"told/test/0\.tar/1: .*caption"):
        opened(CAPTIONS, tmp_path)


def test_torchvisions_layout_is_opened_by_clip_benchmarks_builder(tmp_path: Path) -> None:
    meta, images = tmp_path / "food-101" / "meta", tmp_path / "food-101" / "images"
    meta.mkdir(parents=True)
    files = {"apple_pie": ["apple_pie/1", "apple_pie/2"], "ramen": ["ramen/3"]}
    import json

    (meta / "test.json").write_text(json.dumps(files))
    for names in files.values():
        for name in names:
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            (images / f"{name}.jpg").write_bytes(png((5, 6, 7)))
    food = replace(
        CLASSES, name="food", samples=3, classes=2, builder=Builder("food101", "food-101")
    )
    data = opened(food, tmp_path)
    assert data.tasks[0].classnames == ("apple pie", "ramen")
    assert list(data.tasks[0].labels["test"]) == [0, 0, 1]
    from harness.data.images import decode

    pixels = decode(data.read(data.split("test").images[2]), max_pixels=100)
    assert np.array_equal(pixels[0, 0], (5, 6, 7))


# --------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 7}, "holds 6 pictures, and Patches has 7 in its split test"),
        ({"classes": 4}, "holds 3 classes, and Patches has 4"),
    ],
)
def test_another_number_than_the_benchmarks_is_refused(
    tmp_path: Path, change: dict[str, int], message: str
) -> None:
    class_folder(tmp_path / "patches")
    with pytest.raises(DataError, match=message):
        opened(replace(CLASSES, **change), tmp_path)  # type: ignore[arg-type]


def test_torn_and_incomplete_shards_are_refused(tmp_path: Path) -> None:
    folder = webdataset(tmp_path / "patches")
    shutil.copytree(folder, tmp_path / "torn" / "patches")
    torn = tmp_path / "torn" / "patches" / "test" / "0.tar"
    torn.write_bytes(torn.read_bytes()[:700])
    with pytest.raises(DataError, match=r"0\.tar"):
        opened(CLASSES, tmp_path / "torn")
    shard(folder / "test" / "0.tar", {"a.png": png((1, 2, 3))})
    with pytest.raises(DataError, match=r"sample a has no \.cls"):
        opened(CLASSES, tmp_path)
    (folder / "test" / "1.tar").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 2 shards, such as 1\.tar"):
        opened(CLASSES, tmp_path)


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    folder = webdataset(tmp_path / "patches")
    (folder / "classnames.txt").write_text("red\ngreen\n")
    with pytest.raises(DataError, match="label '2' is none of 2 classes"):
        opened(CLASSES, tmp_path)


# --------------------------------------------------------------------------- class names


CURATED = replace(CLASSES, classnames=ClassNames("mnist"), classes=3)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        # By number, from 0, whatever the order of the folders as text.
        ({"red": "10", "green": "2", "blue": "0"}, None),
        ({"red": "n02", "green": "n00", "blue": "n01"}, "no class"),
    ],
)
def test_folders_are_never_matched_to_curated_names_by_their_order(
    tmp_path: Path, folders: dict[str, str], names: str | None
) -> None:
    class_folder(tmp_path / "patches", folders)
    many = replace(CLASSES, classnames=ClassNames("imagenet1k", "imagenet_synsets.txt"))
    if names is not None:
        with pytest.raises(DataError, match="is of no class"):
            opened(many, tmp_path)
        return
    task = opened(many, tmp_path).tasks[0]
    imagenet = ClassNames("imagenet1k").names
    assert task.classnames == (imagenet[0], imagenet[2], imagenet[10])


def test_wordnet_folders_have_the_names_of_their_ids(tmp_path: Path) -> None:
    ids = {"red": "n01443537", "green": "n01440764", "blue": "n01484850"}
    class_folder(tmp_path / "patches", ids)
    many = replace(CLASSES, classnames=ClassNames("imagenet1k", "imagenet_synsets.txt"))
    data = opened(many, tmp_path)
    assert data.tasks[0].classnames == ("tench", "goldfish", "great white shark")
    by_image = dict(zip(data.split("test").images, data.tasks[0].labels["test"], strict=True))
    assert by_image["n01440764/0.png"] == 0
    assert by_image["n01443537/0.png"] == 1


def test_five_captions_are_five_lines_and_a_record_wins(tmp_path: Path) -> None:
    five = replace(CAPTIONS, samples=2, captions=6)
    texts = b"one\r\ntwo\n\nthree\nfour\nfive\n"
    members = {"a.png": png((1, 2, 3)), "a.txt": texts, "b.png": png((3, 2, 1))}
    record = {"b.txt": b"in\ntwo", "b.json": b'{"caption": "in\\ntwo"}'}
    shard(tmp_path / "told" / "test" / "0.tar", members | record)
    (tmp_path / "told" / "test" / "nshards.txt").write_text("1")
    captions = list(opened(five, tmp_path).split("test").captions)
    assert captions == [("one", "two", "three", "four", "five"), ("in two",)]


# --------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_follows_content_and_definition_and_no_path(tmp_path: Path) -> None:
    def fingerprint(benchmark: Benchmark, root: Path) -> str:
        found = find(benchmark, str(root))
        assert isinstance(found, Found)
        return found.fingerprint

    from harness.evaluate.suites import find as module

    class_folder(tmp_path / "a" / "patches")
    class_folder(tmp_path / "b" / "patches")
    same = fingerprint(CLASSES, tmp_path / "a")
    assert fingerprint(CLASSES, tmp_path / "b") == same
    (tmp_path / "b" / "patches" / "red" / "0.png").write_bytes(png((1, 2, 3)) + b"0")
    module._content.cache_clear()
    from harness.evaluate.suites.records import Prompts

    others = {
        fingerprint(CLASSES, tmp_path / "b"),
        fingerprint(replace(CLASSES, prompts=Prompts("food101")), tmp_path / "a"),
        fingerprint(replace(CLASSES, split="val"), tmp_path / "a"),
        fingerprint(replace(CLASSES, samples=5), tmp_path / "a"),
    }
    assert len({same, *others}) == 5
    assert fingerprint(replace(CLASSES, title="P", source="x"), tmp_path / "a") == same
