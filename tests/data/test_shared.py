"""One decoded stream for several runs: their bits are those that each would have alone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest
import torch

from harness.config import RunConfig, Runtime, override
from harness.data import shared
from harness.data.loader import Batches, Lessons
from harness.data.pictured import PictureSpec
from harness.data.text import Tokenizer
from tests.conftest import memory_data

CONFIG = override(
    RunConfig(), {"train.batch_size": 5, "train.samples": 42, "model.image.size": 16, "seed": 3}
)
STEPS = 9
VIEWS = override(CONFIG, {"objective.views.weight": 1.0})
RUN = """
import os, signal, sys, time
from tests.data.test_shared import CONFIG, batches_of
from tests.conftest import memory_data
data, how, at = memory_data(), sys.argv[1], int(sys.argv[2])
read, seen = type(data).read, []
def reading(self, image):
    seen.append(image)
    if len(seen) == at:
        print(how, flush=True)
        os.kill(os.getpid(), getattr(signal, how))
    return read(self, image)
type(data).read = reading
for batch in batches_of(data).start():
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with shared.shared_folder(tmp_path) as made:
        monkeypatch.setenv(shared.VARIABLE, str(made))
        yield made


def batches_of(data=None, config=CONFIG, lessons=None, rank=0, **runtime):
    runtime = Runtime(decode_cache_mb=0, **runtime)
    return Batches(data or memory_data(), Tokenizer(16), config, runtime, rank, lessons)


