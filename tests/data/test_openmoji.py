"""The built-in drawings: an honest split, defined tasks, and a store that survives damage."""

import multiprocessing
import pickle
import re
from collections import defaultdict
from dataclasses import replace

import pytest

from harness.data.dataset import Split
from harness.data.images import decode
from harness.data.sources.openmoji import load_drawings, open_openmoji, split_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_openmoji(48, tmp_path_factory.mktemp("drawings"))


@pytest.fixture(scope="module")
def drawings(data):
    return load_drawings(data.svgs)


@pytest.fixture
def few(data, tmp_path):
    """The same data set cut down to three drawings, with a store of its own."""
    images = data.splits["test"].images[:3]
    return replace(data, splits={"test": Split(images, [()] * 3)}, store=tmp_path / "few.zip")


def combinations(drawings, split):
    return {
        (meaning.role, meaning.gender, meaning.tones)
        for drawing in drawings
        if split_of(drawing) == split
        for meaning in drawing.meanings
    }


def words(split):
    return {w for captions in split.captions for c in captions for w in re.findall(r"\w+", c)}


def test_sizes_of_the_splits(data):
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes["train"] + sizes["validation"] + sizes["test"] == data.indexed
    assert 3_000 <= sizes["train"] <= 3_300
    assert 200 <= sizes["validation"] <= 250
    assert 400 <= sizes["test"] <= 500


def test_held_out_combinations_are_new_and_made_of_known_parts(drawings):
    train = combinations(drawings, "train")
    held_out = combinations(drawings, "test") | combinations(drawings, "validation")
    assert len(held_out) > 600
    assert not held_out & train
    assert not combinations(drawings, "test") & combinations(drawings, "validation")
    for factor in range(2):
        assert {c[factor] for c in held_out} <= {c[factor] for c in train}
    known_tones = {(c[0], tone) for c in train for tone in c[2]}
    assert {tone for _, _, tones in held_out for tone in tones} <= {tone for _, tone in known_tones}


def test_every_word_of_a_held_out_caption_is_in_training(data):
    known = words(data.splits["train"])
    assert "health" in known
    assert words(data.splits["test"]) <= known
    assert words(data.splits["validation"]) <= known


def test_no_caption_is_in_two_splits_or_on_two_drawings(data):
    captions = [c for s in data.splits.values() for captions in s.captions for c in captions]
    assert len(captions) > 11_000
    assert len(set(captions)) == len(captions)


def test_captions_are_clean(data):
    for split in data.splits.values():
        for captions in split.captions:
            assert len(captions) >= 3
            for caption in captions:
                assert caption == " ".join(caption.split())
                assert not set(caption) & set(":_")


def test_equal_files_are_one_drawing_with_all_its_names(data, drawings):
    contents = [drawing.content for drawing in drawings]
    assert len(set(contents)) == len(contents)
    france = data.splits["train"].images.index("1F1E8-1F1F5")  # Clipperton, France, St. Martin
    assert "the flag of France" in data.splits["train"].captions[france]
    assert "the flag of St. Martin" in data.splits["train"].captions[france]


def test_yellow_drawings_are_never_said_to_have_a_skin_tone(drawings):
    # people wrestling, light and dark skin tone: a file equal to the one without tones
    assert "1F9D1-1F3FB-200D-1FAEF-200D-1F9D1-1F3FF" not in {d.image for d in drawings}
    assert all(len({m.tones for m in drawing.meanings}) == 1 for drawing in drawings)


def test_drawings_without_skin_tone_are_for_training(data):
    for split in ("validation", "test"):
        assert all("skin tone" in c for captions in data.splits[split].captions for c in captions)


def test_tasks_have_a_label_a_picture_and_every_class_in_training_and_test(data):
    tasks = {task.name: task for task in data.tasks}
    assert tasks["skin_tone"].classnames == (
        "light skin tone", "medium-light skin tone", "medium skin tone", "medium-dark skin tone",
        "dark skin tone",
    )  # fmt: skip
    assert tasks["gender"].classnames == ("a woman", "a man")
    assert {"a health worker", "a person biking"} <= set(tasks["role"].classnames)
    for task in data.tasks:
        classes = set(range(len(task.classnames)))
        for split, labels in task.labels.items():
            assert len(labels) == len(data.splits[split])
        assert set(task.labels["train"]) == set(task.labels["test"]) == classes | {-1}
        assert all("{c}" in template for template in task.templates)


def test_labels_of_one_drawing(data):
    split = next(s for s, v in data.splits.items() if "1F469-1F3FF-200D-2695-FE0F" in v.images)
    place = data.splits[split].images.index("1F469-1F3FF-200D-2695-FE0F")
    answers = {task.name: task.classnames[task.labels[split][place]] for task in data.tasks}
    assert data.splits[split].captions[place][0] == "a woman health worker with dark skin tone"
    assert answers == {
        "role": "a health worker", "gender": "a woman", "skin_tone": "dark skin tone"
    }  # fmt: skip


def test_a_drawing_for_man_and_person_alike_has_no_gender_label(drawings, data):
    shared = [d for d in drawings if {m.gender for m in d.meanings} >= {"man", "person"}]
    assert len(shared) > 50
    gender = next(task for task in data.tasks if task.name == "gender")
    label = {
        image: gender.labels[name][i]
        for name, split in data.splits.items()
        for i, image in enumerate(split.images)
    }
    assert {label[drawing.image] for drawing in shared} == {-1}


def test_fingerprint_is_of_the_content_and_the_resolution_not_of_the_place(data, tmp_path):
    assert open_openmoji(48, tmp_path).fingerprint == data.fingerprint
    assert open_openmoji(64, tmp_path).fingerprint != data.fingerprint


def test_pictures_alike_to_the_last_pixel_are_never_in_two_splits(data):
    data.prepare()
    places = defaultdict(set)
    for name, split in data.splits.items():
        for image in split.images:
            places[data.read(image)].add(name)
    assert len(places) > 3_600
    assert [split for split in places.values() if len(split) > 1] == []


def test_rendered_at_the_resolution_on_white(few):
    few.prepare()
    pixels = decode(few.read(few.splits["test"].images[0]), max_pixels=48 * 48)
    assert pixels.shape == (48, 48, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels.min() < 50


def test_same_drawings_make_the_same_store(few, tmp_path):
    few.prepare()
    again = replace(few, store=tmp_path / "again.zip")
    again.prepare()
    assert again.store.read_bytes() == few.store.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_store_is_made_anew(few, damage):
    few.prepare()
    whole = few.store.read_bytes()
    broken = bytearray(whole)
    broken[whole.rindex(b"IDAT") + 20] ^= 0xFF
    few.store.write_bytes({"cut": whole[:-500], "flip": bytes(broken), "empty": b""}[damage])
    few.prepare()
    assert few.store.read_bytes() == whole


def test_a_whole_store_is_left_alone(few):
    few.prepare()
    before = few.store.stat()
    few.prepare()
    after = few.store.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_several_processes_may_prepare_at_once(few):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=few.prepare) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert few.read(few.splits["test"].images[2]).startswith(b"\x89PNG")
    assert not [file for file in few.store.parent.iterdir() if file.name.startswith(".")]


def test_reads_the_same_after_pickling(few):
    few.prepare()
    image = few.splits["test"].images[1]
    assert pickle.loads(pickle.dumps(few)).read(image) == few.read(image)  # noqa: S301


def test_reading_before_preparing_is_an_error(few, tmp_path):
    with pytest.raises(FileNotFoundError, match="not rendered"):
        replace(few, store=tmp_path / "never made.zip").read(few.splits["test"].images[0])
