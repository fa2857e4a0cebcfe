"""webdataset shards: found, indexed once, read by seek, and bounded when broken."""

import json
import os
import pickle
from pathlib import Path

import pytest

from harness.data import index as module
from harness.data.sources import shards
from harness.data.sources.shards import open_shards
from harness.data.tars import read_shard
from harness.errors import DataError
from tests.data.shardfiles import pair, write_tar


@pytest.fixture
def folder(tmp_path):
    """Two shards of two samples each."""
    place = tmp_path / "cc3m"
    write_tar(place / "cc-000000.tar", *pair("000", "one"), *pair("001", "two"))
    write_tar(place / "cc-000001.tar", *pair("000", "three"), *pair("001", "caf\u00e9"))
    return place


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def reasons(data):
    return [(problem.where, problem.reason) for problem in data.problems]


def test_samples_in_order_with_their_captions_and_bytes(folder, cache):
    data = open_shards(str(folder), cache)
    train = data.split("train")
    assert data.name == "cc3m"
    assert list(data.splits) == ["train"]
    assert list(train.captions) == [("one",), ("two",), ("three",), ("caf\u00e9",)]
    assert [name.partition("@")[0] for name in train.images] == [
        "train/cc-000000.tar/000.jpg",
        "train/cc-000000.tar/001.jpg",
        "train/cc-000001.tar/000.jpg",
        "train/cc-000001.tar/001.jpg",
    ]
    assert [data.read(name) for name in train.images] == [
        b"picture 000", b"picture 001", b"picture 000", b"picture 001"
    ]  # fmt: skip
    assert (data.indexed, data.problems) == (4, ())


def test_sequences_behave_like_lists(folder, cache):
    captions = open_shards(str(folder), cache).split("train").captions
    assert captions[-1] == ("caf\u00e9",)
    assert captions[1:3] == [("two",), ("three",)]
    with pytest.raises(IndexError):
        captions[4]


@pytest.mark.parametrize(
    ("pattern", "captions"),
    [
        ("", ["one", "two", "three", "caf\u00e9"]),
        ("/cc-{000000..000001}.tar", ["one", "two", "three", "caf\u00e9"]),
        ("/cc-*1.tar", ["three", "caf\u00e9"]),
        ("/cc-000000.tar", ["one", "two"]),
    ],
)
def test_folder_range_glob_or_file(folder, cache, pattern, captions):
    data = open_shards(f"{folder}{pattern}", cache)
    assert [caption for (caption,) in data.split("train").captions] == captions
    assert data.name == "cc3m"


def test_sub_folders_named_after_splits(tmp_path, cache):
    for split in ("train", "val", "test", "other"):
        write_tar(tmp_path / "set" / split / "0.tar", *pair("x", split))
    data = open_shards(str(tmp_path / "set"), cache)
    assert {name: list(split.captions) for name, split in data.splits.items()} == {
        "test": [("test",)],
        "train": [("train",)],
        "validation": [("val",)],
    }
    assert data.read(data.split("test").images[0]) == b"picture x"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("/nothing", "no shard at .*/nothing"),
        ("/cc-{000000..000002}.tar", r"no shard at .*cc-000002\.tar, of .*\{000000"),
        ("/cc-{0..1.tar", "is no brace range"),
    ],
)
def test_shards_that_are_not_there(folder, cache, pattern, reason):
    with pytest.raises(DataError, match=reason):
        open_shards(f"{folder}{pattern}", cache)


def test_an_empty_folder(tmp_path, cache):
    with pytest.raises(DataError, match=r"no shard at .*; looked for \.tar files"):
        open_shards(str(tmp_path), cache)


def test_two_shards_of_one_name(tmp_path, cache):
    for part in ("a", "b"):
        write_tar(tmp_path / part / "0.tar", *pair("x"))
    with pytest.raises(DataError, match=r"two shards called train/0\.tar"):
        open_shards(f"{tmp_path}/{{a,b}}/0.tar", cache)


# ----------------------------------------------------------------- identity and index


def test_fingerprint_needs_no_index_and_does_not_follow_the_place(folder, cache, tmp_path):
    before = open_shards(str(folder), cache).fingerprint
    assert not cache.exists()
    folder.rename(tmp_path / "moved")
    assert open_shards(str(tmp_path / "moved"), cache).fingerprint == before
    write_tar(tmp_path / "moved" / "cc-000002.tar", *pair("000"))
    assert open_shards(str(tmp_path / "moved"), cache).fingerprint != before