def alone(monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patch:
        patch.delenv(shared.VARIABLE)
        return list(batches_of(*args, **kwargs).start())


def parts(batch):
    lesson = batch.lesson
    taught = () if lesson is None else (lesson.places, lesson.views, *lesson.pictures.values())
    return [batch.pictures, batch.tokens, *batch.views.values(), *taught]


def same(a, b):
    told = a.problems == b.problems
    equal = [torch.equal(x, y) for x, y in zip(parts(a), parts(b), strict=True)]
    return told and all(equal) and (a.lesson is None or a.lesson.captions == b.lesson.captions)


def all_same(a, b):
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def in_turns(streams):
    """Each to its end, a batch of each in turns."""
    seen = [[] for _ in streams]
    for _ in range(STEPS):
        for made, stream in zip(seen, streams, strict=True):
            made.extend([next(stream)])
    for stream in streams:
        assert next(stream, None) is None
    return seen


# --------------------------------------------------------------------------- side by side


def test_three_runs_decode_each_batch_once_and_have_the_bits_of_each_alone(folder, monkeypatch):
    own = alone(monkeypatch)
    runs = in_turns([batches_of().start() for _ in range(3)])
    assert all(all_same(run, own) for run in runs)
    assert sum(batch.made for run in runs for batch in run) == STEPS
    assert [file.name for file in folder.iterdir()] == ["launch"]  # the last takes all with it


def test_what_else_a_batch_holds_is_shared_too(folder, monkeypatch):
    data = memory_data()
    data.files["003.png"] = b"<html>not a picture</html>"
    lessons = Lessons(sizes=(8, 24), views=2)
    own = alone(monkeypatch, data, VIEWS, lessons)
    assert any(batch.problems for batch in own)
    runs = in_turns([batches_of(data, VIEWS, lessons).start() for _ in range(2)])
    assert all(all_same(run, own) for run in runs)
    assert sum(batch.made for run in runs for batch in run) == STEPS


def test_runs_that_tokenise_otherwise_share_the_pictures_alone(folder, monkeypatch):
    other = override(CONFIG, {"train.samples": 40})
    runtime = Runtime(decode_cache_mb=0)
    short = Batches(memory_data(), Tokenizer(4), other, runtime)
    a, b = batches_of().start(), short.start()
    for _ in range(8):
        first, second = next(a), next(b)
        assert torch.equal(first.pictures, second.pictures)
        assert second.tokens.shape[1] == 4
        assert second.made == 0


def test_the_processes_of_several_runs_share_by_rank(folder, monkeypatch):
    config = override(CONFIG, {"train.batch_size": 6})
    for rank in (0, 1):
        own = alone(monkeypatch, config=config, rank=rank, processes=2)
        a = list(batches_of(config=config, rank=rank, processes=2).start())
        assert all_same(a, own)


def test_several_decoding_processes_a_run(folder, monkeypatch):
    own = alone(monkeypatch)
    runs = in_turns([batches_of(workers=2).start(), batches_of().start()])
    assert all(all_same(run, own) for run in runs)


def test_a_run_that_is_far_behind_decodes_for_itself_and_changes_nobody(folder, monkeypatch, capfd):
    monkeypatch.setattr(shared, "_KEPT", 2)
    own = alone(monkeypatch)
    fast, slow = batches_of().start(), batches_of().start()
    seen, behind = [next(fast) for _ in range(6)], [next(slow)]
    assert behind[0].made == 1
    for _ in range(3):
        seen.append(next(fast))
        behind.append(next(slow))
    assert "other runs are further than what is kept" in capfd.readouterr().err
    behind += list(slow)
    assert all_same(seen, own)
    assert all_same(behind, own)


def test_one_that_starts_late_reads_what_is_kept_and_a_resumed_one_the_rest(folder, monkeypatch):
    own = alone(monkeypatch)
    first = batches_of().start()
    ahead = [next(first) for _ in range(5)]
    late, resumed = batches_of().start(), batches_of().start(3)
    assert [next(late).made for _ in range(5)] == [0] * 5
    assert all_same(list(resumed), own[3:])
    assert all_same(ahead + list(first), own)


def test_two_slow_ones_share_though_a_fast_one_is_far_ahead(folder, monkeypatch):
    monkeypatch.setattr(shared, "_KEPT", 2)
    fast, a, b = (batches_of().start() for _ in range(3))
    for _ in range(7):
        next(fast)
    next(a), next(b)  # a run is known to the others from its first batch on
    made = [next(stream).made for _ in range(4) for stream in (a, b)]
    assert sum(made) == 4


# --------------------------------------------------------------------------- faults


def other_run(how, at):
    """Another process with the same stream, that signals itself at the picture number `at`."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, how, str(at)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == how
    return process


def test_a_run_killed_while_it_decodes_keeps_nobody_waiting_and_its_place_goes(folder, monkeypatch):
    own = alone(monkeypatch)
    process = other_run("SIGKILL", 12)  # in the midst of the third batch
    process.wait()
    stream = batches_of().start()
    seen = [next(stream), next(stream), next(stream)]
    assert [batch.made for batch in seen] == [0, 0, 1]
    assert len(list(folder.glob("*/reader-*"))) == 1
    assert all_same(seen + list(stream), own)


def test_a_run_that_is_stopped_in_the_midst_of_a_batch_is_not_waited_for(
    folder, monkeypatch, capfd
):
    monkeypatch.setattr(shared, "_PATIENCE_SECONDS", 0.05)
    own = alone(monkeypatch)
    process = other_run("SIGSTOP", 12)
    try:
        assert all_same(list(batches_of().start()), own)
        assert "another run does not end a batch" in capfd.readouterr().err
    finally:
        process.kill()
        process.wait()


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fault", ["no room", "full", "gone", "open to others", "absent"])
def test_whatever_is_wrong_with_the_folder_a_run_goes_on_by_itself(
    folder, monkeypatch, capfd, fault
):
    own = alone(monkeypatch)
    stream = batches_of().start()
    seen = []
    if fault == "no room":
        monkeypatch.setattr(shared, "_SHARE_OF_MEMORY", 10**15)
    elif fault == "full":
        monkeypatch.setattr(shared, "_for_us_alone", full)
    elif fault == "open to others":
        folder.chmod(0o755)
    elif fault == "absent":
        monkeypatch.setenv(shared.VARIABLE, str(folder / "nowhere"))
        stream = batches_of().start()
    else:
        seen.append(next(stream))
        shared.shutil.rmtree(folder)
    assert all_same(seen + list(stream), own)
    said = capfd.readouterr().err
    assert said.count("this run decodes all its pictures itself") == 1
    assert f"{STEPS} batches decoded of {STEPS} seen" in said


def test_what_a_killed_launch_left_goes_with_the_next_one(tmp_path, monkeypatch):
    left = tmp_path / "lightclip-shared-left"
    left.mkdir(mode=0o700)
    (left / "launch").touch()
    with shared.shared_folder(tmp_path) as young:
        assert left.exists()  # it may be about to be used
        old = time.time() - 100
        os.utime(left, (old, old))
        os.utime(young, (old, old))
        with shared.shared_folder(tmp_path):
            assert not left.exists()
            assert young.exists()


def test_a_stream_of_dead_runs_goes_when_another_begins(folder):
    other_run("SIGKILL", 12).wait()
    (left,) = (file for file in folder.iterdir() if file.is_dir())
    os.utime(left, (0, 0))
    next(batches_of(config=override(CONFIG, {"seed": 4})).start())
    assert not left.exists()


# --------------------------------------------------------------------------- the key


@pytest.mark.parametrize(
    ("path", "value", "equal"),
    [
        ("seed", 4, False),
        ("train.batch_size", 6, False),
        ("model.image.size", 24, False),
        ("data.crop_scale", (0.9, 1.0), False),
        ("data.flip", True, False),
        ("objective.views.least_area", 0.5, False),
        ("objective.views.count", 1, False),
        ("objective.views.weight", 0.0, False),
        ("train.lr", 1e-5, True),
        ("train.samples", 45, True),
        ("model.text.layers", 3, True),
        ("model.image.backbone", "resnet18", True),
    ],
)
def test_the_key_is_equal_just_where_the_pictures_are(monkeypatch, path, value, equal):
    monkeypatch.setenv(shared.VARIABLE, "")
    other = override(VIEWS, {path: value})
    a, b = (batches_of(config=config) for config in (VIEWS, other))
    assert (a.samples.spec.key == b.samples.spec.key) is equal
    shown, others = next(a.start()), next(b.start())
    seen, seen_there = ([x.pictures, *x.views.values()] for x in (shown, others))
    same_shown = len(seen) == len(seen_there) and all(map(torch.equal, seen, seen_there))
    assert same_shown is equal


def test_the_key_covers_content_known_faults_rank_and_teachers():
    def key(**others):
        return PictureSpec.of(CONFIG, Runtime(), **others).key

    keys = {
        key(),
        key(fingerprint="other"),
        key(known_bad={"a.png": "broken"}),
        key(rank=1),
        key(sizes=(8,)),
        key(views=2),
        PictureSpec.of(CONFIG, Runtime(max_pixels=10)).key,
        PictureSpec.of(CONFIG, Runtime(processes=5)).key,
    }
    assert len(keys) == 8
