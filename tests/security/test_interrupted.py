"""Every write of a command ended by SIGKILL, or refused for want of space: then the same command
ends as if nothing had been, and nothing half written is taken for whole.

Here of the writers by themselves; of whole commands in test_interrupted_commands.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import folder_of_shapes, shards_of_shapes
from walk import Command, tree, walk

from harness import files
from harness.config import Columns, RunConfig, Runtime, override
from harness.config.sweep import Run, Show, Sweep, points
from harness.data import taught, verified
from harness.data.catalog import find_data
from harness.data.sources.folder import open_folder
from harness.data.taught import Stored
from harness.data.unpacked import laid_down
from harness.evaluate.text_cache import TextCache
from harness.files import drop_leftovers, make_ready, replacing, write_atomic, write_json
from harness.report.folder import listed, write_files
from harness.store.manifest import read_manifest, write_manifest
from harness.store.record import Store

# --------------------------------------------------------------------------- the commands


def report(place: Path) -> None:
    write_files(place / "r", {"report.md": b"page", "figures/a.png": b"x" * 100}, {"made": {}})
    assert set(listed(place / "r")) == {"report.md", "figures/a.png"}


def export(place: Path) -> None:
    with replacing(place / "export") as new:
        write_atomic(new / "weights", b"w" * 1000)
        write_json(new / "export.json", {"files": ["weights"]})


def sweep(place: Path) -> None:
    base = override(RunConfig(), {"objective.token.weight": 1.0})
    runs = [Run("x", {"train.samples": 64}, s, override(base, {"seed": s})) for s in range(2)]
    made = Sweep(
        base=base, points=points({"train.samples": 64}), seeds=[0, 1],
        show=Show(x="train.samples", metrics=[]), name="s",
    )  # fmt: skip
    store = Store(place)
    for run in runs:
        store.run_dir(run.key).write_intent(run.config, {"label": run.label})
        make_ready(store.run_dir(run.key).path)  # as the run itself does
    write_manifest(store, made, runs, Runtime(), ["x"])
    assert len(read_manifest(store, "s").runs) == 2
    assert all(store.run_dir(run.key).read_config() == run.config for run in runs)


def unpacked(place: Path) -> None:
    source = folder_of_shapes(place.parent.parent) / "captions.csv"
    found = laid_down(source, place, lambda file: file.write(b"t" * 5000) and None)
    assert found.read_bytes() == b"t" * 5000


def table(place: Path) -> None:
    data = folder_of_shapes(place.parent.parent)
    found = open_folder(str(data), Columns(), cache=place, again=False)
    assert found.indexed == 12


def shards(place: Path) -> None:
    config = override(
        RunConfig(),
        {"data.source": "shards", "data.path": str(shards_of_shapes(place.parent.parent))},
    )
    data = find_data(config.data, Runtime(cache=str(place)))
    data.prepare()


def texts(place: Path) -> None:
    cache = TextCache(place, "t" * 64, "fp32", lambda texts: torch.eye(len(texts), 8))
    assert cache.weights(["a", "b"], ["a {c}"]).shape == (2, 8)


def views(place: Path) -> None:
    wanted = Stored("run 1a2b", "d" * 64, 0, (0.5, 1.0), False, "full")
    folder, record = wanted.folder(place), {"run": "1a2b", "checkpoint": "c"}
    taught.begin_store(folder)
    for view in range(2):
        if taught.kept_part(folder, view, 0, record) is None:
            taught.write_part(folder, view, 0, np.ones((5, 2, 4), np.float16), record)
    about = {"samples": 5, "views": 2, "scale": 3.0, "record": record, "missing": []}
    taught.finish_store(folder, wanted, about)
    whole = taught.open_store(wanted, 2, place, "")
    assert whole.rows(np.array([1]), np.array([4])).tolist() == [[[1.0] * 4] * 2]


COMMANDS = [report, export, sweep, unpacked, table, shards, texts, views]
OF_TIMES = {table: "about.json$|summary.json$"}
"""Records that tell when a file was changed."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_STALE_SECONDS", -1.0)
    monkeypatch.setattr("harness.data.sources.folder.LARGE", 1)


