"""Whether an accuracy looks like a mistake of the set-up and not like a model's.

Names in the wrong order give a model that works the accuracy of chance, and nobody sees it in a
table.  A suspicion is a line beside the number; it never changes it.
"""

from __future__ import annotations

import math

import numpy as np

ERRORS = 3.0
"""Standard errors of chance within which an accuracy counts as chance."""
_TIMES = 3.0
"""Times as accurate under another order of names as under the given: then that may be the order."""


def is_at_chance(accuracy: float, chance: float, n: int) -> bool:
    """Whether an accuracy over `n` examples is that of chance, or below it."""
    return accuracy <= chance + ERRORS * _error(chance, n)


def _error(chance: float, n: int) -> float:
    return math.sqrt(chance * (1 - chance) / n)


def suspicions(predictions: np.ndarray, labels: np.ndarray, classes: int) -> list[str]:
    """Lines on what is odd about `predictions` int (N,) of `labels` int (N,); most often none.

    The order of names is judged by the assignment of predicted to true classes that is best on one
    half of the examples, and what it is worth on the other: chance for a model at chance.
    """
    found: list[str] = []
    accuracy = float((predictions == labels).mean())
    chance = 1 / classes
    error = _error(chance, len(labels))
    if is_at_chance(accuracy, chance, len(labels)):
        found.append(
            f"accuracy {accuracy:.4f} is within {ERRORS:g} standard errors of chance "
            f"({chance:.4f}) or below"
        )
    predicted = len(np.unique(predictions))
    if predicted == 1 and classes > 1:
        found.append("every picture is given the same class")
    other = _accuracy_in_best_order(predictions, labels, classes)
    if other >= _TIMES * max(accuracy, chance) and other > chance + 2 * ERRORS * error:
        found.append(
            f"class names may be in another order than the labels: reordered, accuracy would be "
            f"{other:.4f} and not {accuracy:.4f}"
        )
    return found


def _accuracy_in_best_order(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    from scipy.optimize import linear_sum_assignment  # heavy, and few accuracies come here

    order = np.random.default_rng(0).permutation(len(labels))
    first, second = order[::2], order[1::2]
    if not len(second):
        return 0.0
    table = np.zeros((classes, classes))
    np.add.at(table, (predictions[first], labels[first]), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    renamed = np.empty(classes, dtype=np.int64)
    renamed[rows] = columns
    return float((renamed[predictions[second]] == labels[second]).mean())