def test_tars_are_read_once(folder, cache, monkeypatch):
    first = open_shards(str(folder), cache)
    expected = list(first.split("train").images)

    def never(path, name):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(module, "read_shard", never)
    again = open_shards(str(folder), cache)
    again.prepare()
    assert list(again.split("train").images) == expected
    assert again.indexed == 4


def test_several_processes_make_the_same_index(folder, cache, tmp_path):
    open_shards(str(folder), cache).make_index()
    other = open_shards(str(folder), tmp_path / "other")
    other.make_index(jobs=2)
    kept = {p.relative_to(cache): p.read_bytes() for p in cache.rglob("*") if p.suffix != ".lock"
            and p.is_file()}  # fmt: skip
    made = tmp_path / "other"
    assert {name: (made / name).read_bytes() for name in kept} == kept
    assert other.read(other.split("train").images[3]) == b"picture 001"


def test_tars_stay_open_and_forked_readers_do_not_disturb_one_another(folder, cache, monkeypatch):
    data = open_shards(str(folder), cache)
    images, opened = list(data.split("train").images), []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *more: opened.append(path.name) or
                        real(path, *more))  # fmt: skip
    expected = [data.read(name) for name in images]
    assert opened == ["cc-000000.tar", "cc-000001.tar"]
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            order = images[number:] + images[:number]
            right = all(
                data.read(n) == expected[images.index(n)] for _ in range(200) for n in order
            )
            os._exit(0 if right and len(opened) == 2 else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_no_more_tars_stay_open_than_a_process_may_have(folder, cache, monkeypatch):
    monkeypatch.setattr(shards, "_KEPT_OPEN", 1)
    data = open_shards(str(folder), cache)
    images = list(data.split("train").images)
    data.read(images[0])
    before = len(os.listdir("/dev/fd"))
    for name in images * 3:
        data.read(name)
    assert len(os.listdir("/dev/fd")) == before


def test_a_changed_shard_is_indexed_anew(folder, cache):
    open_shards(str(folder), cache).prepare()
    file = write_tar(folder / "cc-000000.tar", *pair("000", "new"), *pair("001", "two"))
    os.utime(file, ns=(1, 1))
    assert open_shards(str(folder), cache).split("train").captions[0] == ("new",)


@pytest.mark.parametrize("victim", ["summary.json", "train.captions", "train.samples"])
def test_a_damaged_index_is_made_anew(folder, cache, victim):
    data = open_shards(str(folder), cache)
    data.prepare()
    (data.index / victim).write_bytes(b"{")
    assert list(open_shards(str(folder), cache).split("train").captions)[3] == ("caf\u00e9",)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_part_of_an_unfinished_index_is_made_anew(folder, cache, monkeypatch, damage):
    wanted = list(open_shards(str(folder), cache / "whole").split("train").captions)
    data = open_shards(str(folder), cache)

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_join", killed)
    with pytest.raises(KeyboardInterrupt):
        data.prepare()
    monkeypatch.undo()
    part = data.index.with_name(f"{data.index.name}.parts") / "0.npz"
    whole = bytearray(part.read_bytes())
    whole[len(whole) // 3] ^= 0xFF
    part.write_bytes(bytes(whole) if damage is None else damage)
    assert list(open_shards(str(folder), cache).split("train").captions) == wanted


def test_a_pickled_data_set_reads_the_same_and_carries_no_index(folder, cache):
    data = open_shards(str(folder), cache)
    names = list(data.split("train").images)
    frozen = pickle.dumps(data)
    copy = pickle.loads(frozen)  # noqa: S301 - our own bytes
    assert list(copy.split("train").images) == names
    assert copy.read(names[3]) == b"picture 001"
    assert b"picture" not in frozen
    assert b"three" not in frozen


# ----------------------------------------------------------------- broken shards


def usable(path):
    samples, problems, _ = read_shard(path)
    return (
        [(sample.member, *sample.captions) for sample in samples],
        [(problem.where, problem.reason) for problem in problems],
    )


def test_json_captions_and_webdatasets_keys(tmp_path):
    path = write_tar(
        tmp_path / "s.tar",
        ("d/1.png", b"x"),
        ("d/1.json", json.dumps({"caption": "from json", "url": "u"}).encode()),
        ("2.json", b'{"caption": "from json too"}'),
        ("2.webp", b"x"),
        ("2.txt", b"not this\n"),
        ("2.cls", b"7"),
    )
    assert usable(path) == ([("d/1.png", "from json"), ("2.webp", "from json too")], [])


def test_interleaved_keys_are_put_together(tmp_path):
    (a_jpg, a_txt), (b_jpg, b_txt) = pair("a", "A"), pair("b", "B")
    path = write_tar(tmp_path / "s.tar", a_jpg, b_jpg, a_txt, b_txt)
    assert usable(path) == ([("a.jpg", "A"), ("b.jpg", "B")], [])


def test_repeated_keys_are_told_and_not_doubled(tmp_path):
    path = write_tar(tmp_path / "s.tar", *pair("a", "first"), *pair("a", "second"))
    assert usable(path) == (
        [("a.jpg", "first")],
        [
            ("s.tar/a.jpg", "a second picture of its key"),
            ("s.tar/a.txt", "a second caption of its key"),
        ],
    )


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.jpg", b"x")], "no caption"),
        ([("a.txt", b"x")], "no picture"),
        ([("a.jpg", b"x"), ("a.txt", b" \n")], "empty caption"),
        ([("a.jpg", b"x"), ("a.txt", b"caf\xe9")], "caption is not UTF-8"),
        ([("a.jpg", b"x"), ("a.json", b'{"caption": null}')], "caption is null"),
        ([("a.jpg", b"x"), ("a.json", b'{"text": "x"}')], 'no "caption" in its JSON'),
        ([("a.jpg", b"x"), ("a.json", b"{")], "caption is not JSON: Expecting property name"),
    ],
)
def test_a_sample_that_cannot_be_used(tmp_path, members, reason):
    path = write_tar(tmp_path / "s.tar", *pair("good"), *members)
    samples, [(where, told)] = usable(path)
    assert samples == [("good.jpg", "a bird")]
    assert where == "s.tar/a"
    assert told.startswith(reason)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return path


