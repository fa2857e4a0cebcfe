"""A sweep in waves whose command is killed in each of them, and given again until it is done."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
import types
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from report_records import Records, metric
from test_waves import FILE

import harness
from harness import files
from harness.commands import sweep as command
from harness.config import RunConfig
from harness.config.sweep import Run
from harness.config.waves import MAX_SEEDS
from harness.store.lease import Lease
from harness.store.manifest import read_manifest
from harness.store.record import Store
from harness.store.state import State
from tests.security.walk import tree, watch

TWO_POINTS = FILE.replace("[1, 2, 4]", "[2, 4]")
SWEEPS = {
    "until": TWO_POINTS.replace("SWEEP = Sweep(", "SWEEP = Sweep(\n    looks=[3, 4, 5, 6, 8],"),
    "tuned": TWO_POINTS.replace(
        "SWEEP = Sweep(",
        "SWEEP = Sweep(\n    nuisance={'train.lr': [0.01, 0.1]},\n    tune_seeds=(100, 101),",
    ),
}
UNLIKE = re.compile(r"(status|provenance|lease|job)\.json$|\.lock$")
"""Files that tell when, where and by which process."""


def value(config: RunConfig) -> float:
    """Four layers are better by 0.8 standard deviations of a seed, which stays open to the last
    look; of the rates the greater is better."""
    spread = (1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 0.5, -0.5)[config.seed % 8]
    lost = 0.02 * (0.8 + spread) if config.model.text.layers == 2 else 0.0
    return 0.3 - lost + 0.1 * config.train.lr


def stand_in(say: Callable[[RunConfig], None]) -> types.ModuleType:
    """`harness.run` with trainings that are known beforehand, and are told to `say`."""

    def execute(config: RunConfig, root: Path, runtime: object, *, label: str, **more: Any) -> None:
        directory = Store(root).run_dir(config.run_key)
        with Lease(directory.lease_file):
            files.make_ready(directory.path)
            if directory.status(config.evaluation_key).state is State.DONE:
                return
            say(config)
            directory.metrics_file.unlink(missing_ok=True)
            (directory.path / "provenance.json").unlink(missing_ok=True)  # attempts are told
            tuning = "validation" in config.evaluate.splits
            found = {"validation/mean_recall": metric(value(config), 100, 0.03)} if tuning else {}
            run = Run(label, {}, config.seed, config)
            Records(root, ExitStack()).done(run, t2i=value(config), metrics=found)

    module = types.ModuleType("harness.run")
    module.execute, module.preflight = execute, lambda configs, runtime: []  # type: ignore[attr-defined]
    return module


def given(root: Path, name: str, say: Callable[[RunConfig], None] = lambda config: None) -> int:
    """The exit code of the command."""
    module = stand_in(say)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "harness.run", module)
        patch.setattr(harness, "run", module, raising=False)
        patch.setattr(files, "_STALE_SECONDS", -1.0)
        patch.chdir(root.parent)
        return command.main([str(root.parent.parent / f"{name}.py"), "--executor", "inline",
                             "--root", str(root)])  # fmt: skip


def killed(action: Callable[[], object]) -> bool:
    """Whether a copy of this process that does it is killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}
    return status != 0


def left(root: Path) -> dict[str, bytes | None]:
    found = tree(root)
    return {name: None if UNLIKE.search(name) else without(data) for name, data in found.items()}


def without(data: bytes) -> bytes:
    """What a report's manifest says of files that tell times."""
    return re.sub(rb' "results/runs/[0-9a-f]+/status\.json": "[0-9a-f]{64}"', b"", data)


@pytest.fixture
def undisturbed(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, list[RunConfig]]:
    """The root of a sweep that nobody killed, and its trainings in their order."""
    name = request.node.callspec.params["name"]
    (tmp_path / f"{name}.py").write_text(SWEEPS[name])
    trained: list[RunConfig] = []
    root = tmp_path / "whole" / "root"
    root.mkdir(parents=True)
    assert given(root, name, trained.append) == 0
    return root, trained


@pytest.mark.parametrize("name", ["tuned", pytest.param("until", marks=pytest.mark.thorough)])
def test_killed_at_a_training_of_each_wave_it_ends_with_the_same_bytes(
    name: str, tmp_path: Path, undisturbed: tuple[Path, list[RunConfig]]
) -> None:
    whole, trained = undisturbed
    wave_of = {"until": lambda c: c.seed, "tuned": lambda c: c.seed >= 100}[name]
    first_of_waves = list({wave_of(c): c.run_key for c in reversed(trained)}.values())
    assert len(first_of_waves) == {"until": 8, "tuned": 2}[name]  # of five looks, and two waves
    root = tmp_path / "killed" / "root"
    root.mkdir(parents=True)
    for key in reversed(first_of_waves):

        def kill(config: RunConfig, key: str = key) -> None:
            if config.run_key == key:
                os.kill(os.getpid(), signal.SIGKILL)

        assert killed(lambda kill=kill: given(root, name, kill))  # type: ignore[misc]
    again: list[RunConfig] = []
    assert given(root, name, again.append) == 0
    assert left(root) == left(whole)
    assert len(read_manifest(Store(root), name).runs) <= 2 * MAX_SEEDS
    before = left(root)
    assert given(root, name, again.append) == 0
    assert len(again) < len(trained)
    assert left(root) == before


@pytest.mark.thorough
@pytest.mark.parametrize("name", SWEEPS)
def test_killed_at_writes_all_along_it_ends_with_the_same_bytes(
    name: str, tmp_path: Path, undisturbed: tuple[Path, list[RunConfig]]
) -> None:
    root = tmp_path / "killed" / "root"
    root.mkdir(parents=True)
    number = 30

    def broken() -> None:
        watch(number, root, "kill")
        given(root, name)

    while killed(broken):
        number += 20
    assert number > 70
    assert left(root) == left(undisturbed[0])
