"""Steps to arrays: few calls, nothing twice, nothing lost, whoever dies when."""

from __future__ import annotations

import errno
import os
import re
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from behind import Behind
from fake_slurm import FakeSlurm
from launch_cases import family, finish, runs_of
from sending import ABC, send

from harness.config import Runtime, override
from harness.errors import ConfigError
from harness.launch.executors.slurm import words
from harness.launch.profiles import Profile
from harness.launch.slurm import scheduler
from harness.launch.slurm import submissions as records
from harness.launch.slurm.freeze import Frozen
from harness.launch.slurm.launching import Launch
from harness.launch.slurm.orders import (
    HeldBack,
    JobOrder,
    check_not_held,
    with_environment,
    with_processes,
)
from harness.launch.slurm.scheduler import NoScheduler, Silent
from harness.launch.slurm.script import BatchJob, Refused, script, verdict
from harness.launch.slurm.submissions import submissions
from harness.launch.slurm.submit import NotWritten, preview
from harness.planning.plan import Rerun, Step, make_plan
from harness.store.lease import Lease
from harness.store.record import RunDir, Store
from harness.store.state import State

Plan = Callable[..., list[Step]]


def keys(steps: list[Step]) -> list[str]:
    return [step.run.key for step in steps]


@pytest.mark.parametrize("folder", ["100%", "a%jb", "%A_%a", "50%% off", "a%tb"])
@pytest.mark.parametrize("count", [None, 3])
def test_a_per_cent_sign_of_the_folder_is_none_of_slurms_patterns(
    order: JobOrder, tmp_path: Path, folder: str, count: int | None
) -> None:
    logs = tmp_path / folder
    frozen = Frozen(tmp_path, Path("x"), "0")
    job = BatchJob("job", ("-V",), Profile(), frozen, str(tmp_path), logs, count)
    job = replace(job, launch=Launch(tmp_path, 0))
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

    @pytest.mark.parametrize(("share", "tasks"), [(False, ["ab", "cd"]), (True, ["ac", "bd"])])
    def test_packed_runs_that_share_pictures_see_the_same(
        self, store: Store, order: JobOrder, slurm: FakeSlurm, share: bool, tasks: list[str]
    ) -> None:
        runs = [
            replace(run, config=override(run.config, {"seed": i % 2}))
            for i, run in enumerate(runs_of("abcd"))
        ]
        profile = Profile(pack=2, share_data=share)
        done, _ = send(make_plan(runs, store), replace(order, profile=profile))
        assert done.submission is not None
        labels = {run.key: run.label for run in runs}
        packed = done.submission.read().arrays[0].tasks
        assert ["".join(labels[key] for key in task) for task in packed] == tasks

    def test_packed_runs_have_the_memory_of_each(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), replace(order, profile=Profile(pack=3, memory="1500M")))
        assert slurm.option(101, "mem") == "4500M"

    def test_srun_is_told_the_cores_of_a_task_by_one_word(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), replace(order, profile=Profile(cpus=3)))
        (srun,) = [line for line in slurm.script(101).splitlines() if line.startswith("srun")]
        assert "--cpus-per-task=3" in srun.split()
        assert 'case "$SLURM_TRES_PER_TASK" in cpu*) unset' in slurm.script(101)


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

    def test_what_another_machine_submitted_a_moment_ago_is_seen_through_a_stale_listing(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send(steps({"z": "done"}), order)
        behind = Behind(order.store.root, monkeypatch)
        behind.elsewhere(lambda: send(steps(ABC), order))
        assert len(list(submissions(order.store))) == 1, "as NFS may have it"
        done, _ = send(steps(ABC), order)
        assert (done.submission, len(done.places)) == (None, 3)

    def test_a_number_that_is_not_seen_yet_closes_no_submission(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, _ = send(steps(ABC), order)
        assert first.submission is not None
        number = first.submission.folder / "job-0.json"
        text = number.read_text()
        number.unlink()
        behind = Behind(order.store.root, monkeypatch)
        behind.elsewhere(lambda: number.write_text(text))
        slurm.queue.write_text("")
        name = first.submission.read().arrays[0].name
        slurm.says(
            "scontrol",
            f"JobId=101 ArrayJobId=101 ArrayTaskId=0-2 JobName={name} JobState=PENDING\n",
        )
        done, _ = send(steps(ABC), order)
        assert (done.submission, len(done.places), first.submission.open) == (None, 3, True)

    @pytest.mark.parametrize("rerun", [Rerun.MISSING, Rerun.FAILED])
    def test_a_run_that_was_done_elsewhere_since_it_was_planned_is_left(
        self,
        steps: Plan,
        order: JobOrder,
        slurm: FakeSlurm,
        monkeypatch: pytest.MonkeyPatch,
        rerun: Rerun,
    ) -> None:
        a, *_ = steps(ABC)
        directory = order.store.run_dir(a.run.key)
        directory.write_intent(a.run.config, {})
        if rerun is Rerun.FAILED:
            directory.write_status(State.FAILED, failure="bug", error="E")
        planned = steps(ABC, rerun)
        behind = Behind(order.store.root, monkeypatch)
        behind.elsewhere(lambda: finish(order.store, a))
        assert directory.result() is None, "as NFS may have it"
        done, _ = send(planned, order)
        assert a.run.key not in done.keys
        assert len(done.keys) == 2
        assert directory.result() is not None

    def test_what_waits_is_moved_when_that_is_asked_for(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        first, _ = send(steps(ABC), replace(order, profile_name="small"))
        assert first.submission is not None
        name = first.submission.read().arrays[0].name
        slurm.queue.write_text(
            f"101_[0,2]|{name}|PENDING|Priority|\n101_1|{name}|RUNNING|None|n1\n"
            f"102|{name}-report|PENDING|Dependency|\n"
        )
        other = replace(order, profile=Profile(cpus=4), profile_name="large")
        left, _ = send(steps(ABC), other)
        assert (
            "2 of them wait with profile small and not large: --move takes them out of the queue "
            "and submits them anew" in words(left, other)
        )
        assert "what they wait for:  2 x Priority" in words(left, other)
        moved, _ = send(steps(ABC), replace(other, move=True))
        assert [sorted(call.split()) for call in slurm.asked("scancel")] == [
            sorted([f"--name={name}", "101_0", "101_2"])
        ]
        assert (len(moved.keys), len(moved.places)) == (2, 1)
        assert slurm.option(int(next(iter(moved.arrays))), "cpus-per-task") == "4"

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

    def test_what_was_never_taken_is_not_said_to_be_there_while_nobody_can_tell(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        for name in ("sbatch", "squeue"):
            slurm.fails(name, "error: Unable to contact slurm controller (connect failure)")
        with pytest.raises(Silent):
            send(steps(ABC), order)
        done, _ = send(steps(ABC), order)
        assert (done.unsure, done.exit_code) == (3, 3)
        told = words(done, order)
        assert not any("there already" in line for line in told)
        assert told[0].startswith("3 runs were handed to sbatch, which gave no answer: whether")

    def test_a_job_that_a_listing_lacks_is_asked_for_by_its_number(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        first, _ = send(steps(ABC), order)
        assert first.submission is not None
        name = first.submission.read().arrays[0].name
        slurm.queue.write_text("")
        slurm.says(
            "scontrol",
            f"JobId=101 ArrayJobId=101 ArrayTaskId=0-2%3 JobName={name} JobState=PENDING\n",
            to="101",
        )
        again, _ = send(steps(ABC), order)
        assert (again.submission, len(again.places)) == (None, 3)
        assert first.submission.open

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

    def test_a_refusal_is_one_whatever_it_speaks_of(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.refuses(101, "the submit plugin cannot be run: exit code 2")
        with pytest.raises(Refused, match="refuses the job: the submit plugin cannot be run"):
            send(steps(ABC), order)

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

    def test_too_many_jobs_are_tried_with_fewer(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        sbatch = slurm.bin / "sbatch"
        most = 'if [ "${ARRAY%%%*}" = 0-11 -o "${ARRAY%%%*}" = 0-5 ]; then echo "sbatch: error: '
        words = 'QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi\n'
        sbatch.write_text(sbatch.read_text().replace("echo $ID >", f"{most}{words}echo $ID >", 1))
        done, said = send(steps({f"r{i}": "done" for i in range(12)}), order)
        assert (done.arrays, len(done.keys), done.left) == ({"101": 3}, 12, ())
        assert [line.rpartition(": ")[2] for line in said] == [
            "not 12 jobs, tried with 6",
            "not 6 jobs, tried with 3",
        ]

    def test_a_full_file_system_is_told_before_anything_is_queued(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=90_000))
        error = r"has 0\.1 MB free, and \d+\.\d MB are wanted for the code and 3 runs: free \d+"
        with pytest.raises(NotWritten, match=error):
            send(steps(ABC), order)
        assert slurm.asked("sbatch") == []

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
    def test_nothing_is_queued_where_one_intent_cannot_be_written(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, store: Store,
        monkeypatch: pytest.MonkeyPatch, number: int,
    ) -> None:  # fmt: skip
        planned, write = steps(ABC), RunDir.write_intent

        def refuse(directory: RunDir, *args: Any) -> None:
            if directory.key == planned[1].run.key:
                raise OSError(number, os.strerror(number), str(directory.path))
            write(directory, *args)

        monkeypatch.setattr(RunDir, "write_intent", refuse)
        with pytest.raises(NotWritten, match=f"{planned[1].run.key}.*nothing was submitted"):
            send(planned, order)
        assert (slurm.asked("sbatch"), list(submissions(store))) == ([], [])


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

    @pytest.mark.parametrize("code", [0, 1])
    def test_the_scheduler_is_asked_of_a_dry_run(self, slurm: FakeSlurm, code: int) -> None:
        said = "Job 5 to start at 2026-01-01T00:00:00 using 1 processors on nodes n1"
        sbatch = slurm.bin / "sbatch"
        sbatch.write_text(f'#!/bin/sh\ncat "$2" > {slurm.folder}/asked-of\n'
                          f'echo "sbatch: {said}" >&2\nexit {code}\n')  # fmt: skip
        assert verdict("#!/bin/sh\n") == said
        assert (slurm.folder / "asked-of").read_text() == "#!/bin/sh\n"

    def test_variables_of_sbatch_are_honoured_or_refused_aloud(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
        monkeypatch.setenv("SBATCH_PARTITION", "gpu")
        monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
        profile = with_environment(Profile(partition="cpu"), said.append)
        assert (profile.account, profile.partition) == ("lab", "cpu")
        assert said == [
            "SBATCH_ACCOUNT: account = lab",
            "SBATCH_PARTITION=gpu is not taken: the profile says partition = cpu",
            "not taken: SBATCH_TIMELIMIT; a profile says such things in extra",
        ]
        monkeypatch.setenv("SLURM_CLUSTERS", "other")
        with pytest.raises(ConfigError, match="SLURM_CLUSTERS=other: jobs go to the cluster of"):
            with_environment(Profile(), said.append)

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
