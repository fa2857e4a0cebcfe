"""Main effects and interactions, against statsmodels and against differences of plain means."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from harness.stats.effects import Effect, effects_of
from harness.stats.layout import Layout
from harness.stats.tests import MixedModel

SWITCHES = ("soft", "token", "mlm")
FULL = {
    point: dict(zip(SWITCHES, levels, strict=True))
    for point, levels in enumerate(itertools.product([0, 1], repeat=3))
}
REFERENCE = dict.fromkeys(SWITCHES, 0)


def by_axes(effects: tuple[Effect, ...]) -> dict[tuple[str, ...], Effect]:
    return {effect.axes: effect for effect in effects}


def test_a_main_effect_is_a_difference_of_means_over_all_points_of_a_level() -> None:
    effects = by_axes(effects_of(FULL, REFERENCE))

    assert effects["soft",].parts == (("soft", 1, 0),)
    assert effects["soft",].contrast == pytest.approx(
        {point: 0.25 if FULL[point]["soft"] else -0.25 for point in FULL}
    )
    # both on, minus each alone, plus none; over the two values of the third
    assert effects["soft", "mlm"].contrast == pytest.approx(
        {p: 0.5 if FULL[p]["soft"] == FULL[p]["mlm"] else -0.5 for p in FULL}
    )
    assert len(effects) == 6


def test_effects_equal_statsmodels() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {**levels, "point": point, "seed": seed, "y": levels["mlm"] - 0.3 + rng.normal()}
        for point, levels in FULL.items()
        for seed in range(3)
    ]
    frame = pd.DataFrame(rows)
    # the third interaction is in the model, so that the residual is that of the points
    oracle = smf.ols("y ~ C(soft, Sum) * C(token, Sum) * C(mlm, Sum) + C(seed)", frame).fit()
    model = MixedModel(Layout({p: dict(zip(g["seed"], g["y"], strict=True))
                          for p, g in frame.groupby("point")}))  # fmt: skip

    for axes, factor, term in (
        (("mlm",), -2, "C(mlm, Sum)[S.0]"),
        (("soft", "mlm"), 4, "C(soft, Sum)[S.0]:C(mlm, Sum)[S.0]"),
    ):
        found = model.test(by_axes(effects_of(FULL, REFERENCE))[axes].contrast)
        assert found is not None
        assert found.estimate == pytest.approx(factor * oracle.params[term])
        assert found.error == pytest.approx(abs(factor) * oracle.bse[term])
        assert found.df == oracle.df_resid


def test_levels_are_compared_with_the_references() -> None:
    levels = {n: {"a": a, "b": b} for n, (a, b) in enumerate(itertools.product("xyz", "pq"))}

    effects = effects_of(levels, {"a": "y"})

    assert [e.parts for e in effects if len(e.parts) == 1] == [
        (("a", "x", "y"),),
        (("a", "z", "y"),),
        (("b", "q", "p"),),
    ]
    assert sum(len(e.parts) == 2 for e in effects) == 2


def test_a_baseline_outside_the_crossed_block_is_left_out() -> None:
    levels = {n: {"a": a, "b": b} for n, (a, b) in enumerate(itertools.product([1, 2], "pq"))}
    levels[9] = {"a": 0, "b": "p"}

    effects = effects_of(levels, {"a": 0})

    assert {e.axes for e in effects} == {("a",), ("b",), ("a", "b")}
    assert all(9 not in e.contrast for e in effects)


def test_a_partial_factorial_has_the_effects_that_it_can_estimate() -> None:
    # half of 2 x 2 x 2: main effects alone, since each is confounded with an interaction
    half = {p: levels for p, levels in FULL.items() if sum(levels.values()) % 2 == 0}
    more = {p: levels for p, levels in FULL.items() if p != 7}

    assert effects_of(half, REFERENCE) == ()
    assert {e.axes for e in effects_of(more, REFERENCE)} == {
        ("soft",), ("token",), ("mlm",), ("soft", "token"), ("soft", "mlm"), ("token", "mlm"),
    }  # fmt: skip
    for effect in effects_of(more, REFERENCE):
        assert sum(effect.contrast.values()) == pytest.approx(0.0)


def test_a_partial_contrast_is_that_of_the_linear_model_of_the_points() -> None:
    more = {p: levels for p, levels in FULL.items() if p != 7}
    truth = {
        p: 1.0 * v["soft"] + 2.0 * v["mlm"] + 0.5 * v["soft"] * v["mlm"] for p, v in more.items()
    }

    effects = by_axes(effects_of(more, REFERENCE))

    def seen(*axes: str) -> float:
        return sum(w * truth[p] for p, w in effects[axes].contrast.items())

    assert seen("soft") == pytest.approx(1.25)
    assert seen("mlm") == pytest.approx(2.25)
    assert seen("soft", "mlm") == pytest.approx(0.5)
    assert seen("token") == pytest.approx(0.0)


@pytest.mark.parametrize(
    "levels",
    [
        {n: {"a": n} for n in range(4)},
        {0: {"a": 0, "b": 0}, 1: {"a": 1, "b": 0}, 2: {"a": 0, "b": 1}},
        {n: {"a": n, "b": n} for n in range(3)},
        {},
    ],
    ids=["one axis", "one at a time", "in step", "no points"],
)
def test_axes_that_are_not_crossed_have_no_effects(levels: dict[int, dict[str, int]]) -> None:
    assert effects_of(levels, {}) == ()
