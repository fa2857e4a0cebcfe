"""What SLURM says, read tolerantly; what it does not say is never a death."""

from __future__ import annotations

import pytest
from fake_slurm import FakeSlurm

from harness.launch.slurm import scheduler
from harness.launch.slurm.scheduler import (
    Limits,
    NoScheduler,
    QueuedTask,
    Silent,
    avoidable,
    read_listing,
    requeue,
)

#: Every other state of squeue and sacct up to SLURM 25.05.
ALIVE = frozenset(
    {
        "COMPLETING",
        "CONFIGURING",
        "EXPEDITING",
        "PENDING",
        "POWER_UP_NODE",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "UPDATE_DB",
    }
)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("CANCELLED by 1234", "CANCELLED"),
        ("PD", "PENDING"),
        ("completing*", "COMPLETING"),
        ("NODE_FAIL", "NODE_FAIL"),
        ("OUT_OF_ME+", "OUT_OF_ME"),
        ("", "UNKNOWN"),
        ("Läuft", "L"),
    ],
)
def test_states_are_read_whatever_hangs_on_to_them(text: str, state: str) -> None:
    assert scheduler.state_of(text) == state


def test_a_state_that_is_not_known_is_alive() -> None:
    assert not scheduler.is_over("L")
    assert not scheduler.is_over("UNKNOWN")
    assert not any(scheduler.is_over(state) for state in ALIVE)
    assert all(scheduler.is_over(state) for state in scheduler.ENDED)


@pytest.mark.parametrize(
    ("job_id", "read"),
    [
        ("12", ("12", None)),
        ("12_5", ("12", [5])),
        ("12_[0-3,7%2]", ("12", [0, 1, 2, 3, 7])),
        ("12_[0-6:3]", ("12", [0, 3, 6])),
        ("12_[0-3,...]", ("12", None)),
    ],
)
def test_indexes_of_an_array(job_id: str, read: tuple[str, list[int] | None]) -> None:
    assert scheduler.indexes_of(job_id) == read


def test_a_listing_is_by_name_and_index() -> None:
    listing = read_listing(
        "7_[2-3%9]|a|PENDING|Priority|\n7_1|a|RUNNING|None|n1\n8|report|PENDING|Dependency|\n"
        "7_1.batch|a|RUNNING||n1\nslurm is sorry\n"
    )
    assert listing.tasks("a") == {
        1: QueuedTask("7_1", "RUNNING", "None", "n1"),
        2: QueuedTask("7_2", "PENDING", "Priority", ""),
        3: QueuedTask("7_3", "PENDING", "Priority", ""),
    }
    assert listing.job_id("a") == "7"
    assert listing.tasks("report")[0].job == "8"
    assert listing.job_id("another") is None


def test_an_array_whose_indexes_cannot_be_read_may_be_alive_in_all_of_them() -> None:
    listing = read_listing("7_[0-3,...]|a|PENDING|Priority|\n")
    assert listing.unread == {"a"}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (QueuedTask("1_0", "PENDING", "Priority"), "queued (Priority)"),
        (QueuedTask("1_0", "RUNNING", "None", "n3"), "running on n3"),
        (
            QueuedTask("1_0", "PENDING", "launch failed requeued held"),
            "HELD (launch failed requeued held)",
        ),
        (QueuedTask("1_0", "COMPLETING", "None"), "completing"),
    ],
)
def test_what_a_user_reads(task: QueuedTask, words: str) -> None:
    assert task.words == words


