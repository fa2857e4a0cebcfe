"""`python -m harness.data check`: what is usable, why the rest is not, and what runs make of it."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from harness.commands.data import looks_like, main
from harness.config import RunConfig, Runtime, override
from harness.data.catalog import open_data
from harness.data.loader import Batches
from harness.data.sources.shards import open_shards
from harness.data.text import Tokenizer
from tests.data.shardfiles import pair, served, shape_shards, write_tar


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(height, width, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels.squeeze()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(noise(8, 9)), "JPEG", exif=exif)


def claiming(width, height):
    """A PNG of one pixel whose header says it has many more."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


PHOTO = encoded(Image.fromarray(noise(40, 40)), "JPEG")
USABLE = {
    "cmyk.jpg": encoded(Image.fromarray(noise(8, 8, 4), "CMYK"), "JPEG"),
    "deep.png": encoded(Image.fromarray(noise(8, 8, 2).view(np.uint16).squeeze()), "PNG"),
    "palette.png": encoded(Image.fromarray(noise(8, 8)).quantize(4), "PNG"),
    "turned.jpg": turned(),
    "good.jpg": PHOTO,
}
BROKEN = {
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "an HTML or XML page"),
    "cut.jpg": (PHOTO[: len(PHOTO) // 2], "broken JPEG"),
    "bomb.png": (
        claiming(30_000, 30_000),
        "Image size (900000000 pixels) exceeds limit",
    ),
    "empty.webp": (b"", "empty file"),
}


@pytest.fixture
def shard(tmp_path):
    """A shard of five usable pictures and one of each broken kind."""
    pictures = {**USABLE, **{name: content for name, (content, _) in BROKEN.items()}}
    members = []
    for name, content in pictures.items():
        key = name.partition(".")[0]
        members += [(name, content), (f"{key}.txt", f"a {key}".encode())]
    return write_tar(tmp_path / "set" / "000.tar", *members)


def check(path, tmp_path, *options):
    out = tmp_path / "list.json"
    words = ["check", str(path), "--workers", "1", "--out", str(out)]
    code = main([*words, "--cache", str(tmp_path / "cache"), *options])
    return code, json.loads(out.read_bytes())["bad"] if out.exists() else None


def test_every_broken_picture_is_listed_with_its_reason(shard, tmp_path, capsys):
    code, bad = check(shard.parent, tmp_path)
    assert code == 3
    found = {name.split("/")[-1].partition("@")[0]: why for name, why in bad["train"].items()}
    assert set(found) == set(BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert reason in found[name]
    printed = capsys.readouterr().out
    assert "train/000.tar" in printed
    assert "not usable: 44.44% unusable, 1.00% allowed" in printed


def test_within_what_is_allowed(shard, tmp_path):
    assert check(shard.parent, tmp_path, "--max-bad-fraction", "0.5")[0] == 0


def test_several_processes_find_the_same(shard, tmp_path):
    _, alone = check(shard.parent, tmp_path)
    assert check(shard.parent, tmp_path, "--workers", "2") == (3, alone)


def test_what_the_index_left_out_counts(tmp_path, capsys):
    folder = shape_shards(tmp_path / "set", [3]) / "train"
    write_tar(folder / "001.tar", *pair("x", " "))
    write_tar(folder / "002.tar")
    code, bad = check(tmp_path / "set", tmp_path)
    assert (code, bad) == (3, {})
    printed = capsys.readouterr().out
    assert "1 x empty caption (such as 001.tar/x)" in printed
    assert "25.00% unusable" in printed


def test_a_folder_and_a_url(shapes_folder, tmp_path):
    (shapes_folder / "000.png").write_bytes(b"GIF89a?")
    code, bad = check(shapes_folder, tmp_path, "--max-bad-fraction", "0.02")
    assert code == 0
    assert list(bad["train"]) == ["000.png"]
    folder = shape_shards(tmp_path / "set", [3, 2])
    with served(folder) as (url, _):
        assert check(f"{url}/train/{{000..001}}.tar", tmp_path) == (0, {})


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("http://h/{0..9}.tar", "stream"),
        ("pipe:cat x.tar", "stream"),
        ("/data/{0..9}.tar", "shards"),
        ("/data/x.csv", "folder"),
    ],
)
def test_what_a_path_looks_like(path, source):
    assert looks_like(path) == source


