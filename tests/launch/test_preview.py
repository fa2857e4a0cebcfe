"""The plan is printed with its cost and with what the cost rests on."""

from __future__ import annotations

import io

from launch_cases import runs_of
from rich.console import Console

from harness.config import override
from harness.launch.preview import assumptions, makespan, plan_table, summary
from harness.plan import Action, Step
from harness.record import State, Status
from harness.space import Run


def step(seconds: float | None, action: Action = Action.RUN, note: str = "") -> Step:
    return Step(runs_of(["layers=2"])[0], Status(State.NEW), action, note, seconds)


def screen(steps: list[Step], *, on_gpu: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(plan_table(steps, on_gpu=on_gpu))
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
    assert summary([step(None)], 1, on_gpu=True) == "1 runs: 1 run; time in 1 slot not known yet"
    assert "speed of the GPU is not known" in assumptions([step(None)], on_gpu=True)[0]


def test_the_summary_counts_actions_and_adds_up_the_slots() -> None:
    steps = [step(60), step(50), step(40), step(0, Action.SKIP)]
    # Longest first in two slots: 60 beside 50, then 40 after the 50.
    assert makespan(steps[:3], 2) == 90
    assert summary(steps, 2, on_gpu=False) == "4 runs: 3 run, 1 skip; about 90 s in 2 slots"


def test_nothing_to_do() -> None:
    steps = [step(0, Action.SKIP), step(None, Action.LEAVE)]
    assert summary(steps, 2, on_gpu=False) == "2 runs: 1 skip, 1 leave; nothing to do"


def test_assumptions_are_named_only_where_they_are_made() -> None:
    run = runs_of(["a"])[0]
    strange = override(run.config, {"model.image.backbone": "resnet101"})
    steps = [Step(Run("a", {}, 0, strange), Status(State.NEW), Action.RUN, "", None)]
    assert assumptions([step(10)], on_gpu=False) == []
    assert len(assumptions([step(None)], on_gpu=False)) == 1
    assert assumptions(steps, on_gpu=False)[1] == "1 GMACs at 224 pixels assumed of resnet101"
