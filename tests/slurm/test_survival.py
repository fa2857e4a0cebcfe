"""What a sweep on a cluster survives: every run ends with the bits of an undisturbed one.

Or is on record as failed, with the class of what killed it; none is at work twice at a time, none
is lost.  A task takes ten seconds to import what a run needs, so that many a disturbance shares a
sweep; each is of a run of its own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from harness.store.state import State
from tests.slurm.cluster import Cluster
from tests.slurm.site import Bits, Site, kill, table_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600, func_only=True)]

MakeSite = Callable[[Cluster], Site]
Undisturbed = tuple[dict[int, Bits], list[str]]

SLOW = 0.3
"""Seconds a picture: 2.4 s a step, less than SLURM leaves between a signal and the end."""

LIMITED = 0.5
"""Seconds a picture: two minutes in all, longer than until SLURM's notice of a limit."""

PATIENCE = 900
"""Seconds until something is taken to hang, however slow the machine."""

FIRST, TWO = "resolution=8,*", "resolution=?,*"
"""Labels of run 0, and of runs 0 and 1."""

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


@pytest.mark.thorough
def test_twelve_runs_on_a_cluster_that_falls_apart(
    cluster: Cluster, make_site: MakeSite, undisturbed: Undisturbed, subtests: pytest.Subtests
) -> None:
    site = make_site(cluster)
    requeued, killed, moved, orphaned = 0, 1, 2, 4
    for run in (requeued, killed, moved, orphaned):
        site.pace(run, SLOW)
        site.hold(run, 32)
    said = site.submit()

    with subtests.test("one array of twelve, and a report that waits for it"):
        assert "submitted 12 runs of paced: array" in said
        jobs = site.jobs()
        assert len(jobs) == 13
        assert len({job.id.partition("_")[0] for job in jobs}) == 2

    for run in (requeued, killed, moved, orphaned):
        site.wait_for(run, samples=16)

    # ---- a node's daemon is killed; the controller will miss it
    node = site.node_of(orphaned)
    cluster.kill_node(node)
    cluster.miss_nodes_after(30)
    # ---- the controller is restarted; killed, it would forget what it launched in its last seconds
    cluster.stop_controller()
    cluster.start_controller()
    # ---- a job is sent back by hand, a worker killed
    site.let_go(requeued)
    cluster.command("scontrol", "requeue", site.wait_for(requeued).job)
    kill(site.wait_for(killed).pid)

    for what, script in {"fails": FAILS, "hangs": HANGS, "lies": LIES}.items():
        with subtests.test(f"sacct {what}: what is queued or at work is not submitted again"):
            site.replace("sacct", script)
            before = {job.id for job in site.jobs()}
            began = time.monotonic()
            site.submit()
            assert time.monotonic() - began < 600  # hangs are bounded, machines may be busy
            assert {job.id for job in site.jobs()} <= before
            status = site.run("paced", command="status")
            assert status.returncode in {0, 3}, status.stdout + status.stderr
            site.restore("sacct")

    cluster.wait("the dead node to be missed", lambda: cluster.node_states()[node] == "down")
    cluster.miss_nodes_after()
    cluster.start_node(node)
    site.finish(orphaned)
    site.wait_for(killed, samples=17)
    site.finish(killed)
    assert site.wait_for(requeued, samples=17).restarts == 1
    site.pace(requeued, 0)

    # ---- a node is drained: what runs there goes on
    node = site.node_of(moved)
    cluster.drain(node)
    seen = site.status(moved).samples_seen
    site.let_go(moved)
    wait_until(lambda: site.status(moved).samples_seen > seen, PATIENCE, "a drained node to go on")
    cluster.resume(node)
    site.hold(moved, 32)

    # ---- and the last run is displaced, twice
    def one_task_is_left() -> bool:
        if "launch failed" in cluster.command("squeue", "--noheader", "--format=%r"):
            site.submit()  # SLURM holds what a dying controller could not launch; this releases it
        return len(site.jobs()) == 2

    wait_until(one_task_is_left, PATIENCE, "all tasks but one to be over")
    for _ in range(2):
        site.wait_for(moved)
        seen = site.status(moved).samples_seen
        site.let_go(moved)
        site.wait_for(moved, samples=seen + 1)
        site.displace(moved)
        site.hold(moved, 32)
    site.finish(moved)
    site.wait_until_over()

    # SLURM may drop the job of a node that comes back too soon ("credential revoked").
    if orphaned not in site.bits():
        site.submit()
        site.wait_until_over()

    bits, table = undisturbed
    with subtests.test("every run has the bits of an undisturbed one"):
        assert site.bits() == bits
    with subtests.test("none was at work twice at a time"):
        assert site.together() == []
    with subtests.test("the report job wrote the table of the undisturbed sweep"):
        assert table_of(site.root) == table
    with subtests.test("what was cut short went on, and why is on record"):
        assert min(site.directory(run).attempts() for run in (requeued, killed)) >= 2
        assert site.directory(moved).attempts() >= 3
        assert set(classes(site, moved)) <= {"preempted", "interrupted"}
        assert len(classes(site, moved)) >= 2
    with subtests.test("what nothing happened to ran once"):
        assert [site.directory(run).attempts() for run in range(8, 12)] == [1] * 4


