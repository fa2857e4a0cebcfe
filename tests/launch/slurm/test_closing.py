"""The job that writes the report: for every job a wanted run is in, and small."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fake_slurm import FakeSlurm
from sending import ABC, send

from harness.launch.profiles import Profile
from harness.launch.slurm.freeze import freeze
from harness.launch.slurm.orders import (
    JobOrder,
)
from harness.launch.slurm.places import look
from harness.launch.slurm.script import BatchJob, script
from harness.planning.plan import Step
from harness.store.record import Store

Plan = Callable[..., list[Step]]


def lacking(order: JobOrder) -> list[bool]:
    """Of each run in the queue, whether no job writes the report on it."""
    places = look(order.store).places.values()
    return [place.lacks_report_of("ablation") for place in places]


class TestReport:
    """The job that writes the report waits for every job that a wanted run is in."""

    def test_it_waits_for_what_other_sweeps_have_in_the_queue_too(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        planned = steps({**ABC, "d": "done"})
        send(planned[:3], replace(order, sweep="another"))
        done, _ = send(planned, order)
        assert slurm.option(int(str(done.report)), "dependency") == "afterany:101:103"

    def test_one_comes_when_all_its_runs_are_jobs_of_another_sweep(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), replace(order, sweep="another"))
        done, _ = send(steps(ABC), order)
        assert (done.submission, done.report) == (None, "103")
        assert slurm.option(103, "dependency") == "afterany:101"
        again, _ = send(steps(ABC), order)
        assert again.report is None

    def test_one_comes_when_the_driver_died_before_it(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.refuses(102, "it died here")
        done, said = send(steps(ABC), order)
        assert (done.report, said[0][:13]) == (None, "no report job")
        assert lacking(order) == [True] * 3
        (slurm.folder / "sbatch.refuses.102").unlink()
        again, _ = send(steps(ABC), order)
        assert again.report == "102"
        assert lacking(order) == [False] * 3
        assert slurm.option(102, "dependency") == "afterany:101"
        assert f"report_job {done.submission and done.submission.folder}" in slurm.script(102)

    def test_the_trials_of_a_search_lack_none(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        send(steps(ABC), replace(order, report=None))
        assert lacking(order) == [False] * 3

    def test_it_asks_for_no_more_than_a_report_needs(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm
    ) -> None:
        slurm.says("scontrol", "PartitionName=gpu Default=NO MaxTime=00:30:00\n", to="partition")
        profile = Profile(
            partition="gpu", time="0:20:00", gpus=2, gpu="a100", cpus=6, memory="64G",
            extra={"gres": "gpu:2", "mem-per-gpu": "8G", "exclusive": True, "mail-type": "END"},
        )  # fmt: skip
        send(steps({"a": "done"}), replace(order, profile=profile))
        asked = {name: slurm.option(102, name) for name in ("time", "mem", "cpus-per-task")}
        assert asked == {"time": "0:30:00", "mem": "4G", "cpus-per-task": "1"}
        assert slurm.option(102, "mail-type") == "END"
        for name in ("gres", "mem-per-gpu", "gpus-per-node", "exclusive"):
            assert f"--{name}" not in slurm.script(102)
        assert slurm.option(101, "gpus-per-node") == "a100:2"
        assert "#SBATCH --exclusive\n" in slurm.script(101)

    def test_it_is_written_whatever_becomes_of_the_setup(self, tmp_path: Path) -> None:
        profile = Profile(setup=("echo loading", "exit 7"))
        frozen = freeze(Store(tmp_path), None)
        job = BatchJob("r", ("-c", "print('written')"), profile, frozen, ".", tmp_path / "logs")
        done = subprocess.run(["bash", "-c", script(job)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "loading\nwritten\n"), done.stderr
