"""Shards one after another, from a disk or a URL: the same batches wherever and however read."""

import itertools
import os
import shutil
import stat

import pytest
import torch

from harness.config import RunConfig, Runtime, override
from harness.config.pipes import allow_pipes
from harness.data.catalog import open_data
from harness.data.loader import Batches
from harness.data.shard_list import find_shards
from harness.data.sources.shards import open_shards
from harness.data.text import Tokenizer
from harness.errors import ConfigError, DataError
from tests.data.shardfiles import served, shape_shards, write_tar

COUNTS = [5, 9, 1, 12, 8, 7, 6]


@pytest.fixture
def folder(tmp_path):
    """Seven shards of 48 pictures."""
    return shape_shards(tmp_path / "set", COUNTS)


@pytest.fixture
def server(folder):
    """A URL of them all as a brace range, and what was asked of the server."""
    with served(folder) as (url, asked):
        yield f"{url}/train/{{000..006}}.tar", asked


def config(path, **changes):
    allow_pipes([path])  # as the command line and sweep files do
    values = {
        "train.batch_size": 4,
        "train.samples": 100,
        "model.image.size": 16,
        "data.source": "stream",
        "data.path": str(path),
        "data.shuffle_window": 6,
    }
    return override(RunConfig(), {**values, **changes})


def batches(config, tmp_path, rank=0, **runtime):
    place = Runtime(cache=str(tmp_path / "cache"), **runtime)
    return Batches(open_data(config.data, place), Tokenizer(16), config, place, rank)


def stream(config, tmp_path, first=0, **settings):
    return list(batches(config, tmp_path, **settings).start(first))


