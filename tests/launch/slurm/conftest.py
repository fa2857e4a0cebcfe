"""Orders to a SLURM that is played by scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from harness.config import Runtime
from harness.launch.slurm import limits, scheduler, submit
from harness.launch.slurm.orders import JobOrder
from harness.store.record import Store


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "fake-slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(submit, "_LOOK_AGAIN_SECONDS", 0.0)
    for module in (scheduler, limits):  # a script is a process, and waits for a core
        monkeypatch.setattr(module, "_SECONDS", 300.0)
    return fake


@pytest.fixture
def order(store: Store, slurm: FakeSlurm) -> JobOrder:
    report = ("-m", "harness.sweep", "ablation", "--report-only")
    return JobOrder(store, Runtime(), "ablation", report=report)
