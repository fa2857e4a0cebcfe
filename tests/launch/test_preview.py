"""The plan is printed with its cost and with what the cost rests on."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from launch_cases import runs_of
from PIL import Image
from rich.console import Console

from harness.config import RunConfig, Runtime, override
from harness.config.sweep import Run
from harness.launch.executor import Assignment
from harness.launch.executors.local import LocalExecutor
from harness.launch.foresight import sharing
from harness.launch.preview import assumptions, makespan, plan_table, summary
from harness.launch.slots import Capacity, Slot, cores_used
from harness.planning.costs import Pace, gpu_pace
from harness.planning.plan import Action, Step, make_plan
from harness.store.record import Store
from harness.store.state import State, Status
from tests.conftest import tiny_run

TWO = Capacity(2, "")
GPU = Capacity(1, "", on_gpu=True)


def step(seconds: float | None, action: Action = Action.RUN, note: str = "") -> Step:
    return Step(runs_of(["layers=2"])[0], Status(State.NEW), action, note, seconds)


def screen(steps: list[Step], *, on_gpu: bool = False, pace: Pace | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(plan_table(steps, Capacity(1, "", on_gpu, pace)))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_a_row_names_the_run_what_is_done_with_it_and_why() -> None:
    steps = [step(120, Action.RESUME, "cut off"), step(None), step(0, Action.SKIP)]
    key = steps[0].run.key
    assert screen(steps) == [
        "run seed key state action time",
        f"layers=2 0 {key} new resume: cut off 2 min",
        f"layers=2 0 {key} new run ~10 min",
        f"layers=2 0 {key} new skip -",
    ]


def test_an_unknown_gpu_has_no_time() -> None:
    assert screen([step(None)], on_gpu=True)[1].endswith(" run ?")
    assert summary([step(None)], GPU) == "1 runs: 1 run; time in 1 slot not known yet"
    assert "speed of the GPU is not known" in assumptions([step(None)], GPU)[0]


def test_an_assumed_pace_stands_in_for_a_gpu_that_nothing_is_known_of() -> None:
    # resnet18 and 12 layers of text at 16 tokens: 3 x (1.814 + 0.607) GMACs a pair.
    pace = gpu_pace("a100", 8, 64)
    assert screen([step(None)], on_gpu=True, pace=Pace(1.0, 1e9, 8, ""))[1].endswith(" run ~2.0 h")
    assert "8 x a100 at 20% of the 156,000 GMACs/s of its data sheet" in pace.words
    lines = assumptions([step(None)], Capacity(1, "", True, pace))
    assert lines == [
        f"~: no run of this sweep has finished here; {pace.words}, without start-up and evaluation",
        "of a run 34,360 samples/s pass through the towers and 32,000 are decoded; the slower "
        "counts",
    ]


def test_what_has_finished_here_is_believed_before_any_pace() -> None:
    pace = Pace(1.0, 1.0, 8, "")
    assert screen([step(120)], on_gpu=True, pace=pace)[1].endswith(" run 2 min")


def test_an_assumed_pace_tells_the_price() -> None:
    # Two hours on eight GPUs twice, side by side.
    steps = [step(7_200), step(7_200)]
    line = summary(steps, Capacity(2, "", True, Pace(1.0, 1.0, 8, "")))
    assert line == "2 runs: 2 run; about 2.0 h in 2 slots, 32 GPU-hours"


def test_the_summary_counts_actions_and_adds_up_the_slots() -> None:
    steps = [step(60), step(50), step(40), step(0, Action.SKIP)]
    # Longest first in two slots: 60 beside 50, then 40 after the 50.
    assert makespan([60, 50, 40], 2) == 90
    assert summary(steps, TWO) == "4 runs: 3 run, 1 skip; about 90 s in 2 slots"


def test_cores_that_are_idle_are_told_and_how_to_use_them() -> None:
    more = "--slots N"
    assert cores_used(2, 8, more=more) == "2 of 8 cores used; more with --slots N"
    assert cores_used(8, 8, more=more) == "8 of 8 cores used"
    too_many = "4 threads and processes for 2 cores: they will wait for one another"
    assert cores_used(4, 2, more=more) == too_many


def test_nothing_to_do() -> None:
    steps = [step(0, Action.SKIP), step(None, Action.LEAVE)]
    assert summary(steps, TWO) == "2 runs: 1 skip, 1 leave; nothing to do"


def test_assumptions_are_named_only_where_they_are_made() -> None:
    run = runs_of(["a"])[0]
    strange = override(run.config, {"model.image.backbone": "resnet101"})
    steps = [Step(Run("a", {}, 0, strange), Status(State.NEW), Action.RUN, "", None)]
    assert assumptions([step(10)], TWO) == []
    assert len(assumptions([step(None)], TWO)) == 1
    assert assumptions(steps, TWO)[1] == "1 GMACs at 224 pixels assumed of resnet101"


# --------------------------------------------------------------------------- one decoded stream


def sharing_of(store: Store, configs: list[RunConfig], slots: int = 2, **work: bool) -> list[str]:
    runs = [Run(str(i), {}, config.seed, config) for i, config in enumerate(configs)]
    executor = LocalExecutor(Assignment(store, Runtime(), **work), slots=[Slot(1)] * slots)
    return [*sharing(make_plan(runs, store), executor, executor.capacity(len(runs)))]


def on_photographs(folder: Path, count: int, **changes: object) -> list[RunConfig]:
    """Runs that differ in the learning rate, on pictures of 30 kB each."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    (folder / "captions.csv").write_text("image,caption,split\na.png,noise,train\n")
    base = tiny_run(folder, **{"model.image.size": 16, **changes})
    return [override(base, {"train.lr": 1e-4 * (i + 1)}) for i in range(count)]