def same(a, b):
    return all(
        torch.equal(x.pictures, y.pictures) and torch.equal(x.tokens, y.tokens)
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture
def expected(folder, tmp_path):
    return stream(config(folder), tmp_path)


def test_an_epoch_has_every_picture_once(folder, tmp_path):
    seen = [
        address.index
        for address in itertools.chain(*batches(config(folder), tmp_path).addresses())
        if address.epoch == 0
    ]
    assert sorted(seen) == list(range(48))


def test_a_wide_window_is_a_run_of_its_own_and_goes_on_from_any_step(server, folder, tmp_path):
    wide, usual = config(folder, **{"data.shuffle_window": "wide"}), config(folder)
    assert wide.run_key != usual.run_key
    whole = stream(wide, tmp_path)
    assert not same(whole, stream(usual, tmp_path))
    there = config(server[0], **{"data.shuffle_window": "wide"})
    assert same(stream(there, tmp_path, first=17), whole[17:])


@pytest.mark.parametrize("given", ["wid", 0, 2.5, "64", True, None])
def test_a_window_that_is_none_is_told_what_is(folder, given):
    with pytest.raises(ConfigError) as caught:
        config(folder, **{"data.shuffle_window": given})
    wanted = "an integer of 1 or more is wanted, or 'wide'"
    if given not in ("wid", 0, "64"):
        wanted = "an integer is wanted"
    assert str(caught.value).startswith(f"data.shuffle_window = {given!r}: {wanted}")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_url_gives_the_batches_of_the_folder(server, expected, tmp_path, workers):
    url, asked = server
    assert same(stream(config(url), tmp_path, workers=workers), expected)
    assert sorted(asked) == [f"/train/{i:03d}.tar" for i in range(7)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_more_workers_than_shards_change_nothing(folder, expected, tmp_path):
    assert same(stream(config(folder), tmp_path, workers=9), expected)


def test_it_goes_on_from_any_step(server, expected, tmp_path):
    url, _ = server
    assert same(stream(config(url), tmp_path, first=17), expected[17:])


@pytest.mark.parametrize("processes", [2, 4])
def test_the_shares_of_processes_are_the_batch(folder, expected, tmp_path, processes):
    shares = [
        stream(config(folder), tmp_path, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    for whole, *parts in zip(expected, *shares, strict=True):
        assert torch.equal(torch.cat([part.pictures for part in parts]), whole.pictures)


def test_content_has_one_fingerprint_wherever_it_lies(folder, server, tmp_path):
    url, _ = server
    runtime = Runtime(cache=str(tmp_path / "cache"))
    here, there = (open_data(config(p).data, runtime) for p in (folder, url))
    assert here.fingerprint == there.fingerprint
    assert here.evaluation_fingerprint == there.evaluation_fingerprint
    shard = folder / "train" / "003.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(bytes(data))  # as long as before
    assert open_data(config(f"{folder}/train/*.tar").data, runtime).fingerprint != here.fingerprint


@pytest.mark.parametrize("scheme", ["file", "pipe", "s3"])
def test_other_urls(folder, expected, tmp_path, monkeypatch, scheme):
    command = tmp_path / "bin" / "aws"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\n[ "$1 $2 $4" = "s3 cp -" ] && cat "/${3#s3://}"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    url = {
        "file": f"file://{folder}/train/{{000..006}}.tar",
        "pipe": f"pipe:cat {folder}/train/{{000..006}}.tar",
        "s3": f"s3:/{folder}/train/{{000..006}}.tar",
    }[scheme]
    assert same(stream(config(url), tmp_path), expected)


def test_a_small_spool_fetches_again_and_changes_nothing(tmp_path):
    folder = shape_shards(tmp_path / "set", [8] * 24)  # some 20 kB each
    changes = {"data.shuffle_window": 1, "train.samples": 400}
    expected = stream(config(folder, **changes), tmp_path)
    with served(folder) as (url, asked):
        cfg = config(f"{url}/train/{{000..023}}.tar", **changes)
        data = open_data(cfg.data, Runtime(cache=str(tmp_path / "cache")))
        data.keep_within(12 * max(s["bytes"] for s in data.summary["shards"]))
        shutil.rmtree(data.spool.folder)
        asked.clear()
        got = list(Batches(data, Tokenizer(16), cfg, Runtime(decode_cache_mb=0)).start())
        kept = sum(file.stat().st_size for file in (tmp_path / "cache" / "spool").glob("*.tar"))
    assert same(got, expected)
    assert len(asked) > 24
    assert kept <= data.spool.max_bytes


def test_a_spool_too_small_for_the_window_is_refused(server, tmp_path):
    url, _ = server
    data = open_data(config(url).data, Runtime(cache=str(tmp_path / "cache")))
    data.keep_within(30_000)
    made = Batches(data, Tokenizer(16), config(url), Runtime())
    with pytest.raises(ConfigError, match=r"data\.shuffle_window = 6 reads from 1 MB"):
        next(made.start())


def test_what_cannot_be_fetched_is_told_with_its_url(server, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.spool._WAIT_SECONDS", 0)
    url = server[0].replace("006", "007")
    with pytest.raises(DataError, match=r"cannot fetch http.*007\.tar: .* exit code 22"):
        open_data(config(url).data, Runtime(cache=str(tmp_path / "cache"))).prepare()


def test_a_command_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.spool._WAIT_SECONDS", 0)
    with pytest.raises(DataError, match=r"cannot fetch pipe:cat /no/such\.tar: .* exit code 1"):
        open_data(
            config("pipe:cat /no/such.tar").data, Runtime(cache=str(tmp_path / "cache"))
        ).prepare()


def test_an_index_that_was_cut_off_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.spool._WAIT_SECONDS", 0)
    url, asked = server
    folder = tmp_path / "set" / "train"
    (folder / "006.tar").rename(folder / "away")
    cfg, runtime = config(url), Runtime(cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"006\.tar"):
        open_data(cfg.data, runtime)
    (folder / "away").rename(folder / "006.tar")
    asked.clear()
    assert open_data(cfg.data, runtime).indexed == 48
    assert asked == ["/train/006.tar"]


def test_a_shard_that_changed_after_indexing_is_never_trained_on(server, tmp_path):
    url, _ = server
    data = open_data(config(url).data, Runtime(cache=str(tmp_path / "cache")))
    image = data.split("train").images[0]
    data.spool.path_of(data.shards[0].place).unlink()
    write_tar(tmp_path / "set" / "train" / "000.tar", ("a.jpg", b"x"), ("a.txt", b"new"))
    with pytest.raises(DataError, match=r"000\.tar has changed since it was indexed"):
        data.read(image)


# ----------------------------------------------------------------- several sources


@pytest.fixture
def two(tmp_path):
    """A source of 30 pictures and one of 12, with shards of one name."""
    return f"{shape_shards(tmp_path / 'a', [20, 10])}::{shape_shards(tmp_path / 'b', [12])}"


@pytest.mark.parametrize("source", ["shards", "stream"])
def test_weighted_sources_have_their_share_of_every_batch(two, tmp_path, source):
    cfg = config(two, **{"data.source": source, "data.weights": [1, 3]})
    for addresses in batches(cfg, tmp_path).addresses():
        assert sum(address.index >= 30 for address in addresses) == 3


def test_sources_without_weights_are_one(two, tmp_path):
    made = batches(config(two, **{"data.source": "shards"}), tmp_path)
    first = [a.index for batch in itertools.islice(made.addresses(), 10) for a in batch]
    assert len(set(first)) == 40


def test_two_sources_are_read_by_their_own_shards(two, tmp_path):
    data = open_shards(two, tmp_path / "cache")
    first, last = data.split("train").images[0], data.split("train").images[-1]
    assert data.name == "a+b"
    assert (first.partition("@")[0], last.partition("@")[0]) == (
        "train/0.000.tar/000.png", "train/1.000.tar/011.png"
    )  # fmt: skip
    assert data.read(last)[:4] == b"\x89PNG"


def test_as_many_weights_as_sources(two, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.weights has 3 numbers, and data\.path 2 sources"):
        open_shards(two, tmp_path / "cache", [1, 2, 3])


def test_weights_and_window_are_identity_where_they_count():
    base = config("x")
    assert override(base, {"data.shuffle_window": 7}).run_key != base.run_key
    local = override(base, {"data.source": "shards"})
    assert override(local, {"data.shuffle_window": 7}).run_key == local.run_key
    assert override(local, {"data.weights": [1, 2]}).run_key != local.run_key


# ----------------------------------------------------------------- what a path names


@pytest.mark.parametrize(
    ("url", "split", "base"),
    [
        ("http://h/cc3m/0.tar", "train", "0.tar"),
        ("https://h/val/0.tar?key=a/b", "validation", "0.tar"),
        ("pipe:aws s3 cp s3://b/test/00.tar -", "test", "00.tar"),
        ("pipe:curl -s 'http://h/x/0.tar'", "train", "0.tar"),
    ],
)
def test_split_and_name_of_a_url(url, split, base):
    allow_pipes([url])
    [shard] = find_shards(url).shards
    assert (shard.split, shard.base, shard.is_remote) == (split, base, True)


def test_a_url_is_not_read_at_random(tmp_path):
    with pytest.raises(DataError, match=r"http://h/0\.tar is for data\.source=stream"):
        open_shards("http://h/0.tar", tmp_path)


def test_an_empty_source(tmp_path):
    with pytest.raises(DataError, match=r"a source of data\.path is empty"):
        find_shards(f"{tmp_path}::")
