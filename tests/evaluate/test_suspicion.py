"""Names in the wrong order are seen; a weak model is not accused of it."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluate.label_checks import suspicions


def guesses(rng: np.random.Generator, labels: np.ndarray, classes: int, right: float) -> np.ndarray:
    random = rng.integers(0, classes, len(labels))
    return np.where(rng.random(len(labels)) < right, labels, random)


@pytest.mark.parametrize("classes", [2, 10, 37, 200])
def test_a_good_model_is_unsuspicious(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 4000)
    assert suspicions(guesses(rng, labels, classes, 0.6), labels, classes) == []


@pytest.mark.parametrize("classes", [10, 37, 200])
def test_a_permutation_of_the_names_is_seen(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 4000)
    predictions = guesses(rng, labels, classes, 0.6)
    shifted = (predictions + 1) % classes
    found = suspicions(shifted, labels, classes)
    assert len(found) == 2
    assert "within 3 standard errors of chance" in found[0]
    assert "class names may be in another order than the labels" in found[1]


@pytest.mark.parametrize("classes", [2, 10, 37, 1000])
def test_a_random_model_is_at_chance_and_no_more(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 5000)
    found = suspicions(rng.integers(0, classes, 5000), labels, classes)
    assert [line.split(" is ")[1][:23] for line in found] == ["within 3 standard error"]


def test_one_class_for_all_is_seen() -> None:
    labels = np.arange(100) % 10
    assert suspicions(np.zeros(100, dtype=int), labels, 10)[1] == (
        "every picture is given the same class"
    )
