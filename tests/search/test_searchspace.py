"""What a search may look for, and what is said of one that cannot be begun."""

from __future__ import annotations

from typing import Any

import pytest
from search_cases import BASE, GOAL, LAYERS, LR, halving, search

from harness.config import override
from harness.config.searchspace import (
    Asha,
    Choice,
    Hyperband,
    Integers,
    Median,
    Search,
    Uniform,
    check_pruner,
    check_search,
)
from harness.errors import ConfigError, SweepError


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        (Uniform(0.1, 1.0), [0.1, 0.5, 1, 1.0], [0.05, 2, "0.5", None, True]),
        (Integers(2, 8, step=2), [2, 4.0, 8], [1, 3, 9, 4.5, False]),
        (Choice("a", 2, (1, 2)), ["a", 2.0, [1, 2]], ["b", 1, [2, 1]]),
    ],
)
def test_a_dimension_holds_its_values_alone(
    dimension: Any, inside: list[Any], outside: list[Any]
) -> None:
    assert all(dimension.holds(value) for value in inside)
    assert not any(dimension.holds(value) for value in outside)


def test_a_point_must_give_every_field_a_value_that_lies_in_it() -> None:
    assert search().holds({LR: 0.01, LAYERS: 3})
    assert not search().holds({LR: 0.01})
    assert not search().holds({LR: 0.01, LAYERS: 7})


def test_rungs_are_samples_below_the_budget() -> None:
    assert Asha(first=1_000, reduction=3).rungs(18_000) == [1_000, 3_000, 9_000]
    assert Hyperband(first=6_000, reduction=3).rungs(18_000) == [6_000]
    assert Median(every=6_000).rungs(18_000) == [6_000, 12_000]
    assert halving().rungs(BASE) == (100, 300, 900)
    assert search().rungs(BASE) == ()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"train.Ir": Uniform(0, 1)}, "unknown field 'train.Ir'; nearest: train.lr"),
        ({"train": Choice(1, 2)}, "'train' is a section, not a field"),
        ({LR: Uniform(0.1, 0.1)}, "train.lr: 0.1..0.1 is empty; low < high is wanted"),
        ({LR: Uniform(0, 1, log=True)}, "train.lr: 0..1 has no logarithm; 0 < low is wanted"),
        ({LR: Uniform(0.1, float("inf"))}, "train.lr: 0.1..inf is not finite"),
        ({LR: Uniform(-1, 1)}, "train.lr = -1: Input should be greater than 0"),
        ({LAYERS: Integers(1, 6, step=4)}, "steps of 4 do not lead from 1 to 6"),
        ({LAYERS: Integers(1, 99)}, "model.text.layers = 99: Input should be less than"),
        ({LAYERS: Choice(4)}, "1 options leave nothing to choose"),
        ({LAYERS: Choice(4, 4.0)}, "4 is listed twice"),
        ({LAYERS: [1, 2]}, "model.text.layers = [1, 2] is no dimension; Uniform(low, high)"),
        ({"seed": Integers(0, 9)}, "seed: a search over seeds selects luck"),
        ({}, "the space of the search is empty"),
    ],
)
def test_a_space_that_cannot_be_is_refused(space: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, SweepError)) as caught:
        check_search(search(space=space), BASE, [])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objectives": "test/mean_recall"}, "a search selects on the split 'validation'"),
        ({"objectives": []}, "objectives must be given"),
        ({"objectives": [GOAL, GOAL]}, "each once"),
        ({"objectives": "cost/gmacs/image"}, "a cost alone is least for the worst model"),
        ({"trials": None}, "the search has no end: give trials or gpu_hours"),
        ({"trials": 0}, "trials = 0: more than 0 is wanted"),
        ({"gpu_hours": -1.0}, "gpu_hours = -1.0: more than 0 is wanted"),
        ({"sampler": "tpi"}, "unknown sampler 'tpi'; nearest: tpe"),
        ({"confirm": (1, 1)}, "confirm = [1, 1]: each seed once"),
    ],
)
def test_a_search_without_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SweepError) as caught:
        check_search(search(**changes), BASE, [])
    assert words in str(caught.value)


def test_a_point_to_be_tried_must_lie_in_the_space() -> None:
    with pytest.raises(SweepError, match="does not lie in the space"):
        check_search(search(), BASE, [{LR: 1.0, LAYERS: 1}])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (halving(objectives=[GOAL, "cost/gmacs/image"]), "a pruner needs one objective"),
        (search(pruner=Asha(first=1_000)), "first = 1,000 lies outside the budget of a run"),
        (search(pruner=Asha(first=1, reduction=1)), "reduction = 1: at least 2 is wanted"),
        (search(pruner=Median(every=0)), "every = 0 lies outside the budget of a run"),
        (
            halving(space={"train.samples": Integers(100, 1_000)}),
            "train.samples is searched, and so a rung would be another share of the schedule",
        ),
    ],
)
def test_a_pruner_without_sense_is_refused(changed: Search, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_pruner(changed, BASE)
    assert words in str(caught.value)


def test_what_can_be_begun_passes() -> None:
    check_search(halving(), BASE, [{LR: 0.01, LAYERS: 1}])
    check_pruner(halving(), override(BASE, {"train.samples": 101}))
