"""A small, fixed simulation of what `tests/benchmarks/statistics.py` simulates at length."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    file = Path(__file__).parents[1] / "benchmarks" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("simulated_statistics", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_null_sweeps_make_few_false_claims_and_intervals_cover(simulation: ModuleType) -> None:
    row = simulation.run(simulation.Design("built-in mix", 3, 60, None), 300)

    # four Monte Carlo standard errors of 300 sweeps about 5 %
    assert row["familywise_primary"] <= 0.10
    assert row["familywise_secondary"] <= 0.10
    assert row["coverage"] == pytest.approx(0.95, abs=0.015)
    assert row["false_guard"] <= 0.06
    assert row["detectable_printed"] == pytest.approx(row["detectable_true"], rel=0.2)
    assert row["power_at"]["12"] < row["primary_power_at"]["12"]


@pytest.mark.thorough
def test_an_interaction_with_items_is_covered_too(simulation: ModuleType) -> None:
    row = simulation.run(simulation.Design("points x items", 3, 100, 1.0, interaction=1.0), 150)

    assert row["coverage"] == pytest.approx(0.955, abs=0.025)


def test_points_just_beyond_the_margin_are_seldom_enough(simulation: ModuleType) -> None:
    beyond = (-2.05,) * 4 + (0.0,)
    row = simulation.run(simulation.Design("beyond", 3, 400, 1.0, means=beyond), 150)

    assert row["false_enough"] <= 0.08


def test_the_simulation_can_see_a_fault(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a correction the family-wise error is far off, and the counts show it."""
    monkeypatch.setattr("harness.stats.tests.holm", list)

    row = simulation.run(simulation.Design("built-in mix", 3, 60, None), 100)

    assert row["familywise_secondary"] > 0.3