class TestCalls:
    def test_one_call_lists_the_whole_queue(self, slurm: FakeSlurm) -> None:
        slurm.queue.write_text("7_[0-1]|a|PENDING|Priority|\n")
        assert set(scheduler.queue().tasks("a")) == {0, 1}
        assert len(slurm.asked("squeue")) == 1

    def test_a_command_that_fails_is_silent_in_its_own_words(self, slurm: FakeSlurm) -> None:
        slurm.fails("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
        with pytest.raises(Silent, match="squeue: slurm_load_jobs error: Unable to contact"):
            scheduler.queue()

    def test_a_command_that_hangs_is_silent(self, slurm: FakeSlurm) -> None:
        slurm.hangs("squeue")
        with pytest.raises(Silent, match=r"squeue did not answer in 0\.2 s"):
            scheduler.queue(seconds=0.2)

    def test_a_machine_without_slurm_is_told_in_one_line(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(NoScheduler, match="no sbatch on the PATH"):
            scheduler.require()

    def test_the_environment_of_an_allocation_is_not_handed_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("SLURM_CPU_BIND", "SBATCH_PARTITION", "PMIX_RANK", "SLURM_CONF"):
            monkeypatch.setenv(name, "x")
        kept = scheduler.clean_environment()
        assert "SLURM_CONF" in kept
        assert not {"SLURM_CPU_BIND", "SBATCH_PARTITION", "PMIX_RANK"} & set(kept)

    def test_the_last_end_of_a_job_that_was_requeued(self, slurm: FakeSlurm) -> None:
        slurm.says("sacct", "7_0|NODE_FAIL\n7_0|PENDING\n")
        assert scheduler.last_end("7_0") == "node_failure"
        slurm.says("sacct", "7_0|RUNNING\n")
        assert scheduler.last_end("7_0") is None

    def test_the_state_of_one_job(self, slurm: FakeSlurm) -> None:
        slurm.says("scontrol", "JobId=9 ArrayTaskId=1\n   JobState=CANCELLED Reason=None\n")
        assert scheduler.own_state("7_1") == "CANCELLED"


class TestLimits:
    def test_those_of_the_cluster_and_of_the_user(self, slurm: FakeSlurm) -> None:
        slurm.says("scontrol", "MaxArraySize            = 5\nMaxJobCount             = 10000\n")
        slurm.says("sacctmgr", "|200\n100|\n")
        assert scheduler.limits() == Limits(array=5, jobs=100)

    def test_without_accounting_those_of_the_cluster(self, slurm: FakeSlurm) -> None:
        slurm.says("scontrol", "MaxArraySize = 1001\nMaxJobCount = 10000\n")
        slurm.fails("sacctmgr", "You are not running a supported accounting_storage plugin")
        assert scheduler.limits() == Limits(array=1001, jobs=10000)

    def test_of_a_cluster_that_does_not_tell_slurms_own_default(self, slurm: FakeSlurm) -> None:
        slurm.fails("scontrol")
        assert scheduler.limits() == Limits(array=1001, jobs=None)


@pytest.mark.parametrize(
    ("bad", "partition", "avoided"),
    [
        (["n1"], None, ("n1",)),
        (["n1", "n1"], "gpu", ("n1",)),
        (["n1", "n2"], "gpu", ()),
        (["n1", "n2"], "gpu,big", ("n1", "n2")),
        (["n1", "n2"], None, ("n1", "n2")),
        (["n1", "n2", "n3"], None, ()),
        ([], None, ()),
    ],
)
def test_a_job_is_never_kept_away_from_every_node_it_could_begin_on(
    bad: list[str], partition: str | None, avoided: tuple[str, ...], slurm: FakeSlurm
) -> None:
    slurm.says("sinfo", "n1|gpu\nn2|gpu\nn1|all*\nn2|all*\nn3|all*\nn4|big\n")
    assert avoidable(bad, partition) == avoided


def test_nodes_that_nobody_tells_of_are_avoided_all_the_same(slurm: FakeSlurm) -> None:
    slurm.fails("sinfo")
    assert avoidable(["n1"]) == ("n1",)


def test_asking_for_its_own_requeue_outlives_the_signal_that_follows(slurm: FakeSlurm) -> None:
    scontrol = slurm.bin / "scontrol"
    noting = scontrol.read_text().replace("exit 0", 'kill -TERM $$; echo lived >> "$F/asked"')
    scontrol.write_text(noting)
    requeue("101_0", exclude=["n1"])
    assert slurm.asked("scontrol") == ["requeue 101_0", "update JobId=101_0 ExcNodeList=n1"]
    assert (slurm.folder / "asked").read_text().count("lived") == 2
