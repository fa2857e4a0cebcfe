"""What a sweep on a cluster survives: every run ends with the bits of an undisturbed one.

Or is on record as failed, with the class of what killed it; none is at work twice at a time, none
is lost.  A task takes ten seconds to import what a run needs, so that many a disturbance shares a
sweep; each is of a run of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.site import Bits, Site, kill, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MakeSite = Callable[[Cluster], Site]
Undisturbed = tuple[dict[int, Bits], str]

SLOW = 0.3
"""Seconds a picture: 2.4 s a step, less than SLURM leaves between a signal and the end."""

FAILS = "echo 'sacct: error: slurm_persist_conn_open_without_init: failed' >&2; exit 1"
HANGS = "exec sleep 1000"
LIES = """
case "$*" in
  *--format*) for id in 1 2 3 4 5; do echo "$id|other|COMPLETED|0:0|n9"; done;;
esac
"""


def classes(site: Site, run: int) -> list[str]:
    """What cut the attempts at a run short."""
    return [end["class"] for end in site.directory(run).ends()]


def test_twelve_runs_on_a_cluster_that_falls_apart(
    cluster: Cluster, make_site: MakeSite, undisturbed: Undisturbed, subtests: pytest.Subtests
) -> None:
    site = make_site(cluster)
    requeued, killed, moved, orphaned = 0, 1, 2, 4
    for run in (requeued, killed, moved, orphaned):
        site.pace(SLOW, run)
    said = site.submit()

    with subtests.test("one array of twelve, and a report that waits for it"):
        assert "submitted 12 runs of paced: array" in said
        jobs = site.jobs()
        assert len(jobs) == 13
        assert len({job.id.partition("_")[0] for job in jobs}) == 2

    for run in (requeued, killed, moved, orphaned):
        site.wait_for(run, samples=8)

    # ---- a node's daemon is killed; the controller will miss it in half a minute
    node = site.node_of(orphaned)
    cluster.kill_node(node)
    # ---- a job is sent back by hand, a worker killed
    cluster.command("scontrol", "requeue", site.wait_for(requeued).job)
    kill(site.wait_for(killed).pid)
    # ---- the controller dies and comes back
    cluster.stop_controller(kill=True)
    cluster.start_controller()

    for what, script in {"fails": FAILS, "hangs": HANGS, "lies": LIES}.items():
        with subtests.test(f"sacct {what}: what is queued or at work is not submitted again"):
            site.replace("sacct", script)
            before = {job.id for job in site.jobs()}
            began = time.monotonic()
            site.submit()
            assert time.monotonic() - began < 60
            assert {job.id for job in site.jobs()} <= before
            status = site.run("paced", command="status")
            assert status.returncode in {0, 3}, status.stdout + status.stderr
            site.restore("sacct")

    cluster.wait("the dead node to be missed", lambda: cluster.node_states()[node] == "down", 90)
    cluster.start_node(node)
    site.pace(0, orphaned)
    for run in (requeued, killed):
        reader = site.wait_for(run, samples=16)
        assert reader.restarts or run == killed
        site.pace(0, run)

    # ---- a node is drained: what runs there goes on
    site.wait_for(moved)
    node = site.node_of(moved)
    cluster.drain(node)
    seen = site.status(moved).samples_seen
    wait_until(lambda: site.status(moved).samples_seen > seen, 60, "a drained node to go on")
    cluster.resume(node)

    # ---- and the last run is displaced, twice
    wait_until(lambda: len(site.bits()) == 11, 240, "all runs but one")
    for _ in range(2):
        site.wait_for(moved, samples=site.status(moved).samples_seen + 8)
        site.displace(moved)
    site.pace(0, moved)
    site.wait_until_over()

    bits, table = undisturbed
    with subtests.test("every run has the bits of an undisturbed one"):
        assert site.bits() == bits
    with subtests.test("none was at work twice at a time"):
        assert site.together() == []
    with subtests.test("the report job wrote the table of the undisturbed sweep"):
        assert (site.root / "reports" / "paced" / "table.csv").read_text() == table
    with subtests.test("every end has its class"):
        assert classes(site, killed) == ["killed"]
        assert classes(site, moved) == ["preempted", "preempted"]
        assert classes(site, requeued) == ["preempted"]
    with subtests.test("what nothing happened to ran once"):
        assert [site.directory(run).attempts() for run in range(8, 12)] == [1] * 4
