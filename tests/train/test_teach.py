"""A teacher that embedded the samples beforehand is the one that does it live, to rounding; what it
stored goes on where it was cut off, and is told from everything else before training."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.commands import data as command
from harness.config import Data, Runtime, override
from harness.config.sweep import expand
from harness.data import taught
from harness.data.taught import Stored, open_store
from harness.errors import ConfigError
from harness.launch.check import finisher, notes_on_runs
from harness.models.export import write_open_clip
from harness.models.two_tower import TwoTower
from harness.run import preflight
from harness.space import Show, Sweep, points
from harness.store.record import RunDir
from harness.train.teach import TooFewSamples, teach
from harness.train.teacher import load_teacher, open_stores, read_teacher
from tests.conftest import tiny_run, write_shapes
from tests.train.rank_cases import (
    CLIP,
    after,
    assert_same,
    gradients,
    on_ranks,
    uneven_data,
)
from tests.train.test_teacher import IMITATED, TEACHERS, finish, taught_by, trainer

WIDE = TEACHERS["wide"]
CROPPED = override(CLIP, {"data.crop_scale": [0.4, 1.0], "data.flip": True, "seed": 2})
CONTENT = f"run {WIDE.run_key}"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(taught, "PART_SAMPLES", 10)


@pytest.fixture
def runs(tmp_path):
    finish(tmp_path / "runs", WIDE)
    return tmp_path / "runs"


def stored(runs, config=CROPPED, views=2, data=None, progress=lambda done, of: None, **runtime):
    """Store what WIDE makes of the samples; the folder."""
    teacher = load_teacher(read_teacher(CONTENT), CONTENT, runs)
    return teach(
        teacher,
        CONTENT,
        data or uneven_data(),
        config,
        Runtime(**runtime),
        views=views,
        cache=runs.parent / "cache",
        precision="fp32",
        progress=progress,
    )


def run_of(views, base=CROPPED):
    return taught_by(WIDE, base=base, **{"teacher.views": views})


def cached(runs):
    return {"cache": str(runs.parent / "cache")}


def contents(folder):
    files = (file for file in folder.iterdir() if file.suffix != ".lock")
    return {file.name: file.read_bytes() for file in files}


# --------------------------------------------------------------------------- stored is live


def test_what_is_stored_is_what_is_live_to_rounding(runs):
    stored(runs)
    live = trainer(runs, run_of(None))
    kept = trainer(runs, run_of(2), **cached(runs))
    pairs = list(zip(live.batches.start(), kept.batches.start(), strict=True))
    assert len(pairs) == 6  # two epochs
    for one, other in pairs:
        assert torch.equal(one.pictures, other.pictures)
        assert one.lesson.captions == other.lesson.captions
        for a, b in zip(live.teachers.embed(one), kept.teachers.embed(other), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=5e-4)
    trained = [gradients(after(each, 5)) for each in (live, kept)]
    assert_same(trained[1], trained[0], 0.02)


def test_views_fewer_than_epochs_are_seen_again(runs):
    stored(runs, views=1)
    batches = list(trainer(runs, run_of(1), **cached(runs)).batches.start())
    live = list(trainer(runs, run_of(None)).batches.start())
    assert all((batch.lesson.views == 0).all() for batch in batches)
    by_place = {}
    for batch in batches[:3]:
        by_place |= dict(zip(batch.lesson.places.tolist(), batch.pictures, strict=True))
    for batch, other in zip(batches[3:], live[3:], strict=True):
        assert torch.equal(batch.lesson.places, other.lesson.places)
        assert not torch.equal(batch.pictures, other.pictures)
        for place, picture in zip(batch.lesson.places.tolist(), batch.pictures, strict=True):
            assert torch.equal(picture, by_place[place])


@pytest.mark.usefixtures("in_64_bits")
def test_two_processes_have_the_gradients_of_one(runs, tmp_path):
    stored(runs)
    alone = gradients(after(trainer(runs, run_of(2), **cached(runs)), 1))
    RunDir(runs / run_of(2).run_key).set_aside()

    def together(ranks):
        return gradients(after(trainer(runs, run_of(2), ranks, **cached(runs)), 1))

    for found in on_ranks(tmp_path, 2, together):
        assert_same(found, alone, 1e-9)


# --------------------------------------------------------------------------- made once


class Stopped(Exception):
    pass


def test_a_store_goes_on_where_it_was_cut_off_and_grows(runs):
    whole = contents(stored(runs, views=3))
    (runs.parent / "cache").rename(runs.parent / "first")
    told = []

    def stop(done, of):
        told.append((done, of))
        if done == 34:
            raise Stopped

    with pytest.raises(Stopped):
        stored(runs, views=2, progress=stop)
    assert told == [(10, 48), (20, 48), (24, 48), (34, 48)]
    folder = Stored.of(CONTENT, "f" * 64, CROPPED.data, 2).folder(runs.parent / "cache")
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.f16")}
    assert len(before) == 4
    with pytest.raises(ConfigError, match=r"is half written; python -m harness\.data teach 'run "):
        trainer(runs, run_of(2), **cached(runs))
    stored(runs, views=2)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    stored(runs, views=3)
    assert contents(folder) == whole
    stored(runs, views=1)  # fewer are there already
    assert contents(folder) == whole


def test_a_part_of_other_weights_or_damaged_is_made_anew(runs):
    folder = stored(runs, views=1)
    whole = contents(folder)
    part = folder / "view-0000-00001.f16"
    part.write_bytes(part.read_bytes()[:-2] + b"xx")
    with pytest.raises(ConfigError, match=r"is damaged; python -m harness\.data teach"):
        trainer(runs, run_of(1), **cached(runs))
    stored(runs, views=1)
    assert contents(folder) == whole


def test_a_sample_that_cannot_be_used_is_told_once_it_can(runs):
    data = uneven_data()
    data.files["003.png"] = b"<html>"
    with pytest.raises(TooFewSamples, match=r"1 of 24 .* allows; the first: 003\.png"):
        stored(runs, data=data, max_bad_fraction=0.01)
    stored(runs, data=data, max_bad_fraction=0.1)
    bad = {**cached(runs), "max_bad_fraction": 0.1}
    after(trainer(runs, run_of(2), data=data, **bad), 5)
    with pytest.raises(ConfigError, match=r"lacks 1 of 24 samples, and 003\.png can be used now"):
        trainer(runs, run_of(2), **cached(runs))
    stored(runs)
    trainer(runs, run_of(2), **cached(runs))


def test_numbers_that_are_none_are_never_stored(runs, monkeypatch):
    teacher = load_teacher(read_teacher(CONTENT), CONTENT, runs)
    embed = type(teacher).embed

    def broken(self, pictures, captions, precision):
        image, text = embed(self, pictures, captions, precision)
        text[captions.index("a red bar") if "a red bar" in captions else 0, 2] = float("nan")
        return image, text

    monkeypatch.setattr(type(teacher), "embed", broken)
    with pytest.raises(ConfigError, match=r"is no number \(NaN or infinite\) of training sample"):
        stored(runs)


# --------------------------------------------------------------------------- which store


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"seed": 3}, r"are of other seed 2 \(here 3\); .* --views 2 --seeds 3 --cache .* --set "),
        ({"data.flip": False}, r"are of other flip True \(here False\)"),
        ({"data.crop_scale": [0.5, 1.0]}, r"are of other crop_scale \[0\.4, 1\.0\]"),
    ],
)
def test_a_store_of_other_draws_is_told_from_the_runs_own(runs, values, line):
    stored(runs)
    with pytest.raises(ConfigError, match=line):
        trainer(runs, run_of(2, override(CROPPED, values)), **cached(runs))


def test_a_store_of_other_data_or_of_nobody_is_told(runs):
    with pytest.raises(ConfigError, match=f"there are no stored views of {CONTENT} in "):
        trainer(runs, run_of(2), **cached(runs))
    stored(runs)
    other = uneven_data()
    object.__setattr__(other, "fingerprint", "0" * 64)
    with pytest.raises(ConfigError, match=r"are of other data ffffffffffff \(here 000000000000\)"):
        trainer(runs, run_of(2), data=other, **cached(runs))


def test_too_few_views_and_missing_samples_are_told(runs):
    stored(runs, views=1)
    with pytest.raises(ConfigError, match=r"teacher\.views = 2, and .* holds 1 of run"):
        trainer(runs, run_of(2), **cached(runs))
    fewer = uneven_data()
    train = fewer.split("train")
    del train.images[-1], train.captions[-1]
    with pytest.raises(ConfigError, match="holds 24 samples in 6 dimensions, and 23 in 6 are"):
        open_stores(run_of(1), fewer, Runtime(**cached(runs)))


def test_a_teacher_trained_anew_is_told(runs):
    stored(runs)
    directory = RunDir(runs / WIDE.run_key)
    result = directory.finished()
    directory.write_result({**result, "checkpoint": {**result["checkpoint"], "sha256": "0" * 64}})
    with pytest.raises(ConfigError, match=f"with other weights of run {WIDE.run_key} than it has"):
        trainer(runs, run_of(2), **cached(runs))


def test_views_that_another_decoder_made_are_others():
    pillow, turbo = (Stored.of("run 1a2b", "d", Data(decoder=d), 0) for d in ("pillow", "turbo"))
    assert pillow.folder(Path("cache")) != turbo.folder(Path("cache"))


def test_rows_are_those_of_their_samples_and_views(tmp_path):
    wanted = Stored("run 1a2b", "d", 0, (0.5, 1.0), False, "full")
    folder = wanted.folder(tmp_path)
    taught.begin_store(folder)
    rows = np.arange(2 * 12 * 2 * 3, dtype=np.float16).reshape(2, 12, 2, 3)
    for view in range(2):
        for part, span in enumerate((slice(0, 10), slice(10, 12))):
            taught.write_part(folder, view, part, rows[view, span], {"run": "1a2b"})
    about = {"samples": 12, "views": 2, "scale": 3.0, "record": {"run": "1a2b"}, "missing": []}
    taught.finish_store(folder, wanted, about)
    whole = open_store(wanted, 2, tmp_path, "")
    found = whole.rows(np.array([1, 0, 1]), np.array([11, 0, 9]))
    np.testing.assert_array_equal(found, rows[[1, 0, 1], [11, 0, 9]])


# --------------------------------------------------------------------------- the command


@pytest.fixture
def export(tmp_path):
    """An export's folder and a folder of data."""
    values = {"model.image.output_stride": None, "model.text.vocabulary": "full"}
    write_open_clip(TwoTower(override(CLIP, values).model, None, 0).eval(), tmp_path / "clip")
    return tmp_path / "clip", write_shapes(tmp_path / "shapes")


