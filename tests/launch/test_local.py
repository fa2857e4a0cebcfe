"""Worker processes: what their death leaves behind, what they share, how they stop."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from launch_cases import status, trained, wait_until, when

from harness.commands import sweep
from harness.config import Runtime
from harness.errors import ConfigError, HarnessError
from harness.files import read_json, read_jsonl
from harness.launch import worker_process
from harness.launch.backlog import Backlog
from harness.launch.executor import Assignment
from harness.launch.executors.local import LocalExecutor
from harness.launch.processes import Stop
from harness.launch.slots import SPINS, Slot, decoders, gpus_listed, make_slots, visible_gpus
from harness.planning.plan import Step
from harness.store.lease import lease_holder
from harness.store.record import RunDir, Store
from harness.store.state import State

Plan = Callable[..., list[Step]]


def launch(
    store: Store,
    planned: list[Step],
    *,
    slots: int = 1,
    stop: Stop | None = None,
    runtime: Runtime | None = None,
) -> list[str]:
    said: list[str] = []
    with LocalExecutor(
        Assignment(store, runtime or Runtime()), stop, [Slot(1)] * slots
    ) as executor:
        executor.launch(Backlog(planned, store, said.append), said.append)
    return said


def pids(store: Store, step: Step) -> list[int]:
    entries = read_json(store.run_dir(step.run.key).path / "provenance.json")
    assert entries is not None
    return [entry["pid"] for entry in entries["attempts"]]


@pytest.mark.usefixtures("fake_workers")
class TestDeath:
    def test_a_killed_run_is_tried_once_more_after_the_others(
        self, steps: Plan, store: Store
    ) -> None:
        launch(store, steps({"a": "killed 1", "b": "done", "c": "done"}))
        assert trained(store) == ["b seed 0", "c seed 0", "a seed 0"]

    def test_a_run_killed_twice_is_filed_as_killed_with_signal_and_log(
        self, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "killed 2", "b": "done"})
        launch(store, planned)
        seen = status(store, planned[0])
        log = store.run_dir(planned[0].run.key).log_file(2)
        assert (seen.state, seen.failure, seen.error) == (
            State.FAILED,
            "killed",
            "killed by SIGKILL",
        )
        assert seen.details is not None
        assert seen.details["log"] == str(log)
        assert log.read_text() == "attempt 2 of a\n"
        assert trained(store) == ["b seed 0"]

    def test_the_log_of_a_crash_in_c_names_the_line_it_came_from(
        self, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "segfault"})
        launch(store, planned)
        assert status(store, planned[0]).error == "killed by SIGSEGV"
        log = store.run_dir(planned[0].run.key).log_file(1).read_text()
        assert "Fatal Python error: Segmentation fault" in log

    def test_an_out_of_memory_kill_is_its_own_class_and_not_tried_at_once(
        self, steps: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = iter(range(100))
        monkeypatch.setattr(worker_process, "oom_kills", lambda: next(counts))
        planned = steps({"a": "killed 1"})
        launch(store, planned)
        assert status(store, planned[0]).failure == "out_of_memory"
        assert len(pids(store, planned[0])) == 1

    def test_a_library_that_ends_the_process_fails_its_run_alone(
        self, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "exit 7", "b": "done"})
        launch(store, planned)
        seen = status(store, planned[0])
        assert (seen.failure, seen.error) == ("bug", "the run's process ended with exit code 7")
        assert trained(store) == ["b seed 0"]

    def test_a_worker_that_cannot_start_is_one_line(
        self, steps: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planned = steps({"a": "done"})
        monkeypatch.setenv("REAL_HARNESS", "/nowhere")
        executor = LocalExecutor(Assignment(store, Runtime()), Stop(), [Slot(1)])
        with executor, pytest.raises(HarnessError, match=r"No module named 'harness\.\w+'"):
            executor.preflight([planned[0].run.config])


@pytest.mark.usefixtures("fake_workers")
class TestSharing:
    def test_a_worker_that_ends_one_run_goes_on_with_the_next(
        self, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "done", "b": "diverged", "c": "done"})
        launch(store, planned)
        assert len({pid for step in planned for pid in pids(store, step)}) == 1

    def test_slots_run_side_by_side(self, steps: Plan, store: Store) -> None:
        planned = steps({"a": "wait 1", "b": "done"})
        stop = Stop()
        # `a` ends only when stopped, so `b` can only end beside it.
        thread = when(
            lambda: trained(store) == ["b seed 0"] and status(store, planned[0]).attempt == 1,
            stop.ask,
        )
        launch(store, planned, slots=2, stop=stop)
        thread.join()
        assert status(store, planned[0]).state is State.INTERRUPTED

    def test_no_more_workers_than_runs(
        self, steps: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started: list[Slot] = []
        start = worker_process.WorkerProcess.__init__

        def count(self: worker_process.WorkerProcess, slot: Slot, *rest: None) -> None:
            started.append(slot)
            start(self, slot, *rest)

        monkeypatch.setattr(worker_process.WorkerProcess, "__init__", count)
        launch(store, steps({"a": "done"}), slots=8)
        assert len(started) == 1


@pytest.mark.usefixtures("fake_workers")
class TestStop:
    def test_a_worker_told_to_stop_by_somebody_else_is_replaced(
        self, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "wait 1", "b": "done"})
        thread = when(
            lambda: status(store, planned[0]).attempt == 1,
            lambda: os.kill(pids(store, planned[0])[0], signal.SIGTERM),
        )
        launch(store, planned)
        thread.join()
        assert trained(store) == ["b seed 0", "a seed 0"]

    def test_a_run_stops_when_its_launcher_is_gone(self, steps: Plan, store: Store) -> None:
        planned = steps({"a": "wait 1"})
        executor = LocalExecutor(Assignment(store, Runtime()), Stop(), [Slot(1)])
        with executor:
            executor._start(store_intent(store, planned[0]), 0)
            wait_until(lambda: status(store, planned[0]).attempt == 1)
            worker = executor._workers[0]
            assert worker.process.stdin is not None
            worker.process.stdin.close()  # all that a dead launcher does
            wait_until(worker.dead)
        assert status(store, planned[0]).state is State.INTERRUPTED
        assert worker.process.returncode == 0


def store_intent(store: Store, step: Step) -> Step:
    store.run_dir(step.run.key).write_intent(step.run.config, {"label": step.run.label})
    return step


class TestSlots:
    @pytest.mark.parametrize(
        ("wanted", "threads", "gpus", "cores", "expected"),
        [
            (None, 1, [], 2, [Slot(1), Slot(1)]),
            (1, 1, [], 8, [Slot(1)]),
            (4, 1, [], 2, [Slot(1)] * 4),
            (None, 4, [], 8, [Slot(4)] * 2),
            (1, 4, [], 2, [Slot(4)]),
            (None, 1, ["0", "3"], 8, [Slot(1, "0"), Slot(1, "3")]),
            (3, 2, ["0", "3"], 8, [Slot(2, "0"), Slot(2, "3"), Slot(2, "0")]),
        ],
    )
    def test_a_run_has_the_threads_it_was_told_whatever_slots_and_cores(
        self,
        wanted: int | None,
        threads: int,
        gpus: list[str],
        cores: int,
        expected: list[Slot],
    ) -> None:
        assert make_slots(wanted=wanted, threads=threads, gpus=gpus, cores=cores) == expected

    def test_a_slot_has_a_gpu_or_its_threads_for_each_process(self) -> None:
        two = partial(make_slots, wanted=None, threads=2, processes=2)
        assert two(gpus=["0", "1", "2", "3", "4"], cores=8) == [Slot(2, "0,1"), Slot(2, "2,3")]
        assert two(gpus=[], cores=8) == [Slot(2)] * 2
        assert two(gpus=[], cores=1) == [Slot(2)]

    @pytest.mark.parametrize(
        ("slots", "workers", "cores", "wanted"),
        [
            ([Slot(1)], None, 64, 0),  # a CPU decodes in the run's own process
            ([Slot(1)], 3, 4, 3),
            ([Slot(1, "0")], None, 8, 7),
            ([Slot(2, "0"), Slot(2, "1")], None, 16, 6),
            ([Slot(1, "0,1,2,3")], None, 32, 7),  # one run of four processes
            ([Slot(1, "0")], None, 96, 12),
            ([Slot(4, "0"), Slot(4, "1")], None, 4, 0),
            ([Slot(1, "0")], 0, 8, 0),
        ],
    )
    def test_a_gpu_has_decoders_on_the_cores_that_are_its_share(
        self, monkeypatch, slots, workers, cores, wanted
    ):
        monkeypatch.setattr("harness.launch.slots.usable_cores", lambda: cores)
        assert decoders(Runtime(threads=slots[0].threads, workers=workers), slots) == wanted

    def test_more_processes_than_gpus_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"processes = 2 wants a GPU each.*may use 1; "):
            make_slots(wanted=None, threads=1, gpus=["0"], cores=8, processes=2)

    def test_no_slot_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="--slots 0: at least one slot is wanted"):
            make_slots(wanted=0, threads=1, gpus=[], cores=2)

    def test_a_slot_gives_its_worker_its_threads_and_its_gpu(self) -> None:
        environment = Slot(3, "GPU-b").environment()
        assert environment["OMP_NUM_THREADS"] == "3"
        assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-b"

    @pytest.mark.parametrize(
        ("given", "spins"),
        [({}, SPINS), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
    )
    def test_threads_that_wait_leave_their_core_unless_the_user_says_how_they_wait(
        self, given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        assert Slot(2).environment().get("GOMP_SPINCOUNT") == spins

    def test_gpus_are_those_the_environment_shows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-b")
        assert visible_gpus("auto") == ["2", "GPU-b"]
        assert visible_gpus("cuda:1") == ["GPU-b"]
        assert visible_gpus("cpu") == []

    @pytest.mark.parametrize("hidden", ["", "-1"])
    def test_hidden_gpus_are_none(self, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert visible_gpus("auto") == []

    def test_a_gpu_that_is_not_there_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        with pytest.raises(ConfigError, match=r"unknown runtime.device 'cuda:5'; nearest: cuda:0"):
            visible_gpus("cuda:5")

    def test_what_follows_an_entry_that_is_none_is_hidden_as_cuda_does(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1a, 2,-1,3")
        assert visible_gpus("auto") == ["MIG-1a", "2"]

    def test_a_gpu_that_is_cut_into_instances_is_given_by_their_names(self) -> None:
        listed = (
            "GPU 0: NVIDIA A100 (UUID: GPU-5a)\n"
            "  MIG 3g.20gb     Device  0: (UUID: MIG-1a)\n"
            "  MIG 3g.20gb     Device  1: (UUID: MIG-1b)\n"
            "GPU 1: NVIDIA A100 (UUID: GPU-5b)\n"
        )
        assert gpus_listed(listed) == ["MIG-1a", "MIG-1b", "1"]

    def test_gpus_are_counted_by_the_driver_without_torch(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path
    ) -> None:
        listing = "GPU 0: NVIDIA A100 (UUID: GPU-x)\nGPU 1: NVIDIA A100 (UUID: GPU-y)\n"
        fake = tmp_path / "nvidia-smi"
        fake.write_text(f"#!/bin/sh\nprintf '{listing}'\n")
        fake.chmod(0o755)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        assert visible_gpus("auto") == ["0", "1"]


@pytest.mark.parametrize(("slots", "asked"), [(2, True), (1, True), (2, False)])
def test_slots_side_by_side_have_a_folder_to_share_and_nothing_of_it_stays(
    store: Store, slots: int, asked: bool
) -> None:
    work = Assignment(store, Runtime(), share_data=asked)
    with LocalExecutor(work, slots=[Slot(1)] * slots) as executor:
        shared = executor._shared
        assert (shared is not None) is (asked and slots > 1)
        assert shared is None or shared.stat().st_mode & 0o777 == 0o700
    assert shared is None or not shared.exists()


@pytest.mark.thorough
def test_runs_that_share_their_pictures_have_the_bits_of_each_alone_though_one_is_killed(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "slots.py"
    text = SLOTS_SWEEP.format(folder=shapes_folder)
    text = text.replace('"train.lr": [1e-3, 2e-3]', '"model.text.layers": [1, 2, 8]')
    file.write_text(text.replace('"train.samples": 64', '"train.samples": 960'))
    monkeypatch.setattr(sweep, "report", lambda *_: 0)
    often = ["runtime.checkpoint_seconds=0.01", "runtime.log_samples=16", "runtime.log_seconds=0.1"]
    found = []
    for words in (["--slots", "1"], ["--slots", "3", "--share-data"]):
        root = tmp_path / words[1]
        begun = root / "results" / "runs"

        def one_in_the_midst_is_killed(begun: Path = begun) -> bool:
            holders = [lease_holder(RunDir(run).lease_file) or {} for run in begun.glob("*")]
            pids = {int(holder["pid"]) for holder in holders if "pid" in holder}
            if len(pids) < 3 or not any(begun.glob("*/checkpoints/step-*")):
                return False
            os.kill(min(pids), signal.SIGKILL)
            return True

        watched = "--share-data" in words
        thread = when(one_in_the_midst_is_killed, lambda: None) if watched else None
        assert sweep.main([str(file), "--root", str(root), *words, *often]) == 0
        if thread is not None:
            thread.join()
        runs = [RunDir(d) for d in sorted(Store(root).runs.iterdir())]
        attempts = sorted(run.attempts() for run in runs)
        assert attempts == ([1] * 3 if thread is None else [1, 1, 2])
        found.append(
            {
                run.path.name: (
                    run.finished()["checkpoint"]["sha256"],
                    [
                        {name: line[name] for name in line if name not in TIMED}
                        for line in read_jsonl(run.metrics_file)
                    ],
                )
                for run in runs
            }
        )
    assert len(found[0]) == 3
    assert found[0] == found[1]
    logs = "".join(file.read_text() for file in (tmp_path / "3").rglob("logs/*"))
    made = sum(int(n) for n in re.findall(r"shared pictures: (\d+) batches", logs))
    seen = sum(int(n) for n in re.findall(r"decoded of (\d+) seen", logs))
    assert seen > 120
    assert made < 0.7 * seen


TIMED = {"samples_per_second", "data_wait"}
SLOTS_SWEEP = '''"""Do runs have the same bits alone and side by side?"""

from harness.bases import SMALL
from harness.config import override
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(
        SMALL,
        {{
            "model.image.backbone": "test_convnext",
            "model.text.layers": 1,
            "model.text.context_length": 16,
            "model.text.vocabulary": "corpus",
            "data.source": "folder",
            "data.path": "{folder}",
            "train.samples": 64,
            "train.batch_size": 16,
        }},
    ),
    points=product({{"train.lr": [1e-3, 2e-3]}}),
    seeds=[0],
    show=Show(x="train.lr", metrics=["test/mean_recall"]),
)
'''


@pytest.mark.slow
def test_a_run_has_the_same_bits_in_one_slot_as_beside_another(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "slots.py"
    file.write_text(SLOTS_SWEEP.format(folder=shapes_folder))
    monkeypatch.setattr(sweep, "report", lambda *_: 0)
    found = []
    for slots in ("1", "2"):
        root = tmp_path / slots
        assert sweep.main([str(file), "--root", str(root), "--slots", slots]) == 0
        results = {d.name: RunDir(d).finished() for d in Store(root).runs.iterdir()}
        assert {result["training"]["threads"] for result in results.values()} == {1}
        found.append({key: result["checkpoint"]["sha256"] for key, result in results.items()})
    assert len(found[0]) == 2
    assert found[0] == found[1]
