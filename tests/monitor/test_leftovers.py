"""What `python -m harness.clean` frees, and all that it leaves where it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.commands.clean import main
from harness.config import Runtime, override
from harness.config.bases import SMALL
from harness.config.sweep import Run, Show, Sweep, points
from harness.monitor.leftovers import leftovers
from harness.store.lease import Lease
from harness.store.manifest import write_manifest
from harness.store.record import RunDir, Store
from harness.store.state import State


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def put(path: Path, size: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def run(store: Store, seed: int, state: State, failure: str | None = None) -> RunDir:
    """A run with a state to go on from and, if done, its weights."""
    config = override(SMALL, {"seed": seed})
    directory = store.run_dir(config.run_key)
    directory.write_intent(config, {"label": "x"})
    directory.write_status(state, attempt=1, failure=failure, error=failure)
    put(directory.checkpoints / "step-00000001-0000000000000000.pt", 1_000 + seed)
    if state is State.DONE:
        put(directory.checkpoints / "final-0.safetensors")
        checkpoint = {"file": "checkpoints/final-0.safetensors", "sha256": "0" * 64}
        training = {"samples_seen": 1, "seconds": 1.0}
        directory.write_result(
            {"checkpoint": checkpoint, "training": training, "evaluations": {}, "cost": {}}
        )
    return directory


def every_file(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def clean(store: Store, *words: str) -> int:
    cache = store.root.parent / "cache"
    return main(["--root", str(store.root), "--cache", str(cache), *words])


def test_nothing_is_freed_unless_it_is_asked_for(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run(store, 0, State.DONE)
    before = every_file(store.root)

    assert clean(store) == 0

    assert every_file(store.root) == before
    out = capsys.readouterr().out
    assert "step-00000001" in out
    assert "--yes frees them" in out


def test_weights_of_results_and_states_of_runs_that_go_on_stay(store: Store) -> None:
    kept = [run(store, 1, State.INTERRUPTED), run(store, 2, State.FAILED, "killed")]
    done = run(store, 3, State.DONE)
    failed = run(store, 4, State.FAILED, "diverged")
    old = run(store, 5, State.DONE).set_aside()
    before = every_file(store.root)

    assert clean(store, "--yes") == 0

    gone = before - every_file(store.root)
    places = [done.path, failed.path, old]
    steps = {f"{p.relative_to(store.root)}/checkpoints/step-00000001-{'0' * 16}.pt" for p in places}
    assert gone == steps | {f"{old.relative_to(store.root)}/checkpoints/final-0.safetensors"}
    assert all(any(directory.checkpoints.iterdir()) for directory in kept)


def test_a_run_at_work_is_left_alone(store: Store, tmp_path: Path) -> None:
    directory = run(store, 0, State.FAILED, "diverged")

    with Lease(directory.lease_file):
        assert leftovers(store, tmp_path / "cache", 7) == []
    assert len(leftovers(store, tmp_path / "cache", 7)) == 1


def test_frozen_code_stays_while_a_record_reads_its_sweep_file(
    store: Store, tmp_path: Path
) -> None:
    code = store.root / "results" / "code"
    put(code / "aaaa" / "harness" / "run.py")
    put(code / "bbbb" / "sweeps" / "mine.py")
    directory = store.run_dir(SMALL.run_key)
    source = {"path": str(code / "bbbb" / "sweeps" / "mine.py"), "sha256": "0" * 64}
    directory.write_intent(SMALL, {"label": "x", "sweep": source})

    assert [each.path.name for each in leftovers(store, tmp_path / "cache", 7)] == ["aaaa"]


def test_caches_and_temporaries_go_when_they_were_not_used_for_long(
    store: Store, tmp_path: Path
) -> None:
    cache, now = tmp_path / "cache", time.time()
    old = [put(cache / "old.zip", 300), put(store.root / "results" / ".a.tmp", 200)]
    new = [put(cache / "new" / "part", 300), put(store.root / "results" / ".b.tmp", 200)]
    lock = put(cache / "old.zip.lock")
    for file in (*old, lock):
        os.utime(file, (now - 8 * 86_400, now - 8 * 86_400))

    assert [each.path for each in leftovers(store, cache, 7)] == old
    assert clean(store, "--yes") == 0
    assert not any(file.exists() for file in old)
    assert all(file.exists() for file in (*new, lock))


def aged(file: Path, days: float) -> Path:
    now = time.time()
    os.utime(file, (now - days * 86_400, now - days * 86_400))
    return file


def test_entries_of_a_cache_go_one_by_one_each_with_its_checksum(
    store: Store, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    old = [
        aged(put(cache / "unpacked" / "a-1.tar", 500), 9),
        aged(put(cache / "unpacked" / "a-1.tar.json", 80), 9),
        aged(put(cache / "texts" / "tower" / "t" / "n.npz", 400), 9).parents[1],
        aged(put(cache / "shards-0" / "summary.json", 300), 9).parent,
        aged(put(cache / "quarantine" / "x-1.json", 60), 9),
    ]
    kept = [
        aged(put(cache / "unpacked" / "b-2.tar", 500), 9),
        put(cache / "unpacked" / "b-2.tar.json", 80),  # which is read with it
        put(cache / "texts" / "another" / "t" / "n.npz"),
        aged(put(cache / "shards-1" / "train.names"), 9),
        put(cache / "shards-1" / "summary.json"),
    ]

    assert {each.path for each in leftovers(store, cache, 7)} == set(old)
    assert clean(store, "--yes") == 0
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    ("state", "failure", "stays"),
    [
        (State.INTERRUPTED, None, True),
        (State.FAILED, "killed", True),
        (State.FAILED, "diverged", False),
        (State.DONE, None, False),
    ],
)
def test_what_a_run_that_will_go_on_has_used_stays(
    store: Store, tmp_path: Path, state: State, failure: str | None, stays: bool
) -> None:
    directory = run(store, 0, state, failure)
    show = Show(x="seed", metrics=[])
    sweep = Sweep(base=SMALL, points=points({"train.samples": 64}), seeds=[0], show=show, name="s")
    config = override(SMALL, {"seed": 0})
    write_manifest(store, sweep, [Run("x", {}, 0, config)], Runtime(), ["x"])
    aged(directory.path / "config.json", 30)
    used = aged(put(tmp_path / "cache" / "openmoji-1.zip"), 20)
    before = aged(put(tmp_path / "cache" / "openmoji-0.zip"), 40)

    found = {each.path for each in leftovers(store, tmp_path / "cache", 7)}

    assert (used not in found) is stays
    assert before in found


def test_the_states_of_a_trial_that_was_pruned_go(store: Store, tmp_path: Path) -> None:
    pruned, cancelled = run(store, 0, State.RUNNING), run(store, 1, State.RUNNING)
    pruned.write_status(State.INTERRUPTED, attempt=1, stopped="pruned")
    cancelled.write_status(State.INTERRUPTED, attempt=1, stopped="cancelled")

    (found,) = leftovers(store, tmp_path / "cache", 7)

    assert found.path.is_relative_to(pruned.path)
    assert found.why == "its trial was pruned"


def test_nothing_is_freed_through_a_link(store: Store, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere" / "step-00000001-0000000000000000.pt").parent
    directory = run(store, 0, State.FAILED, "diverged")
    for file in directory.checkpoints.iterdir():
        file.unlink()
    directory.checkpoints.rmdir()
    directory.checkpoints.symlink_to(elsewhere)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "link").symlink_to(elsewhere)

    assert leftovers(store, tmp_path / "cache", 0) == []


@pytest.mark.parametrize("days", ["-1", "nan", "soon"])
def test_days_that_are_none_are_one_line(
    days: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clean(store, "--days", days) == 2
    assert f"{days!r} is not a number of days" in capsys.readouterr().err


def test_an_empty_store_has_nothing_to_free(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clean(store) == 0
    assert capsys.readouterr().out == "nothing to free\n"
