"""Steps to launch, and worker processes whose torch half is the fake in shadow/."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launch_cases import SHADOW, runs_of

import harness
from harness.planning.plan import Rerun, Step, make_plan
from harness.store.record import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def steps(store: Store) -> Callable[..., list[Step]]:
    """`steps({"a": "done", "b": "killed 1"})`: the plan of these runs, and what they will do."""

    def plan(behaviour: dict[str, str], rerun: Rerun = Rerun.MISSING) -> list[Step]:
        store.root.mkdir(exist_ok=True)
        (store.root / "fake.json").write_text(json.dumps(behaviour))
        return make_plan(runs_of(list(behaviour)), store, rerun)

    return plan


@pytest.fixture
def fake_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes import harness.run and harness.report from shadow/, however slowly."""
    monkeypatch.setattr("harness.launch.executors.local.GRACE_SECONDS", math.inf)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(SHADOW))
    monkeypatch.setenv("REAL_HARNESS", str(Path(harness.__file__).parent))


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process uses the harness.run of shadow/."""
    spec = importlib.util.spec_from_file_location("harness.run", SHADOW / "harness" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "harness.run", module)
    monkeypatch.setattr(harness, "run", module, raising=False)
