"""What lies in the shared memory of runs is theirs, or is not believed."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import load, save

from harness.data import shared
from tests.data.test_shared import all_same, alone, batches_of, folder  # noqa: F401 - a fixture


def changed(data: bytes, **tensors: np.ndarray) -> bytes:
    return save({**load(data), **tensors})


STRANGE = {
    "nothing": lambda data: b"",
    "noise": lambda data: os.urandom(len(data)),
    "cut short": lambda data: data[:-7],
    "longer": lambda data: data + b"\0" * 64,
    "a long header": lambda data: (2**60).to_bytes(8, "little") + data[8:],
    "a pickle": lambda data: pickle.dumps(print),
    "other pictures": lambda data: changed(data, pictures=np.zeros((5, 8, 8, 3), np.uint8)),
    "other numbers": lambda data: changed(data, pictures=np.zeros((5, 16, 16, 3), np.float32)),
    "one more": lambda data: changed(data, more=np.zeros(3, np.uint8)),
    "no such place": lambda data: changed(data, places=np.full(5, 24, np.int64)),
    "before the first": lambda data: changed(data, places=np.full(5, -1, np.int64)),
    "deep problems": lambda data: changed(
        data, problems=np.frombuffer(b"[" * 10**5, np.uint8).copy()
    ),
    "problems of no sample": lambda data: changed(
        data, problems=np.frombuffer(b'[[9, "a", "b"]]', np.uint8).copy()
    ),
    "problems that are none": lambda data: changed(
        data, problems=np.frombuffer(b'{"a": 1}', np.uint8).copy()
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_batch_is_made_again(folder, monkeypatch, capfd, what):  # noqa: F811
    own = alone(monkeypatch)
    first, second = batches_of().start(), batches_of().start()
    seen = [next(first)]
    (file,) = folder.glob("*/0.batch")
    file.write_bytes(STRANGE[what](file.read_bytes()))
    assert all_same(list(second), own)
    assert "is none of this data, and is made here" in capfd.readouterr().err
    assert all_same(seen + list(first), own)


@pytest.mark.parametrize("what", ["a pipe", "a folder", "too large", "a reader of words"])
def test_what_is_no_batch_is_not_waited_for(folder, monkeypatch, what):  # noqa: F811
    own = alone(monkeypatch)
    first, second = batches_of().start(), batches_of().start()
    seen = [next(first)]
    (file,) = folder.glob("*/0.batch")
    if what == "a reader of words":
        reader = shared._hold(file.parent, "reader-x-1", b"words")
        seen += [next(first)]
        os.close(reader)
    else:
        file.unlink()
    if what == "a pipe":
        os.mkfifo(file)
    elif what == "a folder":
        file.mkdir()
    elif what == "too large":
        with file.open("wb") as large:
            large.truncate(2**40)
    assert all_same(list(second), own)
    assert all_same(seen + list(first), own)


@pytest.mark.parametrize("what", ["another user's", "a link"])
def test_a_folder_that_others_may_write_is_not_used(
    folder,  # noqa: F811
    tmp_path,
    monkeypatch,
    capfd,
    what,
):
    own = alone(monkeypatch)
    if what == "a link":
        link = tmp_path / "link"
        link.symlink_to(folder)
        monkeypatch.setenv(shared.VARIABLE, str(link))
    else:
        user = os.getuid()
        monkeypatch.setattr("os.getuid", lambda: user + 1)
    assert all_same(list(batches_of().start()), own)
    assert "is not this user's alone: this run decodes" in capfd.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["launch"]
