"""The index of a large folder: the same data set, made once, while its files are as they were."""

import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from harness.commands.data import main
from harness.data import text
from harness.data.sources import folder as source
from harness.data.sources.folder import open_folder
from harness.data.table_index import IndexedEntries
from tests.conftest import memory_data, write_shapes


@pytest.fixture
def shapes(tmp_path):
    return write_shapes(tmp_path / "shapes")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A function that opens a folder, as a large one or not."""

    def open_it(path, *, large=True, **more):
        monkeypatch.setattr(source, "LARGE", 1 if large else 10**9)
        return open_folder(str(path), cache=tmp_path / ("cache" if large else "none"), **more)

    return open_it


@pytest.fixture
def readings(monkeypatch):
    """A list that grows by one each time that the tables are read."""
    seen, read = [], source.open_table
    monkeypatch.setattr(source, "open_table", lambda *given: seen.append(given[0]) or read(*given))
    return seen


def said(data):
    """All that there is to know of a data set."""
    return {
        "prints": (data.name, data.fingerprint, data.evaluation_fingerprint),
        "splits": {n: (list(s.images), list(s.captions)) for n, s in data.splits.items()},
        "account": (data.account, data.problems, data.indexed),
        "sizes": {name: data.sizes(name).tolist() for name in data.splits},
        "bytes": {i: data.read(i) for s in data.splits.values() for i in s.images},
        "sums": {i: data.checksum(i) for s in data.splits.values() for i in s.images},
    }


def zipped(shapes):
    with zipfile.ZipFile(shapes / "images.zip", "w") as archive:
        for file in sorted(shapes.glob("*.png")):
            archive.write(file, file.name)
            file.unlink()
    return shapes


def packed(shapes):
    return shutil.make_archive(str(shapes.parent / "all"), "gztar", shapes)


def odd(shapes):
    """Names, captions and rows that are not as they should be."""
    (shapes / "caf\u00e9 \u5b57.png").write_bytes((shapes / "000.png").read_bytes())
    with (shapes / "captions.csv").open("a") as file:
        file.write("caf\u00e9 \u5b57.png,train,\u5b57 one\ncaf\u00e9 \u5b57.png,train,two\n")
        file.write("lost.png,train,x\n000.png,extra,y\n")
    return shapes


@pytest.mark.parametrize("made", [lambda shapes: shapes, zipped, packed, odd])
def test_it_gives_the_same_data_set_and_reads_no_table_again(shapes, opened, readings, made):
    path = made(shapes)
    plain = said(opened(path, large=False))
    assert said(opened(path)) == plain
    assert len(readings) == 2
    again = opened(path)
    assert len(readings) == 2
    assert isinstance(again.files.entries, IndexedEntries)
    assert said(again) == plain
    assert said(pickle.loads(pickle.dumps(again))) == plain  # noqa: S301 - our own bytes


def test_what_goes_to_a_worker_is_small_whatever_the_number_of_rows(shapes, opened):
    opened(shapes)
    assert len(pickle.dumps(opened(shapes))) < 4_000


def test_a_name_that_it_does_not_hold_is_told(shapes, opened):
    opened(shapes)
    data = opened(shapes)
    for name in ("never.png", "", "~"):
        with pytest.raises(KeyError):
            data.read(name)


def later(file):
    """A time of change that no clock can confuse with the one before."""
    os.utime(file, ns=(1, os.stat(file).st_mtime_ns + 1_000_000))


def changed_table(shapes):
    (shapes / "captions.csv").write_text("image,split,caption\n000.png,train,new\n")


def same_size(shapes):
    table = (shapes / "captions.csv").read_text()
    (shapes / "captions.csv").write_text(table.replace("red", "RED"))
    later(shapes / "captions.csv")


def another_table(shapes):
    (shapes / "new.png").write_bytes((shapes / "000.png").read_bytes())
    (shapes / "more.csv").write_text("image,split,caption\nnew.png,train,another\n")


def fewer_pictures(shapes):
    (shapes / "000.png").unlink()


def larger_pictures(shapes):
    for file in shapes.glob("*.png"):
        file.write_bytes(file.read_bytes() + b"more")


def swapped(shapes):
    (shapes / "000.png").rename(shapes / "x.png")
    (shapes / "001.png").rename(shapes / "000.png")
    (shapes / "x.png").rename(shapes / "001.png")


@pytest.mark.parametrize(
    "change",
    [changed_table, same_size, another_table, fewer_pictures, larger_pictures, swapped],
)
def test_it_stands_while_nothing_has_changed(shapes, opened, readings, change):
    opened(shapes)
    change(shapes)
    later(shapes)
    before = len(readings)
    assert said(opened(shapes)) == said(opened(shapes, large=False))
    assert len(readings) > before + 1


def test_one_that_is_torn_is_made_again(shapes, opened, tmp_path):
    whole = said(opened(shapes))
    [index] = (tmp_path / "cache").glob("tables-????????????????")
    for file in sorted(index.iterdir()):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert said(opened(shapes)) == whole, file.name


def test_check_reads_it_anew_when_asked(shapes, opened, tmp_path, readings, capsys):
    opened(shapes)
    words = ["check", str(shapes), "--workers", "1", "--cache", str(tmp_path / "cache")]
    for options, more in ((["--again"], 1), ([], 0)):
        before = len(readings)
        assert main([*words, *options]) == 0
        assert len(readings) == before + more
    assert "72" in capsys.readouterr().out


# ----------------------------------------------------------------- the words of its captions


def test_the_rows_of_a_large_corpus_are_found_once(tmp_path, monkeypatch):
    data = memory_data()
    rows = text.corpus_rows_of(data, tmp_path)
    assert not list(tmp_path.rglob("*.json"))
    monkeypatch.setattr(text, "_MANY", 2)
    assert np.array_equal(text.corpus_rows_of(data, tmp_path), rows)
    monkeypatch.setattr(text, "corpus_rows", lambda captions: pytest.fail("read again"))
    again = text.corpus_rows_of(data, tmp_path)
    assert np.array_equal(again, rows)
    assert again.dtype == np.int64


def test_a_torn_file_of_rows_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_MANY", 2)
    rows = text.corpus_rows_of(memory_data(), tmp_path)
    [file] = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes()[:10])
    assert np.array_equal(text.corpus_rows_of(memory_data(), tmp_path), rows)