def test_sharing_is_proposed_where_runs_side_by_side_decode_the_same_photographs(
    store: Store, tmp_path: Path
) -> None:
    alike = on_photographs(tmp_path / "photographs", 3)
    (line,) = sharing_of(store, alike)
    assert re.fullmatch(
        r"\d+% of the training time goes into decoding \(at assumed speeds\): --share-data "
        r"decodes once for 2 runs side by side",
        line,
    )
    assert sharing_of(store, alike, share_data=True) == []
    assert sharing_of(store, alike, slots=1) == []
    assert sharing_of(store, [override(alike[0], {"seed": s}) for s in range(3)]) == []
    large = [override(c, {"model.image.size": 224}) for c in alike]
    assert sharing_of(store, large) == []  # the towers take the time
    assert sharing_of(store, [RunConfig(), override(RunConfig(), {"train.lr": 1.0})]) == []


def test_sharing_that_was_asked_for_in_vain_is_said(store: Store) -> None:
    config = RunConfig()
    one = sharing_of(store, [config] * 2, slots=1, share_data=True)
    assert one == ["--share-data changes nothing here: one run at a time on a machine"]
    other = sharing_of(store, [config, override(config, {"seed": 1})], share_data=True)
    assert other == ["--share-data changes nothing here: no two runs see the same pictures"]


def test_what_finished_runs_waited_counts_more_than_what_is_assumed(
    store: Store, tmp_path: Path
) -> None:
    configs = on_photographs(tmp_path / "photographs", 3)
    for wait, found in ((0.1, 0), (0.5, 1)):
        config = configs[0]
        store.run_dir(config.run_key).write_result(
            {
                "code": "",
                "training": {"samples_seen": 1, "seconds": 1.0, "data_wait": wait},
                "cost": {},
                "evaluations": {config.evaluation_key: {}},
            }
        )
        lines = sharing_of(store, configs)
        assert len(lines) == found
        assert all("50% of" in line and "as in 1 finished runs" in line for line in lines)