def words(export, *more):
    folder, data = export
    cache = str(folder.parent / "cache")
    root = ["--root", str(folder.parent), "--cache", cache, "--workers", "1"]
    return ["teach", f"{folder}/", str(data), *root, *more]


def test_the_command_stores_each_seed_and_a_sweep_takes_it(export, capsys):
    folder, data = export
    assert command.main(words(export, "--views", "2", "--seeds", "0,1")) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" with ")[2] for line in told] == ["seed 0", "seed 1"]
    runtime = Runtime(cache=str(folder.parent / "cache"))
    values = {**IMITATED, "teacher.models": f"{folder}/", "teacher.views": 2}
    taught = tiny_run(data, **values, **{"train.samples": 240})
    made = Sweep(
        base=taught,
        points=points({"train.lr": 1e-3}),
        seeds=[0, 1],
        show=Show(x="train.lr", metrics=[]),
    )
    runs = expand(made, finish=finisher(runtime))
    assert preflight([run.config for run in runs], runtime) == []
    (note,) = [note for note in notes_on_runs(runs, runtime) if "teacher" in note]
    assert note == "teacher.views = 2: the crops of 2 epochs are seen again in 5.0"
    (line,) = preflight([override(runs[0].config, {"data.flip": True})], runtime)
    assert "are of other flip False (here True); python -m harness.data teach" in line
    asked = shlex.split(line.partition("; python -m harness.")[2].removesuffix(" makes it"))
    assert asked[0] == "data"
    assert command.main([*asked[1:], "--workers", "1"]) == 0
    assert preflight([override(runs[0].config, {"data.flip": True})], runtime) == []


@pytest.mark.parametrize(
    ("teacher", "more", "line"),
    [
        ("12 layers", [], "of which run? name one that is finished: 'run KEY'"),
        ("even of 12", [], "is not understood; allowed are '12 layers'"),
        ("run 1a2b", [], "holds no run, and so not '1a2b'"),
        ("./nowhere", [], "is no export"),
        (None, ["--views", "0"], "--views 0 is less than 1"),
        (None, ["--set", "train.lr=1"], "--set train.lr: a field of data is wanted"),
        (None, ["--set", "data.flips=1"], "unknown field 'data.flips'; nearest: data.flip"),
    ],
)
def test_what_cannot_be_stored_is_a_line(export, capsys, teacher, more, line):
    given = words(export, *more)
    given[1] = teacher or given[1]
    assert command.main(given) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
