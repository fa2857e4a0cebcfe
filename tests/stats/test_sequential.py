"""Looks: the error they spend, what they close, and that they follow from the values alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from harness.stats.analysis import Measured, Plan, analyse, contrasts_of
from harness.stats.sequential import ComparisonState, Course, follow
from harness.stats.spending import Looks, _crossings

SCHEDULE = Looks((3, 5, 8))
PLAN = Plan(comparisons=[(0, 2), (1, 2)], primary="m", margin=0.02, cost={0: 1.0, 1: 2.0, 2: 3.0})


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    file = Path(__file__).parents[1] / "benchmarks" / "looks.py"
    spec = importlib.util.spec_from_file_location("simulated_looks", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# ---- the error


@pytest.mark.parametrize(("looks", "level"), [(2, 0.0294), (3, 0.0221), (5, 0.0158)])
def test_pococks_levels_add_up_to_five_percent(looks: int, level: float) -> None:
    # Pocock 1977: nominal levels of equally spaced looks
    times = [(k + 1) / looks for k in range(looks)]

    assert sum(_crossings(times, [level] * looks)) == pytest.approx(0.05, abs=2e-4)


def test_the_levels_spend_the_error_and_no_more() -> None:
    levels = [SCHEDULE.level(k, 0.05) for k in range(3)]

    spent = np.cumsum(list(_crossings(SCHEDULE.times, levels)))

    assert spent == pytest.approx([0.05 * t for t in SCHEDULE.times], rel=0.01)


def test_one_look_is_the_fixed_test() -> None:
    assert Looks((5,)).level(0, 0.05) == pytest.approx(0.05, rel=1e-6)
    assert Looks((5,)).overall(0, 0.013) == pytest.approx(0.013, rel=1e-2)


@pytest.mark.parametrize("alpha", [1e-4, 0.01, 0.05])
def test_an_overall_p_is_the_inverse_of_a_level(alpha: float) -> None:
    for look in range(3):
        assert SCHEDULE.overall(look, SCHEDULE.level(look, alpha)) == pytest.approx(alpha, rel=1e-6)


def test_a_verdict_that_was_printed_before_adds_to_the_error() -> None:
    joint = SCHEDULE.joint(3, 0.05)

    rng = np.random.default_rng(0)
    steps = rng.normal(size=(200_000, 8)).cumsum(axis=1)
    z = {n: np.abs(steps[:, n - 1]) / np.sqrt(n) for n in (3, 5, 8)}
    crossed = z[3] > stats.norm.isf(0.025)
    for look, n in enumerate((3, 5, 8)):
        crossed |= z[n] > stats.norm.isf(SCHEDULE.level(look, 0.05) / 2)
    assert joint == pytest.approx(crossed.mean(), abs=0.002)
    assert 0.05 < joint < 0.10


# ---- what is closed


def measured(rows: np.ndarray, seeds: dict[int, tuple[int, ...]]) -> Measured:
    return Measured("m", {p: {s: float(rows[p, s]) for s in own} for p, own in seeds.items()})


def course(means: tuple[float, ...], sd: float, most: int = 8, seed: int = 1) -> Course:
    rows = np.random.default_rng(seed).normal(np.array(means)[:, None], sd, (len(means), 8))
    return follow(
        lambda seeds: contrasts_of(measured(rows, seeds), PLAN),
        PLAN.comparisons,
        range(8),
        SCHEDULE,
        points=range(len(means)),
        complete=lambda seeds: max(map(len, seeds.values())) <= most,
        margin=PLAN.margin,
    )


def test_what_is_decided_gets_no_seeds_and_the_baseline_gets_those_of_what_is_open() -> None:
    found = course((0.3, 0.475, 0.5), 0.02, most=3)

    assert found.standings[0, 2].standing is ComparisonState.SIGNIFICANT
    assert found.standings[1, 2].standing is ComparisonState.OPEN
    assert found.wanted == {0: (0, 1, 2), 1: (0, 1, 2, 3, 4), 2: (0, 1, 2, 3, 4)}
    assert not found.over


def test_points_that_are_equal_within_the_margin_are_closed() -> None:
    found = course((0.5, 0.5, 0.5), 0.002)

    assert {each.standing for each in found.standings.values()} == {ComparisonState.WITHIN}
    assert (found.over, len(found.looks)) == (True, 1)


def test_what_no_number_of_seeds_would_decide_is_given_up() -> None:
    found = course((0.5, 0.5, 0.5), 0.2)

    assert ComparisonState.HOPELESS in {each.standing for each in found.standings.values()}
    assert all(each.power is None or each.power <= 1 for each in found.standings.values())


def test_a_longer_course_begins_as_a_shorter_one_did() -> None:
    whole = course((0.48, 0.49, 0.5), 0.02)

    for most in (3, 5):
        part = course((0.48, 0.49, 0.5), 0.02, most=most)
        assert part.looks == whole.looks[: len(part.looks)]


def test_before_the_first_look_is_complete_nothing_is_judged() -> None:
    found = course((0.3, 0.4, 0.5), 0.01, most=2)

    said = analyse([Measured("m", {})], PLAN, found).by_metric["m"]

    assert (found.looks, found.seen) == ((), {})
    assert (said.comparisons, said.best, said.enough) == ({}, None, None)


def test_a_verdict_stays_as_it_was_at_the_look_that_closed_it() -> None:
    early, late = (course((0.3, 0.475, 0.5), 0.02, most=most) for most in (3, 8))

    assert early.judged[0, 2].significant
    assert early.judged[0, 2].test == late.judged[0, 2].test


# ---- simulated


@pytest.fixture(scope="module")
def null(simulation: ModuleType) -> dict[str, float]:
    found: dict[str, float] = simulation.count(simulation.TRUTHS[0], 80)
    return found


def test_looks_keep_their_error_and_find_more_with_fewer_runs(
    simulation: ModuleType, null: dict[str, float]
) -> None:
    small = simulation.count(simulation.Truth("small", (0, -4, 0, 0, 0)), 30)

    assert null["false"] <= 0.12  # three Monte Carlo standard errors above 5 %
    assert null["runs"] < 80
    assert small["found"] > small["found 5"] + 0.2


def test_the_simulation_can_see_a_fault(
    simulation: ModuleType, null: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that cost nothing make more false claims in the same sweeps, and the counts show it."""
    monkeypatch.setattr(Looks, "overall", lambda self, look, p: p)

    assert simulation.count(simulation.TRUTHS[0], 80)["false"] > 1.5 * null["false"]


def test_choices_on_the_validation_split_leave_error_and_level_and_on_what_is_reported_do_not(
    simulation: ModuleType,
) -> None:
    validated, equal, untuned = (
        simulation.count_selected(selection, 200) for selection in simulation.SELECTIONS
    )

    assert validated["false"] <= 0.10  # three Monte Carlo standard errors above 5 %
    assert abs(validated["optimism"]) < 0.3
    assert min(equal["optimism"], untuned["optimism"]) > 1.0
