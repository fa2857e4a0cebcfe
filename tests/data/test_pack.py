"""`python -m harness.data pack`: the same bytes each time, and the same training from them."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from harness.commands.data import main
from harness.config import RunConfig, Runtime, override
from harness.data import verified
from harness.data.catalog import open_data
from harness.data.images import decode
from harness.data.loader import Batches
from harness.data.sources.folder import open_folder
from harness.data.sources.shards import open_shards
from harness.data.text import Tokenizer
from harness.data.tools import pack as module
from harness.errors import DataError
from harness.files import sha256_of
from tests.conftest import drawings, with_fingerprints


def pack(source, out, tmp_path, size=32, *options):
    words = ["pack", str(source), "--size", str(size), "--out", str(out), "--workers", "1"]
    return main([*words, "--cache", str(tmp_path / "cache"), *options])


def contents(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def packed(shapes_folder, tmp_path):
    """The pictures of a folder, of 32 pixels, packed as they are, 20 a shard."""
    assert pack(shapes_folder, tmp_path / "packed", tmp_path, 32, "--shard-samples", "20") == 0
    return tmp_path / "packed"


def test_a_pack_has_the_samples_of_its_source_in_their_order(shapes_folder, packed, tmp_path):
    before, after = open_folder(str(shapes_folder)), open_shards(str(packed), tmp_path / "c")
    assert after.splits.keys() == before.splits.keys()
    for name, split in before.splits.items():
        assert list(after.splits[name].captions) == list(split.captions)
        assert [after.read(image) for image in after.splits[name].images] == [
            before.read(image) for image in split.images
        ]
    assert [shard.base for shard in after.shards if shard.split == "train"] == [
        "000000.tar", "000001.tar", "000002.tar"
    ]  # fmt: skip


@pytest.mark.parametrize("decode", ["full", "scaled"])
def test_batches_from_a_pack_are_those_from_its_source(shapes_folder, packed, tmp_path, decode):
    def stream(source, path):
        values = {
            "train.batch_size": 6, "train.samples": 150, "model.image.size": 16,
            "data.source": source, "data.path": str(path), "data.decode": decode,
        }  # fmt: skip
        config, runtime = override(RunConfig(), values), Runtime(cache=str(tmp_path / "cache"))
        data = open_data(config.data, runtime)
        batches = Batches(data, Tokenizer(16), config, runtime).start()
        return [(batch.pictures.tolist(), batch.tokens.tolist()) for batch in batches]

    assert stream("shards", packed) == stream("folder", shapes_folder)


def test_large_pictures_are_made_small_by_their_shortest_side(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    wide = np.broadcast_to(ramp[None, :, None], (100, 200, 3))
    Image.fromarray(wide).save(folder / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(folder / "high.png")
    Image.new("L", (50, 60)).save(folder / "small.gif")
    for stem in ("wide", "high", "small"):
        (folder / f"{stem}.txt").write_text(f"a {stem} one\nand another")
    # every name in `train`, whatever its hash
    (tmp_path / "set").mkdir()
    folder.rename(tmp_path / "set" / "train")
    assert pack(tmp_path / "set", tmp_path / "out", tmp_path, 50) == 0
    data = open_shards(str(tmp_path / "out"), tmp_path / "cache")
    shapes = {}
    for image, captions in zip(data.split("train").images, data.split("train").captions):  # noqa: B905
        assert captions[1] == "and another"
        shapes[captions[0]] = decode(data.read(image), max_pixels=10_000)
    assert {name: pixels.shape for name, pixels in shapes.items()} == {
        "a wide one": (50, 100, 3), "a high one": (100, 50, 3), "a small one": (60, 50, 3)
    }  # fmt: skip
    # a ramp stays one: column i of 100 is the mean of two of 200
    middle = np.abs(shapes["a wide one"][25, :, 0].astype(int) - ramp.reshape(-1, 2).mean(1))
    assert middle.max() <= 2


def test_the_same_bytes_in_any_number_of_processes(shapes_folder, packed, tmp_path):
    again = tmp_path / "again" / "packed"
    assert pack(shapes_folder, again, tmp_path, 32, "--shard-samples", "20", "--workers", "2") == 0
    assert contents(again) == contents(packed)


def test_a_pack_that_was_cut_off_goes_on(shapes_folder, packed, tmp_path, monkeypatch):
    made = module._packed
    numbers = []

    def failing(data, making, part):
        numbers.append((part.split, part.number))
        if len(numbers) == 3:
            raise KeyboardInterrupt
        return made(data, making, part)

    monkeypatch.setattr(module, "_packed", failing)
    out = tmp_path / "cut"
    assert pack(shapes_folder, out, tmp_path, 32, "--shard-samples", "20") == 130
    assert not (out / "pack.json").exists()
    assert pack(shapes_folder, out, tmp_path, 32, "--shard-samples", "20") == 0
    assert len(numbers) == 6  # of five shards, the third was begun twice
    assert contents(out) == contents(packed)
    numbers.clear()
    assert pack(shapes_folder, out, tmp_path, 32, "--shard-samples", "20") == 0
    assert numbers == []


def test_what_cannot_be_used_is_left_out_and_on_record(shapes_folder, tmp_path):
    (shapes_folder / "003.png").write_bytes(b"<html>")
    out = tmp_path / "out"
    assert pack(shapes_folder, out, tmp_path, 32, "--max-bad-fraction", "0.1") == 0
    record = json.loads((out / "pack.json").read_bytes())
    [[where, reason]] = record["problems"]
    assert (where, reason[:21]) == ("003.png", "an HTML or XML page, ")
    assert len(open_shards(str(out), tmp_path / "c").split("train")) == 47


def test_too_much_that_cannot_be_used_is_no_pack(shapes_folder, tmp_path, capsys):
    (shapes_folder / "003.png").write_bytes(b"<html>")
    assert pack(shapes_folder, tmp_path / "out", tmp_path) == 3
    assert not (tmp_path / "out" / "pack.json").exists()
    assert "1 of 72 samples cannot be used, more than --max-bad-fraction 0.01" in (
        capsys.readouterr().err
    )


def test_check_and_pack_count_the_same_rows(tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    rows = ["image,caption,split"]
    for name, (png, colour, shape) in drawings(10).items():
        (folder / name).write_bytes(png)
        rows += [f"{name},a {colour} {shape} {i},train" for i in range(5)]
    (folder / "captions.csv").write_text("\n".join([*rows, "003.png,,train"]))
    (folder / "003.png").write_bytes(b"<html>")
    options = ("--max-bad-fraction", "0.13")
    assert pack(folder, tmp_path / "out", tmp_path, 32, *options) == 0
    assert "; 6 of 51 rows left out; " in capsys.readouterr().out
    words = ["check", str(folder), "--workers", "1", "--cache", str(tmp_path / "cache"), *options]
    assert main(words) == 0
    assert "usable: 11.76% unusable, 13.00% allowed (6 of 51 rows)" in capsys.readouterr().out
    assert pack(folder, tmp_path / "none", tmp_path, 32, "--max-bad-fraction", "0.11") == 3
    assert "6 of 51 samples cannot be used" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(shapes_folder, packed, tmp_path, capsys):
    assert pack(shapes_folder, shapes_folder, tmp_path) == 2
    assert "is not empty and holds no packed shards" in capsys.readouterr().err
    assert pack(shapes_folder, packed, tmp_path, 16, "--shard-samples", "20") == 2
    assert "a pack of another making (size: 32, now 16)" in capsys.readouterr().err


# ----------------------------------------------------------------- the record beside it


def test_content_is_the_identity_of_a_pack_even_at_one_size(packed, tmp_path):
    data = open_shards(str(packed), tmp_path / "c")
    assert all(shard.sha256 for shard in data.shards)
    moved = packed.rename(tmp_path / "moved")
    assert open_shards(str(moved), tmp_path / "c").fingerprint == data.fingerprint


def test_a_shard_that_is_lost_is_missed(packed, tmp_path):
    (packed / "train" / "000001.tar").unlink()
    assert main(["check", str(packed), "--cache", str(tmp_path)]) == 2


def test_a_shard_with_other_bytes_is_found(packed, tmp_path, capsys):
    file = packed / "train" / "000001.tar"
    data = bytearray(file.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        place = tar.getmembers()[1].offset_data
    data[place + 20] ^= 1
    file.write_bytes(bytes(data))
    words = ["check", str(packed), "--cache", str(tmp_path / "c"), "--workers", "1"]
    assert main(words) == 2
    assert f"{file} is not the shard that pack.json names" in capsys.readouterr().err


def test_a_shard_that_is_damaged_is_not_read_and_the_same_command_packs_it_again(
    shapes_folder, packed, tmp_path
):
    data, whole = open_shards(str(packed), tmp_path / "c"), contents(packed)
    image = data.split("train").images[25]
    file = packed / "train" / "000001.tar"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match=r"train/000001.tar is not the shard that pack.json names"):
        data.read(image)
    assert data.read(data.split("train").images[0])
    (packed / "test" / "000000.tar").unlink()

    assert pack(shapes_folder, packed, tmp_path, 32, "--shard-samples", "20") == 0
    assert contents(packed) == whole
    assert open_shards(str(packed), tmp_path / "c").read(image)


def test_a_shard_is_compared_once_on_a_machine_and_by_every_user(packed, tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(verified, "sha256_of", lambda f: read.append(f.name) or sha256_of(f))

    def opened():
        monkeypatch.setattr(verified, "_seen", {})
        data = open_shards(str(packed), tmp_path / "c")
        return [data.read(image) for image in data.split("test").images]

    pictures = opened()
    assert sorted(name for name in read if name.endswith(".tar")) == [
        "000000.tar", "000000.tar", "000001.tar", "000001.tar", "000002.tar"
    ]  # fmt: skip
    assert opened() == pictures  # and now the index, which the first one made
    read.clear()
    assert opened() == pictures
    assert read == []
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))  # whose marks are not ours
    assert opened() == pictures
    assert len(read) > 5


def test_a_shard_of_a_pack_that_is_no_name_in_it_is_refused(packed, tmp_path):
    record = json.loads((packed / "pack.json").read_bytes())
    record["shards"][0]["name"] = "../elsewhere.tar"
    (packed / "pack.json").write_text(json.dumps(record))
    (packed.parent / "elsewhere.tar").write_bytes(b"x" * record["shards"][0]["bytes"])
    assert main(["check", str(packed), "--cache", str(tmp_path / "c")]) == 2


def test_a_damaged_record_is_told(packed, capsys, tmp_path):
    (packed / "pack.json").write_text('{"version": 2}')
    assert main(["check", str(packed), "--cache", str(tmp_path)]) == 2
    assert "is no record of packed shards: version" in capsys.readouterr().err


# ----------------------------------------------------------------- whole runs


def test_a_run_from_a_pack_is_the_run_from_its_source(shapes_folder, packed, tmp_path):
    from harness.run import execute
    from harness.store.record import Store
    from tests.conftest import tiny_run

    results = {}
    for source, path in (("folder", shapes_folder), ("shards", packed)):
        runtime = Runtime(cache=str(tmp_path / "cache"))
        changes = {"data.source": source, "data.path": str(path), "train.samples": 64}
        config = with_fingerprints(
            tiny_run(path, **{"model.image.backbone": "test_resnet", **changes}), runtime
        )
        execute(config, tmp_path / "results", runtime, label="x")
        result = Store(tmp_path / "results").run_dir(config.run_key).result()
        results[source] = (
            result["checkpoint"]["sha256"],
            [entry["metrics"] for entry in result["evaluations"].values()],
        )
    assert results["shards"] == results["folder"]
