"""What a second user, another site or a broken node meets: told, and nothing twice."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.launch.slurm.submissions import submissions
from harness.store.state import State
from tests.slurm.cluster import Cluster
from tests.slurm.site import Bits, Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600, func_only=True)]

MakeSite = Callable[[Cluster], Site]
Undisturbed = tuple[dict[int, Bits], list[str]]

TWO, FOUR = "resolution=?,*", "resolution=*[89],*"
"""Labels of runs 0 and 1; the same and 10 and 11."""
DOWN = "echo 'error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


def tasks(site: Site) -> list[str]:
    """`12_0`, ...: the tasks of arrays in the queue."""
    return sorted(job.id for job in site.jobs() if "_" in job.id)


def reports(site: Site) -> list[str]:
    """Numbers of the report jobs in the queue."""
    return sorted(job.id for job in site.jobs() if "_" not in job.id)


def dependency(site: Site, job: str) -> str:
    return site.cluster.command("squeue", "--noheader", f"--jobs={job}", "--format=%E").strip()


def test_what_one_listing_does_not_show_is_not_gone(
    cluster: Cluster, make_site: MakeSite, subtests: pytest.Subtests
) -> None:
    site = make_site(cluster)
    with cluster.closed("low"):
        with subtests.test("a controller that is down has taken nothing, and nobody says so"):
            for program in ("sbatch", "squeue", "scontrol"):
                site.replace(program, DOWN)
            assert site.run("--only", TWO).returncode == 3
            again = site.run("--only", TWO)
            assert again.returncode == 3
            assert "whether they are queued is not known" in again.stdout
            for program in ("sbatch", "squeue", "scontrol"):
                site.restore(program)
            assert "submitted 2 runs" in site.submit("--only", TWO)
            queued = tasks(site)
        with subtests.test("a user's own filter, or a hidden partition"):
            assert "there already: 2 queued" in site.submit("--only", TWO, SQUEUE_STATES="R")
            cluster.command("scontrol", "update", "partitionname=low", "hidden=yes")
            try:
                assert "there already: 2 queued" in site.submit("--only", TWO)
            finally:
                cluster.command("scontrol", "update", "partitionname=low", "hidden=no")
            site.replace("squeue", "echo 'JOBID|NAME|STATE|REASON|NODELIST'")
            assert "there already: 2 queued" in site.submit("--only", TWO)
            site.restore("squeue")
            assert tasks(site) == queued

        with subtests.test("a second sweep of the same runs has a report of its own"):
            (first,) = reports(site)
            assert "report job" in site.submit("--only", TWO, "--name", "second")
            assert tasks(site) == queued
            (second,) = set(reports(site)) - {first}
            array = queued[0].partition("_")[0]
            assert dependency(site, second) == f"afterany:{array}_*(unfulfilled)"
        with subtests.test("and so has one that lost it, when its command is repeated"):
            cluster.command("scancel", first)
            assert "report job" in site.submit("--only", TWO)
            assert len(reports(site)) == 2
            assert "report job" not in site.submit("--only", TWO)

        with subtests.test("a controller that is down calls nothing off"):
            site.replace("scancel", DOWN)
            done = site.run("paced", "--cancel", "--all", command="status")
            assert (done.returncode, tasks(site)) == (3, queued)
            assert "0 jobs taken out" in done.stdout
            site.restore("scancel")
            assert site.run("paced", "--cancel", "--all", command="status").returncode == 0
            assert tasks(site) == []
        with subtests.test("what is gone is not new"):
            site.submit("--only", TWO)
            cluster.command("scancel", *tasks(site))
            told = site.run("paced", command="status").stdout
            assert told.count("cancelled: job ") == 2


def test_a_setup_that_fails_is_told_and_holds_the_sweep_back(
    cluster: Cluster, make_site: MakeSite
) -> None:
    site = make_site(cluster)
    site.submit(profile="broken")
    site.wait_until_over()
    logs = [log.read_text() for log in site.root.glob("results/**/logs/*_*_0_log.out")]
    begun = [text for text in logs if "no such module" in text]
    failed = [run for run in range(12) if site.status(run).state is State.FAILED]
    assert 3 <= len(begun) == len(failed) <= 12, "every job was started once at the most"
    assert {site.status(run).failure for run in failed} == {"launch"}
    assert str(site.status(failed[0]).error).endswith("(exit code 7): no such module: cuda/99")
    assert (site.root / "reports" / "paced" / "report.md").exists()
    told = site.run("paced", command="status").stdout
    assert "failed: launch" in told
    assert " new " not in told
    again = site.run(profile="broken")
    assert (again.returncode, again.stderr.count("--rerun failed goes on")) == (3, 1)


def about(site: Site, job: str) -> dict[str, str]:
    """What the controller says of a job, by the names of fields."""
    text = site.cluster.command("scontrol", "--oneliner", "show", "job", job.partition("_")[0])
    return dict(word.partition("=")[::2] for word in text.split())


def test_what_a_site_asks_of_its_jobs(
    cluster: Cluster, make_site: MakeSite, subtests: pytest.Subtests
) -> None:
    site = make_site(cluster)
    for words in (("account", "lab"), ("user", getpass.getuser(), "account=lab")):
        cluster.command("sacctmgr", "-i", "add", *words)
    known = ("scontrol", "show", "assoc_mgr", "flags=assoc", f"users={getpass.getuser()}")
    cluster.wait("the account to be known", lambda: "Account=lab" in cluster.command(*known))
    with cluster.closed("low"):
        with subtests.test("GPUs of a type, an account by its variable, the memory of each run"):
            asked = ("--pack", "2", "--only", TWO)
            said = site.run(*asked, profile="typed", SBATCH_ACCOUNT="lab")
            assert (said.returncode, "SBATCH_ACCOUNT: account = lab" in said.stderr) == (0, True)
            (task,) = tasks(site)
            job = about(site, task)
            assert job["TresPerNode"] == "gres:gpu:fake:1"
            assert (job["Account"], job["MinMemoryNode"], job["NumCPUs"]) == ("lab", "4G", "2")
        with subtests.test("and the report's job needs less"):
            (report,) = reports(site)
            job = about(site, report)
            assert "TresPerNode" not in job
            assert (job["Account"], job["NumCPUs"], job["TimeLimit"]) == ("lab", "1", "01:00:00")
        with subtests.test("other clusters are refused aloud"):
            refused = site.run(*asked, profile="typed", SLURM_CLUSTERS="other")
            assert refused.returncode == 2
            assert "unset it, or let SLURM_CONF" in refused.stderr
            assert tasks(site) == [task]
        with subtests.test("a type that no node has is told"):
            site.submit("--only", TWO, "--move", profile="low")
            unknown = site.root / "pyproject.toml"
            unknown.write_text(unknown.read_text().replace('"fake"', '"h900"'))
            refused = site.run("--only", FOUR, profile="typed")
            assert refused.returncode == 2
            assert "gpu = 'h900' is to be a type that sinfo --format=%G names" in refused.stderr


# --------------------------------------------------------------------------- two users

GROUP = "harness-tests"


@pytest.fixture
def users() -> Iterator[list[pwd.struct_passwd]]:
    """Two users of one group, of this test alone."""
    if os.geteuid() != 0:
        pytest.skip("not root: no user can be made")
    names = [f"{GROUP}-a", f"{GROUP}-b"]
    subprocess.run(["groupadd", "--force", GROUP], check=True)
    for name in names:
        remove_user(name)  # of tests that were killed
        make = ["useradd", "--create-home", "--gid", GROUP, name]
        subprocess.run(make, check=True, capture_output=True)
    try:
        yield [pwd.getpwnam(name) for name in names]
    finally:
        for name in names:
            remove_user(name)
        subprocess.run(["groupdel", GROUP], check=False)


def remove_user(name: str) -> None:
    """Even if a process is left that has not ended yet, for which `userdel` refuses by itself."""
    words = ["userdel", "--force", "--remove", name]
    done = subprocess.run(words, check=False, capture_output=True)
    no_such_user = 6
    assert done.returncode in (0, no_such_user)


@pytest.fixture
def shared(cluster: Cluster, pictures: Path, users: list[pwd.struct_passwd]) -> Iterator[Site]:
    """A site that both may write to; folders above pytest's are closed to them."""
    root = cluster.base / "shared"
    site = Site(root, cluster, pictures)
    subprocess.run(["chgrp", "-R", GROUP, str(root)], check=True)
    subprocess.run(["chmod", "-R", "g+rwX", str(root)], check=True)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folder.chmod(0o2775)
    yield site
    site.leave()


