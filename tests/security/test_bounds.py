"""Archives, labels and streams that declare or become too much: one line, and no memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from harness import files
from harness.config import Columns, ImageTower
from harness.data import files as data_files
from harness.data import spool, tables, unpacked
from harness.data.exports import _text
from harness.data.files import FileTree
from harness.data.spool import Spool
from harness.data.table_columns import NotATableError
from harness.data.tars import read_shard
from harness.data.unpacked import untarred
from harness.errors import ConfigError, DataError, refuse_long
from harness.evaluate.open_clip_model import load_checkpoint
from harness.models.pretrained import load_pretrained, weights_sha256


def test_a_member_of_a_zip_is_bounded_by_what_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "MAX_MEMBER_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.csv", b"\0" * 3500)
        archive.writestr("small.csv", b"\0" * 900)
    (tmp_path / "loose.csv").write_bytes(b"\0" * 3500)
    found = FileTree(tmp_path)
    for name in ("bomb.csv", "loose.csv"):
        with pytest.raises(OSError, match="HARNESS_LIMITS=4 in the environment raises the limits"):
            found.read(name)
    assert len(found.read("small.csv")) == 900
    assert len(found.read("loose.csv", 10)) == 10
    monkeypatch.setenv("HARNESS_LIMITS", "4")
    assert len(found.read("bomb.csv")) == 3500


@pytest.mark.parametrize("given", ["", "x", "-1", "1e9", "\u0661", "2"])
def test_only_a_number_raises_the_limits(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LIMITS", given)
    assert (files.too_large("it has", 15, 10) == "") is (given == "2")


def test_a_compressed_table_is_bounded_by_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_MEMBER_BYTES", 1 << 20)
    with pytest.raises(NotATableError, match=r"x\.csv\.gz cannot be unpacked: .*comes to over"):
        tables.open_table("x.csv.gz", gzip.compress(b"\0" * (5 << 20)), Columns())


def test_a_compressed_tar_is_bounded_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacked, "_LEAST_BYTES", 1 << 20)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"\0" * (20 << 20)))
    with pytest.raises(DataError, match=r"cannot be unpacked: .*comes to over"):
        untarred(tmp_path / "x.tar.gz", tmp_path / "cache")
    assert [f for f in (tmp_path / "cache").rglob("*") if f.is_file() and f.stat().st_size] == []


def test_a_shard_from_elsewhere_is_bounded_by_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_WAIT_SECONDS", 0.0)
    (tmp_path / "large.tar").write_bytes(b"x" * 5000)
    kept = Spool(tmp_path / "spool", max_bytes=1000)
    with pytest.raises(DataError, match="it comes to over 5,000 bytes"):
        kept.fetch(f"file:{tmp_path}/large.tar")
    assert not list((tmp_path / "spool").glob("*.part"))


@pytest.mark.parametrize("loader", ["backbone", "open_clip"])
def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(
    loader: str, tmp_path: Path
) -> None:
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 20)}, plain)
    packed = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in source.namelist():
            bomb.writestr(name, source.read(name))
    tower = ImageTower(pretrained=str(packed), pretrained_sha256=weights_sha256(str(packed)))
    load = {
        "backbone": lambda: load_pretrained(torch.nn.Linear(1, 1), tower),
        "open_clip": lambda: load_checkpoint("ViT-B-32", packed),
    }
    with pytest.raises(ConfigError, match="declares more bytes than it has"):
        load[loader]()


def tar_of(*members: tuple[str, int, bytes]) -> bytes:
    """Of members that declare a size, and hold what they hold."""
    out = io.BytesIO()
    for name, size, data in members:
        info = tarfile.TarInfo(name)
        info.size = size
        out.write(info.tobuf())
        out.write(data + b"\0" * (-len(data) % 512))
    return out.getvalue() + b"\0" * 1024


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, 5000])
def test_a_tar_that_declares_more_than_it_holds_is_a_problem(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(("a.jpg", 3, b"jpg"), ("a.txt", size, b"x")))
    found = read_shard(tmp_path / "x.tar")
    assert found.samples == []
    assert any("damaged" in problem.reason for problem in found.problems)


def test_a_label_of_a_tar_is_short(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.cls")
    info.size = 2 << 20
    with pytest.raises(DataError, match=r"a\.cls has 2,097,152 bytes, 1,048,576 are allowed"):
        _text(io.BytesIO(), info, tmp_path / "x.tar")


@pytest.mark.parametrize("text", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000, '[{"a": 1e999}]'])
def test_odd_json_is_no_table(text: str) -> None:
    with pytest.raises(NotATableError):
        tables.open_table("x.json", text.encode(), Columns())


def test_a_name_is_short_enough_for_a_page() -> None:
    refuse_long("the label", "x" * 10_000)
    with pytest.raises(ConfigError, match=r"the label 'x{40}'\.\.\. has 1,000,000 characters"):
        refuse_long("the label", "x" * 1_000_000)