@pytest.mark.thorough
def test_limits_of_time_memory_and_disk_and_a_lost_process_of_two(
    cluster: Cluster,
    make_site: MakeSite,
    undisturbed: Undisturbed,
    undisturbed_pair: Bits,
    subtests: pytest.Subtests,
) -> None:
    bits, _ = undisturbed

    # ---- the job of run 0 will reach its time limit, twice
    limited = make_site(cluster)
    limited.pace(0, LIMITED)
    limited.hold(0, 32)
    limited.submit("--only", FIRST, profile="limited")

    # ---- run 0 always takes more memory than there is, run 1 only once
    greedy = make_site(cluster)
    for run in (0, 1):
        greedy.eat(run, 2_000)
    greedy.submit("--only", TWO, "runtime.micro_batch=2")

    # ---- the folder of run 0 has no room for a checkpoint
    full = make_site(cluster)
    small = full.store.run_dir(bits[0].key).path
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        full.submit("--only", TWO)

        # ---- two processes on two nodes train run 0, and the second is killed
        pair = make_site(cluster)
        pair.pace(0, SLOW)
        pair.hold(0, 20)
        pair.submit("--only", FIRST, profile="two-nodes")

        wait_until(lambda: len(classes(greedy, 1)) == 1, PATIENCE, "run 1 to be out of memory")
        greedy.eat(1, 0)

        for samples in (16, 32):
            limited.wait_for(0, samples=samples)
            limited.let_time_run_out(0)

        pair.wait_for(0, samples=16)
        wait_until(lambda: len(pair.readers(0)) == 2, PATIENCE, "both processes to read")
        kill(next(r.pid for r in pair.readers(0) if r.pid != pair.holder(0)))
        wait_until(lambda: len(pair.readers(0)) == 4, PATIENCE, "both to be back")
        pair.finish(0)

        full.wait_until_over()
        with subtests.test("a run without room is on record, and others go on"):
            status = full.status(0)
            assert (status.state, status.failure) == (State.FAILED, "disk_full")
            assert full.bits() == {1: bits[1]}
    finally:
        subprocess.run(["umount", str(small)], check=True)
    with subtests.test("with room, the same command makes what is missing"):
        full.submit("--only", TWO)
        full.wait_until_over()
        assert full.bits() == {0: bits[0], 1: bits[1]}

    greedy.wait_until_over()
    with subtests.test("a run over its memory goes on with smaller parts of a batch"):
        assert greedy.status(1).state is State.DONE
        assert greedy.directory(1).finished()["training"]["micro_batch"] == 1
    with subtests.test("one that is over it whatever is done is on record"):
        status = greedy.status(0)
        assert (status.state, status.failure) == (State.FAILED, "out_of_memory")
        assert classes(greedy, 0)[:2] == ["out_of_memory"] * 2

    pair.wait_until_over()
    with subtests.test("a run of two processes survives the loss of one"):
        assert pair.bits() == {0: undisturbed_pair}
        assert pair.directory(0).attempts() >= 2

    with subtests.test("a run longer than its time limit takes several jobs"):
        limited.finish(0)
        limited.wait_until_over()
        assert limited.bits() == {0: bits[0]}
        assert classes(limited, 0) == ["time_limit"] * 2
        assert limited.directory(0).attempts() == 3

    with subtests.test("none was at work twice at a time"):
        assert [both for site in (limited, greedy, full, pair) for both in site.together()] == []