# Members of a tar here take a header and a block, 1,024 bytes: two samples end at byte 4,096.
@pytest.mark.parametrize(
    ("size", "samples", "told"),
    [
        (4_096 + 1_024, 2, []),
        (4_096, 2, ["cut short: no end mark after byte 4096"]),
        (3_584 + 5, 1, ["cut short or damaged: 001.txt is not whole", "no caption"]),
        (2_048 + 100, 1, ["cut short: no end mark after byte 2048"]),
        (512 + 5, 0, ["cut short or damaged: 000.jpg is not whole"]),
        (0, 0, ["cut short or damaged: empty file"]),
    ],
)
def test_of_a_shard_cut_short_the_whole_samples_are_used(tmp_path, size, samples, told):
    path = write_tar(tmp_path / "s.tar", *pair("000"), *pair("001"))
    found, problems = usable(cut(path, size))
    assert len(found) == samples
    assert [reason for _, reason in problems] == told
    assert all(where.startswith("s.tar") for where, _ in problems)


def test_damage_in_the_middle_is_told_and_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "s.tar", *pair("000"), *pair("001"))
    data = bytearray(path.read_bytes())
    data[2_048:2_560] = b"\xff" * 512  # the header of 001.jpg
    path.write_bytes(bytes(data))
    samples, [(where, reason)] = usable(path)
    assert samples == [("000.jpg", "a bird")]
    assert where == "s.tar"
    assert "damaged" in reason


def test_a_broken_shard_among_whole_ones_is_bounded(folder, cache):
    (folder / "cc-000002.tar").write_bytes(b"<html>404</html>" * 100)
    data = open_shards(str(folder), cache)
    assert len(data.split("train")) == 4
    assert data.indexed == 5
    [(where, _)] = reasons(data)
    assert where == "cc-000002.tar"


def test_nothing_usable_is_one_line_with_the_reasons(tmp_path, cache):
    (tmp_path / "0.tar").write_bytes(b"")
    data = open_shards(str(tmp_path), cache)
    with pytest.raises(DataError, match=r"no usable sample in 1 shards: 0\.tar: .*empty file"):
        data.split("train")


def test_a_shard_cut_after_indexing_is_an_error_when_it_is_read(folder, cache):
    data = open_shards(str(folder), cache)
    last = data.split("train").images[-1]
    cut(folder / "cc-000001.tar", 2_100)
    with pytest.raises(OSError, match=r"cc-000001\.tar ends within"):
        data.read(last)