def test_two_users_of_one_root(
    shared: Site,
    users: list[pwd.struct_passwd],
    undisturbed: Undisturbed,
    subtests: pytest.Subtests,
) -> None:
    site, (a, b) = shared, users
    bits, _ = undisturbed
    with site.cluster.closed("low"):
        site.user = a
        site.submit("--only", TWO)
        site.user = b
        said = site.submit("--only", FOUR)
        with subtests.test("what one has queued is not queued again by the other"):
            assert f"2 of them are jobs of {a.pw_name}" in said
            assert "submitted 2 runs" in said
            first, second = submissions(site.store)
            assert (first.open, second.open) == (True, True)
            assert dependency(site, reports(site)[-1]).count("afterany") == 2
        with subtests.test("nor called off"):
            done = site.run("paced", "--cancel", "--all", command="status")
            assert (done.returncode, len(tasks(site))) == (3, 2)
            assert f"2 runs are jobs of {a.pw_name}" in done.stdout
            site.submit("--only", FOUR)
        with subtests.test("and each sees all"):
            for site.user in (a, b):
                told = site.run("paced", command="status")
                assert told.stdout.count("queued (") >= 4, told.stdout + told.stderr
    site.wait_until_over()
    with subtests.test("no run twice, the same bits"):
        assert site.bits() == {run: bits[run] for run in (0, 1, 10, 11)}
        assert [site.directory(run).attempts() for run in (0, 1, 10, 11)] == [1] * 4
        assert site.together() == []
        assert (site.root / "reports" / "paced" / "report.md").exists()
    told = "what one has closed to the other is told with the remedy"
    with subtests.test(told), site.cluster.closed("low"):
        other = ("--only", TWO, "--seeds", "1", "--name", "closed")
        site.user, site.umask = a, 0o022
        site.submit(*other)
        site.user = b
        done = site.run(*other)
        assert done.returncode in {2, 3}
        assert f"belongs to {a.pw_name}: a root that users share" in done.stderr
        assert len(tasks(site)) == 2
