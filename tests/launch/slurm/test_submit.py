"""Steps to arrays: few calls, nothing twice, nothing lost, whoever dies when."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from launch_cases import family

from harness.config import Runtime
from harness.errors import ConfigError
from harness.launch.profiles import Profile
from harness.launch.slurm import scheduler
from harness.launch.slurm import submissions as records
from harness.launch.slurm.freeze import Frozen
from harness.launch.slurm.scheduler import NoScheduler, Silent
from harness.launch.slurm.script import BatchJob, Refused, script
from harness.launch.slurm.submissions import submissions
from harness.launch.slurm.submit import (
    HeldBack,
    JobOrder,
    Submitted,
    check_not_held,
    preview,
    submit,
    with_processes,
)
from harness.planning.plan import Rerun, Step, make_plan
from harness.store.lease import Lease
from harness.store.record import Store

Plan = Callable[..., list[Step]]
ABC = {"a": "done", "b": "done", "c": "done"}


def send(steps: list[Step], order: JobOrder) -> tuple[Submitted, list[str]]:
    said: list[str] = []
    return submit(steps, order, said.append), said


def keys(steps: list[Step]) -> list[str]:
    return [step.run.key for step in steps]


@pytest.mark.parametrize("folder", ["100%", "a%jb", "%A_%a", "50%% off"])
@pytest.mark.parametrize("count", [None, 3])
def test_a_per_cent_sign_of_the_folder_is_none_of_slurms_patterns(
    order: JobOrder, tmp_path: Path, folder: str, count: int | None
) -> None:
    logs = tmp_path / folder
    frozen = Frozen(tmp_path, Path("x"), "0")
    job = BatchJob("job", ("-V",), Profile(), frozen, str(tmp_path), logs, count)
    lines = [shlex.split(line.removeprefix("#SBATCH ")) for line in script(job).splitlines()]
    (asked,) = [w.partition("=")[2] for line in lines for w in line if w.startswith("--output=")]
    (srun,) = [line for line in lines if line[:1] == ["srun"]]
    of_step = srun[len(srun) - srun[::-1].index("--output")]
    number = "7" if count is None else "7_2"
    values = {"%%": "%", "%j": "7", "%A": "7", "%a": "2", "%t": "0"}
    for pattern in (asked, of_step):
        meant = re.sub("%.", lambda found: values[found[0]], pattern)
        assert meant == f"{logs}/{number}_0_log.out"


class TestOneArray:
    def test_every_run_is_a_task_and_the_report_follows_whatever_happens(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        planned = steps(ABC)
        done, said = send(planned, order)
        assert (done.arrays, done.report, said) == ({"101": 3}, "102", [])
        assert slurm.option(101, "array") == "0-2%3"
        assert slurm.option(102, "dependency") == "afterany:101"
        assert done.submission is not None
        closing = f"-m harness.launch.slurm.report_job {done.submission.folder}"
        assert slurm.script(102).count(closing) == 1
        assert done.submission.read().report_command[-1] == "--report-only"
        assert [task[0] for task in done.submission.read().arrays[0].tasks] == keys(planned)

    def test_a_thousand_runs_are_two_calls(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.says("scontrol", "MaxArraySize = 1001\nMaxJobCount = 10000\n")
        send(steps({f"r{i}": "done" for i in range(1000)}), order)
        assert len(slurm.asked("sbatch")) == 2
        assert slurm.option(101, "array") == "0-999%256"

    def test_the_intents_are_on_disk(self, steps: Plan, order: JobOrder, store: Store) -> None:
        planned = steps(ABC)
        send(planned, order)
        assert all(store.run_dir(key).read_config().run_key == key for key in keys(planned))

    def test_the_script_says_what_the_profile_asks_for(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        profile = Profile(
            partition="gpu", qos="long", account="us", constraint="a100", time="2:00:00", gpus=1,
            cpus=6, memory="32G", setup=("module load cuda",), extra={"mail-type": "END"},
        )  # fmt: skip
        send(steps({"a": "done"}), replace(order, profile=profile))
        wanted = {
            "partition": "gpu", "qos": "long", "account": "us", "constraint": "a100",
            "time": "2:00:00", "gpus-per-node": "1", "cpus-per-task": "6", "mem": "32G",
            "mail-type": "END", "signal": "USR2@120", "open-mode": "append",
        }  # fmt: skip
        assert {name: slurm.option(101, name) for name in wanted} == wanted
        text = slurm.script(101)
        assert "#SBATCH --requeue\n" in text
        assert text.index("module load cuda") < text.index("ulimit -c 0") < text.index("srun")
        assert slurm.option(102, "gpus-per-node") is None

    def test_what_an_allocation_left_in_the_environment_is_not_handed_to_sbatch(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = 'env | grep -E "^(SLURM|SBATCH|PMIX)_" | sort >> "$F/env"\n'
        file = slurm.bin / "sbatch"
        file.write_text(file.read_text().replace("ID=$((", f"{note}ID=$((", 1))
        for name in ("SLURM_CPU_BIND", "SBATCH_PARTITION", "PMIX_RANK", "SLURM_CONF"):
            monkeypatch.setenv(name, "x")
        send(steps({"a": "done"}), order)
        assert set((slurm.folder / "env").read_text().split()) == {"SLURM_CONF=x"}

    def test_what_slurm_holds_since_a_node_failed_to_launch_it_may_begin_when_asked_for_again(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        planned = steps(ABC)
        done, _ = send(planned, order)
        assert done.submission is not None
        name = done.submission.read().arrays[0].name
        slurm.queue.write_text(
            f"101_[0,2]|{name}|PENDING|Priority|\n"
            f"101_1|{name}|PENDING|launch failed requeued held|\n"
        )
        again, said = send(planned, order)
        assert again.submission is None
        assert [words for words in slurm.asked("scontrol") if "release" in words] == [
            "release 101_1"
        ]
        assert said == ["1 jobs that were held since their launch failed may begin"]


class TestLimits:
    def test_arrays_are_as_long_as_the_cluster_takes(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.says("scontrol", "MaxArraySize = 5\n")
        done, _ = send(steps({f"r{i}": "done" for i in range(12)}), order)
        assert done.arrays == {"101": 5, "102": 5, "103": 2}
        assert slurm.option(104, "dependency") == "afterany:101:102:103"

    def test_tasks_have_several_runs_where_the_queue_takes_fewer(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.says("scontrol", "MaxArraySize = 1001\nMaxJobCount = 10\n")
        slurm.queue.write_text("7_[0-4]|other|PENDING|Priority|\n")
        done, _ = send(steps({f"r{i}": "done" for i in range(12)}), order)
        assert done.arrays == {"101": 4}
        assert done.submission is not None
        assert [len(t) for t in done.submission.read().arrays[0].tasks] == [3, 3, 3, 3]

    def test_a_full_queue_is_told_and_nothing_submitted(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.says("scontrol", "MaxJobCount = 3\n")
        slurm.queue.write_text("7_[0-1]|other|PENDING|Priority|\n")
        with pytest.raises(ConfigError, match="takes 3 jobs of yours and has 2: there is no room"):
            send(steps(ABC), order)
        assert slurm.asked("sbatch") == []

    def test_packed_runs_share_a_job(self, steps: Plan, order: JobOrder, slurm: FakeSlurm) -> None:
        done, _ = send(steps(ABC), replace(order, profile=Profile(pack=2, cpus=3)))
        assert done.arrays == {"101": 2}
        assert slurm.option(101, "cpus-per-task") == "6"


class TestAgain:
    def test_the_same_command_submits_nothing_twice(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), order)
        done, _ = send(steps(ABC), order)
        assert done.submission is None
        assert {place.task and place.task.state for place in done.places.values()} == {"PENDING"}
        assert len(slurm.asked("sbatch")) == 2

    def test_only_what_is_new_is_submitted(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), order)
        done, _ = send(steps({"z": "done", **ABC}), order)
        assert len(done.keys) == 1

    def test_what_left_the_queue_undone_is_submitted_again(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, store: Store
    ) -> None:
        planned = steps(ABC)
        first, _ = send(planned, order)
        assert first.submission is not None
        name = first.submission.read().arrays[0].name
        slurm.queue.write_text(f"101_1|{name}|RUNNING|None|n1\n")
        again, _ = send(steps(ABC), order)
        assert again.keys == {planned[0].run.key, planned[2].run.key}
        assert set(again.places) == {planned[1].run.key}

    def test_a_run_that_somebody_has_is_left_to_him(
        self, steps: Plan, order: JobOrder, store: Store
    ) -> None:
        planned = steps(ABC)
        with Lease(store.run_dir(planned[0].run.key).lease_file):
            done, _ = send(make_plan([step.run for step in planned], store), order)
        assert done.keys == {planned[1].run.key, planned[2].run.key}

    def test_a_job_number_that_is_anothers_by_now_counts_for_nothing(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), order)
        slurm.queue.write_text("101_[0-2]|foreign|RUNNING|None|n1\n")
        done, _ = send(steps(ABC), order)
        assert len(done.keys) == 3

    def test_a_silent_scheduler_means_that_all_is_alive(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), order)
        slurm.fails("squeue", "Unable to contact slurm controller")
        done, said = send(steps({**ABC, "d": "done"}), order)
        assert len(done.keys) == 1
        assert len(done.places) == 3
        assert said[0].endswith("what was submitted before is taken to be in the queue")

    def test_two_commands_at_once_submit_once(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(records, "_LEASE_POLL_SECONDS", 0.01)
        planned = steps(ABC)
        threads = [threading.Thread(target=send, args=(planned, order)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(slurm.asked("sbatch")) == 2


class TestDeath:
    def test_a_driver_that_died_after_sbatch_is_found_out_by_the_jobs_name(
        self, steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm
    ) -> None:
        done, _ = send(steps(ABC), order)
        assert done.submission is not None
        for file in done.submission.folder.glob("job-*.json"):
            file.unlink()
        again, _ = send(steps(ABC), order)
        assert again.submission is None
        assert done.submission.job(0) == "101"
        assert done.submission.job("report") == "102"

    def test_a_driver_that_died_before_sbatch_has_submitted_nothing(
        self, steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm
    ) -> None:
        slurm.fails("sbatch", "sbatch: error: Unable to contact slurm controller")
        with pytest.raises(Silent):
            send(steps(ABC), order)
        slurm.works("sbatch")
        done, _ = send(steps(ABC), order)
        assert len(done.keys) == 3

    def test_a_job_that_was_taken_without_an_answer_is_not_submitted_twice(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.loses(101)
        done, _ = send(steps(ABC), order)
        assert done.arrays == {"101": 3}
        assert len(slurm.asked("sbatch")) == 2


class TestRefusals:
    def test_sbatchs_own_words_and_nothing_half_submitted(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, store: Store
    ) -> None:
        slurm.refuses(101, "invalid partition specified: gpuu")
        with pytest.raises(Refused, match="refuses the job: invalid partition specified: gpuu"):
            send(steps(ABC), order)
        assert list(submissions(store)) == []

    def test_what_is_taken_before_a_refusal_goes_on(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.says("scontrol", "MaxArraySize = 2\n")
        slurm.refuses(102, "Job violates accounting/QOS policy")
        planned = steps(ABC)
        done, said = send(planned, order)
        assert done.keys == {planned[0].run.key, planned[1].run.key}
        assert "1 runs are left for the same command" in said[0]

    def test_no_slurm_here(
        self, steps: Plan, order: JobOrder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(NoScheduler):
            send(steps(ABC), order)

    def test_a_time_limit_without_room_for_a_checkpoint(self, steps: Plan, order: JobOrder) -> None:
        profile = Profile(time=1, signal_seconds=50)
        with pytest.raises(ConfigError, match="leaves 10 s, less than one checkpoint interval"):
            send(steps(ABC), replace(order, profile=profile))

    def test_a_sweep_that_holds_itself_back_wants_to_be_asked(
        self, steps: Plan, order: JobOrder, store: Store
    ) -> None:
        done, _ = send(steps(ABC), order)
        assert done.submission is not None
        done.submission.hold("the first 3 tasks died of the same error (bug): KeyError")
        with pytest.raises(HeldBack, match=r"KeyError; when that is mended, .* --rerun failed"):
            check_not_held(store, "ablation", Rerun.MISSING)
        check_not_held(store, "ablation", Rerun.FAILED)


class TestShapes:
    def test_children_wait_for_the_array_of_their_parents(
        self, order: JobOrder, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = make_plan(family(), store)
        done, _ = send(planned, order)
        assert done.arrays == {"101": 1, "102": 2}
        assert slurm.option(102, "dependency") == "afterany:101"

    def test_a_rehearsal_goes_first_and_must_go_well(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, store: Store
    ) -> None:
        done, _ = send(steps(ABC), replace(order, rehearse=True))
        assert done.rehearsal == "101"
        assert slurm.option(101, "array") == "0-0%1"
        assert slurm.option(102, "dependency") == "afterok:101"
        assert slurm.option(102, "kill-on-invalid-dep") == "yes"
        rehearsal = next(iter(submissions(store))).read()
        shorts = [Store(order.store.root / "results" / "rehearsals" / rehearsal.id).run_dir(key)
                  for key in rehearsal.keys]  # fmt: skip
        assert {d.read_config().train.samples for d in shorts} == {1001, 1002, 1003}

    def test_processes_of_a_run_on_several_nodes_are_tasks_of_the_job(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        profile = Profile(nodes=2, gpus=4)
        runtime = with_processes(profile, Runtime(), given=False)
        assert runtime.processes == 8
        send(steps({"a": "done"}), replace(order, profile=profile, runtime=runtime))
        assert slurm.option(101, "nodes") == "2"
        assert slurm.option(101, "ntasks-per-node") == "4"
        assert "--kill-on-bad-exit=0 --wait=60" in slurm.script(101)

    def test_processes_that_cannot_be_spread(self) -> None:
        with pytest.raises(ConfigError, match="processes = 3 cannot be spread over nodes = 2"):
            with_processes(Profile(nodes=2), Runtime(processes=3), given=True)

    def test_a_preview_needs_no_slurm_and_writes_nothing(
        self, steps: Plan, order: JobOrder, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planned = steps(ABC)
        before = sorted(store.root.rglob("*"))
        monkeypatch.setenv("PATH", "/nowhere")
        assert "#SBATCH --array=0-2%3" in preview(planned, order)
        assert sorted(store.root.rglob("*")) == before


def test_a_waiting_command_asks_at_most_once_a_minute() -> None:
    assert scheduler.POLL_SECONDS >= 60
