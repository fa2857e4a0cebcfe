"""What is in the queue after commands that die, come twice or too late: each run once."""

from __future__ import annotations

import getpass
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from harness.launch.slurm.submissions import submissions
from tests.slurm.cluster import Cluster, Layout, running
from tests.slurm.site import Bits, Site, table_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600, func_only=True)]

MakeSite = Callable[[Cluster], Site]
Undisturbed = tuple[dict[int, Bits], list[str]]

TWO, FOUR = "resolution=?,*", "resolution=*[89],*"
"""Labels of runs 0 and 1; the same and 10 and 11."""

KILLS_ITS_DRIVER = """
$REAL "$@" > submitted
kill -KILL $PPID
cat submitted
"""
COUNTS = """
echo "$@" >> calls
exec $REAL "$@"
"""


def tasks(site: Site) -> list[str]:
    """`12_0`, ...: the tasks of arrays in the queue."""
    return sorted(job.id for job in site.jobs() if "_" in job.id)


def test_a_driver_killed_at_sbatch_two_at_once_and_an_edited_checkout(
    cluster: Cluster, make_site: MakeSite, undisturbed: Undisturbed, subtests: pytest.Subtests
) -> None:
    site = make_site(cluster)
    checkout = site.root / "harness"
    shutil.copytree(Path(harness.__file__).parent, checkout)
    with cluster.closed("low"):
        with subtests.test("what a driver submitted with its last breath is found again"):
            site.replace("sbatch", KILLS_ITS_DRIVER)
            assert site.run("--only", TWO).returncode == -signal.SIGKILL
            site.restore("sbatch")
            queued = tasks(site)
            assert len(queued) == 2
            said = site.submit("--only", TWO)
            assert "there already: 2 queued\n" in said
            assert "nothing to submit\n" in said
            assert tasks(site) == queued

        with subtests.test("of two commands at once, one submits what is left"):
            commands = [site.start("--only", FOUR) for _ in range(2)]
            said = [command.communicate(timeout=1800)[0] for command in commands]
            assert [command.returncode for command in commands] == [0, 0], said
            assert sorted("submitted 2 runs" in text for text in said) == [False, True]
            assert len(tasks(site)) == 4

        (checkout / "run.py").write_text("raise SystemExit('this was edited')\n")
        site.sweep_file.write_text("raise SystemExit('this was edited')\n")
    site.wait_until_over()

    bits, _ = undisturbed
    with subtests.test("what runs is what was submitted"):
        assert site.bits() == {run: bits[run] for run in (0, 1, 10, 11)}
        assert [site.directory(run).attempts() for run in (0, 1, 10, 11)] == [1] * 4
        assert site.together() == []
        assert (site.root / "reports" / "paced" / "report.md").exists()


def test_small_arrays_no_accounting_and_job_numbers_seen_before(
    bare_cluster: Cluster, make_site: MakeSite, undisturbed: Undisturbed, subtests: pytest.Subtests
) -> None:
    site = make_site(bare_cluster)
    with bare_cluster.closed("low"), subtests.test("twelve runs are arrays of at most five"):
        site.submit(profile="bare")
        assert tasks(site) == sorted(
            f"{job}_{task}" for job, size in ((1, 5), (2, 5), (3, 2)) for task in range(size)
        )
    bare_cluster.forget()
    with bare_cluster.closed("low"):
        with subtests.test("a stranger's job with a number of ours is not taken for it"):
            words = ("--partition=low", "--array=0-4", "--output=/dev/null", "--wrap=true")
            for _ in range(4):
                bare_cluster.command("sbatch", f"--chdir={site.root.parent}", *words)
            assert "submitted 12 runs" in site.submit(profile="bare")
            assert len(tasks(site)) == 12

        with subtests.test("and not called off with them"):
            done = site.run("paced", "--cancel", "--all", command="status")
            assert done.returncode == 0, done.stdout + done.stderr
            assert site.jobs() == []
            left = bare_cluster.command("squeue", "--noheader", "--array").splitlines()
            assert len(left) == 20

        assert "submitted 12 runs" in site.submit(profile="bare")
    site.wait_until_over()

    bits, table = undisturbed
    with subtests.test("every run has the bits of an undisturbed one"):
        assert site.bits() == bits
        assert site.together() == []
        assert table_of(site.root) == table


def test_a_thousand_runs_are_a_few_calls_of_sbatch(cluster: Cluster, make_site: MakeSite) -> None:
    site = make_site(cluster)
    site.replace("sbatch", COUNTS)
    with cluster.closed("low"):
        seeds = ",".join(map(str, range(84)))
        assert "submitted 1008 runs" in site.submit("--seeds", seeds)
        assert len(tasks(site)) == 1_008
        calls = (site.root / "calls").read_text().splitlines()
        assert len(calls) == 3  # arrays of at most 1,001, and the report
        assert "nothing to submit" in site.submit("--seeds", seeds)
        done = site.run("paced", "--cancel", "--all", command="status")
        assert done.returncode == 0, done.stdout + done.stderr
        assert site.jobs() == []


