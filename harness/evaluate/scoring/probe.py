"""Probes of fixed features: nearest neighbours, and logistic regression with its C validated.

Pure functions of features and labels, in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.metrics.probe import LINEAR, NEIGHBOURS, SHOTS, Probed, few_shot
from harness.seeding import generator

Array = NDArray[np.float64]

NEAREST = 20
TEMPERATURE = 0.07
#: Inverse strengths of the penalty that are tried, the strongest penalty first.
CS = tuple(10.0**power for power in range(-2, 5))
_DRAWS = 3
_SCORES = 2**22
"""Scores held at once."""


class Rows(NamedTuple):
    """Features float64 (N, D), unit-norm, and labels int64 (N,)."""

    features: Array
    labels: NDArray[np.int64]

    def some(self, places: NDArray[np.intp]) -> Rows:
        """The rows at `places`."""
        return Rows(self.features[places], self.labels[places])


def probe(train: Rows, validation: Rows, test: Rows, classes: int, name: str) -> Probed:
    """The outcomes of every probe of one task.

    Args:
        name: of the task, which decides which pictures are drawn for the probes that see few.
    """
    credit = {
        NEIGHBOURS: credit_of(neighbours(train, test.features, classes), test.labels),
        LINEAR: _linear(train, validation, test, classes),
    }
    for shots in SHOTS:
        drawn = [train.some(draw(train.labels, shots, name, number)) for number in range(_DRAWS)]
        each = [_linear(few, validation, test, classes) for few in drawn]
        credit[few_shot(shots)] = np.mean(each, axis=0)
    return Probed(credit, classes)


def draw(labels: NDArray[np.int64], shots: int, name: str, number: int) -> NDArray[np.intp]:
    """Places of up to `shots` rows of each class; more shots have those of fewer among them."""
    order = generator("shots", name, number).permutation(len(labels))
    ranked = order[np.argsort(labels[order], kind="stable")]
    _, first, counts = np.unique(labels[ranked], return_index=True, return_counts=True)
    within = np.arange(len(ranked)) - np.repeat(first, counts)
    return np.sort(ranked[within < shots])


def credit_of(scores: Array, labels: NDArray[np.int64]) -> Array:
    """Probability (N,) that the true class has the best of `scores` (N, C), over order of ties."""
    best = scores == scores.max(axis=1, keepdims=True)
    right: Array = best[np.arange(len(labels)), labels] / best.sum(axis=1)
    return right


def neighbours(train: Rows, features: Array, classes: int) -> Array:
    """Votes (N, C) of the 20 nearest training rows, weighed by exp(cosine / 0.07).

    As Wu et al. 2018, section 3.3.  Of equally near rows the first ones vote.
    """
    k = min(NEAREST, len(train.labels))
    votes = np.zeros((len(features), classes))
    step = max(1, _SCORES // len(train.labels))
    for start in range(0, len(features), step):
        cosines = features[start : start + step] @ train.features.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        weights = np.exp((np.take_along_axis(cosines, nearest, 1) - 1) / TEMPERATURE)
        rows = np.arange(start, start + len(cosines))[:, None]
        np.add.at(votes, (rows, train.labels[nearest]), weights)
    return votes


# --------------------------------------------------------------------------- logistic regression


def _linear(train: Rows, validation: Rows, test: Rows, classes: int) -> Array:
    """Credit (N,) on `test` of the regression whose C is right most often on `validation`."""
    best, chosen = -1.0, None
    for weights in regressions(train, classes):
        right = credit_of(logits(weights, validation.features), validation.labels).mean()
        if right > best:
            best, chosen = right, weights
    assert chosen is not None
    return credit_of(logits(chosen, test.features), test.labels)


def regressions(train: Rows, classes: int) -> Iterator[Array]:
    """Weights of logistic regression for every C, each from those of the one before."""
    start: Array | None = None
    for c in CS:
        start = fit(train, classes, c, start)
        yield start


def logits(weights: Array, features: Array) -> Array:
    """Scores (N, C) by weights (C, D + 1), the intercept last."""
    return features @ weights[:, :-1].T + weights[:, -1]


def fit(
    train: Rows,
    classes: int,
    c: float,
    start: Array | None = None,
    *,
    tolerance: float = 1e-4,
    steps: int = 1000,
) -> Array:
    """Multinomial logistic regression (C, D + 1) by L-BFGS, with a penalty |W|^2 / 2c.

    The intercept, the last column, goes free of it.  A class without a row has no score: -inf.

    Args:
        tolerance: largest slope, of the mean loss a row, at which it stops.
    """
    from scipy.optimize import minimize  # heavy
    from scipy.special import logsumexp

    present, labels = np.unique(train.labels, return_inverse=True)
    rows, shape = len(labels), (len(present), train.features.shape[1] + 1)
    weights = np.zeros(shape) if start is None else start[present]

    def loss(flat: Array) -> tuple[float, Array]:
        free = flat.reshape(shape)
        scores = logits(free, train.features)
        log_shares = scores - logsumexp(scores, axis=1, keepdims=True)
        slopes = np.exp(log_shares)
        slopes[np.arange(rows), labels] -= 1
        slope = np.hstack([slopes.T @ train.features, slopes.sum(0)[:, None]]) / rows
        slope[:, :-1] += free[:, :-1] / (c * rows)
        size = float((free[:, :-1] ** 2).sum()) / (2 * c * rows)
        return size - float(log_shares[np.arange(rows), labels].mean()), slope.ravel()

    options = {"gtol": tolerance, "ftol": 1e-12, "maxiter": steps}
    found = minimize(  # type: ignore[call-overload]  # the stubs want arrays of one dimension
        loss, weights.ravel(), method="L-BFGS-B", jac=True, options=options
    )
    every = np.zeros((classes, shape[1]))
    every[:, -1] = -np.inf
    every[present] = found.x.reshape(shape)
    return every
