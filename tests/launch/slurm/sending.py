"""Steps sent to a SLURM that is played."""

from __future__ import annotations

from harness.launch.slurm.orders import JobOrder, Submitted
from harness.launch.slurm.submit import submit
from harness.planning.plan import Step

ABC = {"a": "done", "b": "done", "c": "done"}


def send(steps: list[Step], order: JobOrder) -> tuple[Submitted, list[str]]:
    said: list[str] = []
    return submit(steps, order, said.append), said