@pytest.fixture(scope="module")
def limited_cluster() -> Iterator[Cluster]:
    """A node, and a user whose jobs in the queue can be limited."""
    with running(Layout(nodes=1, gpus=0, enforce=True)) as up:
        user = getpass.getuser()
        for words in (
            ("add", "account", "lab"),
            ("add", "user", user, "account=lab"),
            ("modify", "user", user, "set", "DefaultAccount=lab"),
        ):
            up.command("sacctmgr", "-i", *words)
        yield up


def limit_jobs(cluster: Cluster, most: int) -> None:
    """Return when the user may have so many jobs in the queue."""
    user = getpass.getuser()
    cluster.command("sacctmgr", "-i", "modify", "user", user, "set", f"MaxSubmitJobs={most}")
    told = ("scontrol", "show", "assoc_mgr", "flags=assoc", f"users={user}")
    cluster.wait("the limit to hold", lambda: f"MaxSubmitJobs={most}(" in cluster.command(*told))


@pytest.mark.thorough
def test_a_queue_without_room_for_the_report_job(
    limited_cluster: Cluster, make_site: MakeSite, subtests: pytest.Subtests
) -> None:
    site = make_site(limited_cluster)
    alone = "no job in the queue writes the report on 2 of these runs"
    with limited_cluster.closed("low"):
        limit_jobs(limited_cluster, 2)
        site.replace("sacctmgr", "exit 1")  # a site that tells nobody of its limits
        with subtests.test("the command says so, and status"):
            done = site.run("--only", TWO, profile="bare")
            assert "submitted 2 runs" in done.stdout, done.stderr
            assert "no report job: sbatch refuses the job" in done.stderr
            assert alone in site.run("paced", command="status").stdout
        with subtests.test("where there is no room at all nothing is half submitted"):
            done = site.run("--only", FOUR, profile="bare")
            assert (done.returncode, len(site.jobs())) == (2, 2)
            assert "the same command submits when there is room" in done.stderr
            assert len(list(submissions(site.store))) == 1
        with subtests.test("with room, the same command submits it"):
            limit_jobs(limited_cluster, 3)
            assert "report job" in site.submit("--only", TWO, profile="bare")
            assert len(site.jobs()) == 3
            assert alone not in site.run("paced", command="status").stdout
            assert "report job" not in site.submit("--only", TWO, profile="bare")
        assert site.run("paced", "--cancel", "--all", command="status").returncode == 0


@pytest.mark.thorough
def test_and_without_the_command_the_last_run_to_end_submits_it(
    limited_cluster: Cluster, make_site: MakeSite, undisturbed: Undisturbed
) -> None:
    site = make_site(limited_cluster)
    with limited_cluster.closed("low"):
        limit_jobs(limited_cluster, 2)
        site.replace("sacctmgr", "exit 1")
        done = site.run("--only", TWO, profile="bare")
        assert "no report job: sbatch refuses the job" in done.stderr, done.stdout
    site.wait_until_over()

    bits, _ = undisturbed
    assert site.bits() == {run: bits[run] for run in (0, 1)}
    (made,) = [text for text in logs_of(site) if "writes the report: there was none" in text]
    assert "2 of 2 runs are done" in made or "1 of 1 runs are done" in made
    assert (site.root / "reports" / "paced" / "report.md").exists()


def logs_of(site: Site) -> list[str]:
    """What the jobs of a site printed."""
    return [file.read_text() for file in (site.root / "results").rglob("*.out")]


@pytest.mark.thorough
def test_2508_runs_where_a_user_may_have_a_hundred_jobs(
    limited_cluster: Cluster, make_site: MakeSite, subtests: pytest.Subtests
) -> None:
    site = make_site(limited_cluster)
    limit_jobs(limited_cluster, 100)
    seeds = ("--seeds", ",".join(map(str, range(209))))
    with limited_cluster.closed("low"):
        with subtests.test("they are a hundred jobs with the report"):
            assert "submitted 2508 runs" in site.submit(*seeds, profile="bare")
            assert len(site.jobs()) <= 100
            assert "nothing to submit" in site.submit(*seeds, profile="bare")
            (submission,) = submissions(site.store)
            assert len(submission.read().keys) == 2508
        assert site.run("paced", "--cancel", "--all", command="status").returncode == 0
        with subtests.test("and where that limit cannot be read, what sbatch refuses is fewer"):
            site.replace("sacctmgr", "exit 1")
            done = site.run(*seeds, profile="bare")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "tried with" in done.stderr
            assert len(site.jobs()) <= 100
            assert "submitted 2508 runs" in done.stdout