def test_what_a_folder_looks_like(tmp_path, shapes_folder):
    assert looks_like(str(shape_shards(tmp_path / "set", [1]))) == "shards"
    assert looks_like(str(shapes_folder)) == "folder"


# ----------------------------------------------------------------- later runs


def config(path, **changes):
    values = {
        "train.batch_size": 4, "train.samples": 40, "model.image.size": 16,
        "data.source": "shards", "data.path": str(path),
    }  # fmt: skip
    return override(RunConfig(), {**values, **changes})


def test_a_later_run_sees_the_same_and_reads_nothing_that_is_listed(shard, tmp_path, monkeypatch):
    runtime, cfg = Runtime(cache=str(tmp_path / "cache")), config(shard.parent)
    data = open_data(cfg.data, runtime)
    before = [b.pictures.tolist() for b in Batches(data, Tokenizer(16), cfg, runtime).start()]
    check(shard.parent, tmp_path)
    read, asked = type(data).read, []

    def watched(self, image):
        asked.append(image)
        return read(self, image)

    monkeypatch.setattr(type(data), "read", watched)
    batches = Batches(data, Tokenizer(16), cfg, runtime)
    assert [b.pictures.tolist() for b in batches.start()] == before
    assert len(batches.known_bad) == len(BROKEN)
    assert not {problem.where for problem in batches.known_bad} & set(asked)


def test_another_limit_of_pixels_has_a_list_of_its_own(shard, tmp_path):
    check(shard.parent, tmp_path)
    runtime, cfg = Runtime(cache=str(tmp_path / "cache"), max_pixels=10), config(shard.parent)
    assert Batches(open_data(cfg.data, runtime), Tokenizer(16), cfg, runtime).known_bad == ()


# ----------------------------------------------------------------- captions


LONG = "word " * 209_715  # 1 MB


@pytest.mark.parametrize(
    ("members", "captions", "reasons"),
    [
        ([("a.txt", "one\u2028two\u2029three".encode())], ("one two three",), []),
        ([("a.json", b'{"caption": "bad \\ud800 letter"}')], None, ["caption is not UTF-8"]),
        ([("a.json", b'{"captions": ["x", "", "y"]}')], ("x", "y"), ["empty caption"]),
        ([("a.json", b'{"caption": ["x", "y"]}')], ("x", "y"), []),
        ([("a.json", b'{"captions": []}')], None, ["no caption"]),
        ([("a.json", b'{"captions": [null]}')], None, ["caption is null"]),
        ([("a.txt", LONG[: 1 << 20].encode())], None, ["caption of more than 10000 characters"]),
        ([("a.txt", (LONG + LONG).encode())], None, ["caption of 2097150 bytes, 1048576 are"]),
    ],
)
def test_captions_of_every_kind(tmp_path, members, captions, reasons):
    write_tar(tmp_path / "s" / "0.tar", *pair("z", "last"), ("a.jpg", b"x"), *members)
    data = open_shards(str(tmp_path / "s"), tmp_path / "cache")
    assert list(data.split("train").captions) == [("last",), *([captions] if captions else [])]
    assert len(data.problems) == len(reasons)
    for problem, reason in zip(data.problems, reasons, strict=True):
        assert problem.reason.startswith(reason)


# ----------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "/no/such"], "no data at /no/such"),
        (["check", "x.tar"], "no shard at x.tar"),
        (["check", "x", "--workers", "0"], "--workers 0 is less than 1"),
        (["check", "x", "--max-bad-fraction", "2"], "--max-bad-fraction 2 is not between"),
        (["pack", "x", "--out", "y"], "--size"),
        (["pack", "x", "--out", "y", "--size", "0"], "--size 0 is less than 1"),
        (["look"], "invalid choice: 'look'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(words, told, capsys):
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


def test_neither_help_nor_a_check_needs_torch(tmp_path):
    folder = shape_shards(tmp_path / "set", [2])
    code = (
        "import sys; from harness.commands.data import main\n"
        f"words = ['check', {str(folder)!r}, '--workers', '1', '--cache', {str(tmp_path)!r}]\n"
        "assert main(words) == 0\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'pandas', 'open_clip') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[]"
