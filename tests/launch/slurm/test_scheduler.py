"""What SLURM says, read tolerantly; what it does not say is never a death."""

from __future__ import annotations

import os
from typing import Any

import pytest
from fake_slurm import FakeSlurm

from harness.errors import user_name
from harness.launch.profiles import Profile
from harness.launch.slurm import scheduler
from harness.launch.slurm.limits import Limits, limits
from harness.launch.slurm.scheduler import (
    Listing,
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


#: `squeue --format=%i|%j|%T|%r|%N`, by the field tables of squeue(1); of the newer ones with what
#: a site's wrapper may put before, and columns in an order of its own.
QUEUES = {
    "22.05": "JOBID|NAME|STATE|REASON|NODELIST\n7_0|sweep-1-0|RUNNING|None|n[1-2]\n"
    "7_[1-2%9]|sweep-1-0|PENDING|AssocMaxJobsLimit|\n",
    "25.05": "squeue: info: this cluster is in maintenance on Monday\n"
    "NAME|JOBID|STATE|NODELIST|REASON|PREFER\nsweep-1-0|7_0|RUNNING|n[1-2]|None|\n"
    "sweep-1-0|7_[1-2%9]|PENDING||(AssocMaxJobsLimit)|\n",
}
#: `scontrol --oneliner show job 7`, by scontrol(1).
JOBS = {
    "22.05": "JobId=9 ArrayJobId=7 ArrayTaskId=0 JobName=sweep-1-0 UserId=a(1) JobState=COMPLETED "
    "Reason=None NodeList=n1\nJobId=7 ArrayJobId=7 ArrayTaskId=1-2%9 ArrayTaskThrottle=9 "
    "JobName=sweep-1-0 UserId=a(1) JobState=PENDING Reason=Priority NodeList=\n"
    "JobId=70 JobName=another JobState=RUNNING Reason=None NodeList=n2\n",
    "25.05": "JobId=9 SLUID=s1 ArrayJobId=7 ArrayTaskId=0 JobName=sweep-1-0 UserId=a(1) "
    "MCS_label=N/A JobState=COMPLETED Reason=None NodeList=n1 OOMKillStep=0\nJobId=7 SLUID=s2 "
    "ArrayJobId=7 ArrayTaskId=1,2 ArrayTaskThrottle=9 JobName=sweep-1-0 JobState=PENDING "
    "Reason=Priority StepMgrEnabled=Yes NodeList= TresPerTask=cpu=4\n",
}


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

    def test_what_a_user_has_set_for_himself_changes_no_answer(
        self, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        squeue = slurm.bin / "squeue"
        squeue.write_text(squeue.read_text().replace("exit 0", 'env >> "$F/env"; exit 0'))
        for name in ("SQUEUE_STATES", "SQUEUE_FORMAT", "SQUEUE_PARTITION", "SLURM_CLUSTERS"):
            monkeypatch.setenv(name, "R")
        scheduler.queue()
        told = (slurm.folder / "env").read_text()
        assert not [line for line in told.splitlines() if line.startswith(("SQUEUE", "SLURM_CL"))]
        assert "--all" in slurm.asked("squeue")[0].split()

    @pytest.mark.parametrize("version", QUEUES)
    def test_a_queue_is_read_by_the_names_of_its_columns(self, version: str) -> None:
        listing = read_listing(QUEUES[version])
        assert listing.tasks("sweep-1-0") == {
            0: QueuedTask("7_0", "RUNNING", "None", "n[1-2]"),
            1: QueuedTask("7_1", "PENDING", "AssocMaxJobsLimit", ""),
            2: QueuedTask("7_2", "PENDING", "AssocMaxJobsLimit", ""),
        }

    @pytest.mark.parametrize("version", JOBS)
    def test_a_job_is_asked_for_by_its_number(self, slurm: FakeSlurm, version: str) -> None:
        slurm.says("scontrol", JOBS[version])
        listing = Listing()
        scheduler.add_by_number(listing, "7", "sweep-1-0")
        states = {i: task.state for i, task in listing.tasks("sweep-1-0").items()}
        assert states == {0: "COMPLETED", 1: "PENDING", 2: "PENDING"}
        assert set(listing.jobs) == {"sweep-1-0"}

    def test_a_number_that_nobody_knows_adds_nothing_and_silence_may_be_life(
        self, slurm: FakeSlurm
    ) -> None:
        listing = Listing()
        slurm.fails("scontrol", "slurm_load_jobs error: Invalid job id specified")
        scheduler.add_by_number(listing, "7", "a")
        assert not listing.has("a")
        slurm.fails("scontrol", "slurm_load_jobs error: Unable to contact slurm controller")
        scheduler.add_by_number(listing, "7", "a")
        assert listing.has("a")

    def test_the_last_end_of_a_job_that_was_requeued(self, slurm: FakeSlurm) -> None:
        slurm.says("sacct", "7_0|NODE_FAIL\n7_0|PENDING\n")
        assert scheduler.last_end("7_0") == "node_failure"
        slurm.says("sacct", "7_0|RUNNING\n")
        assert scheduler.last_end("7_0") is None

    def test_the_state_of_one_job(self, slurm: FakeSlurm) -> None:
        slurm.says("scontrol", "JobId=9 ArrayTaskId=1\n   JobState=CANCELLED Reason=None\n")
        assert scheduler.own_state("7_1") == "CANCELLED"


CONFIG = "Configuration data as of 2026-01-01\nMaxArraySize            = 5\nMaxJobCount     = {}\n"
#: As `scontrol --oneliner show partition` of 22.05 and of 25.05 (QoS and newer fields) prints them.
PARTITIONS = (
    "PartitionName=main AllowGroups=ALL Default=YES QoS=N/A MaxTime=UNLIMITED State=UP\n"
    "PartitionName=gpu AllowGroups=ALL Default=NO QoS=part MaxTime=2-00:30:00 TRES=cpu=4 "
    "ResumeTimeout=GLOBAL State=UP TopologyName=t\n"
)
ASSOCIATIONS = "Account|ParentName|Def QOS|MaxSubmit|GrpSubmit\nsub||{qos}|{user}|\n"
ACCOUNTS = (
    "Account|ParentName|MaxSubmit|GrpSubmit\nroot|||\nlab|root||77\nsub|lab||\nother|root||3\n"
)
QOS = "Name|MaxSubmitPU|MaxSubmitPA|GrpSubmit\nnormal|||\npart|33||\nlong||44|\nstudents|20||\n"


class TestLimits:
    def test_those_of_the_cluster_and_of_the_user(self, slurm: FakeSlurm) -> None:
        slurm.says("scontrol", CONFIG.format(10000))
        slurm.says("sacctmgr", ASSOCIATIONS.format(qos="normal", user=100))
        assert limits(Profile()) == Limits(array=5, jobs=100)

    def test_without_accounting_those_of_the_cluster(self, slurm: FakeSlurm) -> None:
        slurm.says("scontrol", "MaxArraySize = 1001\nMaxJobCount = 10000\n")
        slurm.fails("sacctmgr", "You are not running a supported accounting_storage plugin")
        assert limits(Profile()) == Limits(array=1001, jobs=10000)

    def test_of_a_cluster_that_does_not_tell_slurms_own_default(self, slurm: FakeSlurm) -> None:
        slurm.fails("scontrol")
        assert limits(Profile()) == Limits(array=1001, jobs=None)

    @pytest.mark.parametrize(
        ("profile", "jobs"),
        [
            ({}, 77),  # of the account above the user's
            ({"partition": "gpu"}, 33),  # of the partition's QOS
            ({"qos": "long"}, 44),
            ({"max_jobs": 10}, 10),
        ],
    )
    def test_those_of_wherever_a_site_may_say_them(
        self, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, profile: Any, jobs: int
    ) -> None:
        monkeypatch.delenv("USER", raising=False)
        _site(slurm, default_qos="normal")
        assert limits(Profile(**profile)).jobs == jobs

    def test_the_qos_that_a_user_has_without_a_word(self, slurm: FakeSlurm) -> None:
        _site(slurm, default_qos="students")
        assert limits(Profile()).jobs == 20
        assert limits(Profile(qos="long")).jobs == 44

    @pytest.mark.parametrize(
        ("profile", "seconds"),
        [
            ({}, None),
            ({"partition": "gpu"}, 174_600),
            ({"partition": "gpu", "report_partition": "main"}, None),
        ],
    )
    def test_how_long_the_report_may_take(
        self, slurm: FakeSlurm, profile: Any, seconds: int | None
    ) -> None:
        _site(slurm, default_qos="normal")
        assert limits(Profile(**profile)).report_seconds == seconds


def _site(slurm: FakeSlurm, default_qos: str) -> None:
    slurm.says("scontrol", CONFIG.format(10000), to="config")
    slurm.says("scontrol", PARTITIONS, to="partition")
    name = user_name(os.getuid())
    slurm.says("sacctmgr", ASSOCIATIONS.format(qos=default_qos, user=""), to=f"user={name}")
    slurm.says("sacctmgr", ACCOUNTS, to="user=")
    slurm.says("sacctmgr", QOS, to="qos")


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