def walked(function: Callable[[Path], None], tmp_path: Path, how: str, parts: int) -> list[int]:
    command = Command(function, unlike=OF_TIMES.get(function, "(?!)"))
    return list(walk(command, tmp_path, how, (part / parts for part in range(parts + 1))))


@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_some_writes(command: Callable[[Path], None], tmp_path: Path, how: str) -> None:
    assert walked(command, tmp_path, how, 3)


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_write(command: Callable[[Path], None], tmp_path: Path, how: str) -> None:
    assert len(walked(command, tmp_path, how, 300)) > 1


def test_want_of_space_names_the_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"free some, and give the same command again: '.*/x'"):
        write_atomic(tmp_path / "x", b"1")
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


def test_only_old_leftovers_of_ones_own_kind_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {".a.json.12.0123abcd.tmp", ".a.tmp", "a.12.0123abcd.tmp", ".a.12.0123abcd.old"}
    for name in names:
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(files, "_STALE_SECONDS", 60.0)
    drop_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == names
    monkeypatch.setattr(files, "_STALE_SECONDS", -1.0)
    drop_leftovers(tmp_path)
    left = {file.name for file in tmp_path.iterdir() if file.is_file()}
    assert left == names - {".a.json.12.0123abcd.tmp"}


# --------------------------------------------------------------------------- shared caches


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    texts(tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    whole = file.read_bytes()
    with np.load(file) as other:
        names, weights = other["names"], other["weights"] + 1
    np.savez(file, names=names, weights=weights)
    cache = TextCache(tmp_path, "t" * 64, "fp32", lambda texts: torch.eye(len(texts), 8))
    assert cache.weights(["a", "b"], ["a {c}"])[0, 0] == 1
    assert file.read_bytes() == whole


@pytest.mark.parametrize("command", [unpacked, table, shards])
@pytest.mark.parametrize("kept", ["the same size", "its checksum too"])
def test_what_another_hand_wrote_into_a_cache_is_made_again(
    command: Callable[[Path], None], kept: str, tmp_path: Path
) -> None:
    place = tmp_path / "0" / "cache"
    command(place)
    wanted = tree(place)
    for name, data in wanted.items():
        if name.endswith(".json"):
            continue
        for file in place.glob("verified/*"):
            file.write_text("0" * 64)  # a mark that another user's key made, or none
        swapped = bytes(reversed(data)) if kept == "the same size" else data + b"x"
        (place / name).write_bytes(swapped)
        command(place)
        assert tree(place) == wanted, name


@pytest.mark.parametrize("command", [unpacked, table, shards])
@pytest.mark.parametrize("poison", [b"", b"{}", b"[]", b"\xff", b'{"files": 3}', b"[" * 100_000])
def test_what_is_said_of_a_cache_may_be_anything(
    command: Callable[[Path], None], poison: bytes, tmp_path: Path
) -> None:
    place = tmp_path / "0" / "cache"
    command(place)
    wanted = tree(place)
    for name in wanted:
        if name.endswith(".json"):
            (place / name).write_bytes(poison)
    command(place)
    assert tree(place) == wanted


def test_a_cache_that_cannot_be_written_to_is_read_and_compared_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    (tmp_path / "cache").write_bytes(b"no folder, so that root cannot write there either")
    for content, whole in ((b"content", True), (b"CONTENT", False)):
        file.write_bytes(content)
        monkeypatch.setattr(verified, "_seen", {})
        sha256 = hashlib.sha256(b"content").hexdigest()
        assert verified.is_content(file, sha256, tmp_path / "cache") is whole


def test_a_cache_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o007)
    try:
        for command in (unpacked, table, shards):
            command(tmp_path / "cache")
    finally:
        os.umask(before)
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o070 in {0o070, 0o060}, path
