"""Metrics: a file a family, and what is known of any of them by its name.

A new metric is a new file here: a subclass of `base.Metric`, registered.  Nothing else lists names.
"""

from __future__ import annotations

from harness.metrics.accuracy import (
    ACC1,
    MEAN_PER_CLASS_RECALL,
    accuracy_chance,
)
from harness.metrics.base import (
    CLASSIFICATION,
    IMAGE_RETRIEVAL,
    KS,
    METRICS,
    RETRIEVAL,
    TEXT_RETRIEVAL,
    WAYS,
    Classified,
    Metric,
    Ranking,
    Retrieved,
    Value,
    items_of_way,
    metric_of,
    metrics_for,
    register,
    remember,
    rules,
    versions,
)
from harness.metrics.costs import COSTS, OF_TOWERS, check_cost, cost_value, is_cost
from harness.metrics.names import (
    HEADLINE,
    benchmark_metrics,
    described,
    display,
    headline_metrics,
    higher_is_better,
    known_metrics,
    match_metrics,
    match_primary,
    scale,
    suite_mean_name,
    unit,
)
from harness.metrics.places import lacking
from harness.metrics.recall import (
    SHARED,
    mean_recall_kind,
    recall_chance,
    recall_kind,
)

__all__ = [
    "ACC1",
    "CLASSIFICATION",
    "COSTS",
    "HEADLINE",
    "IMAGE_RETRIEVAL",
    "KS",
    "MEAN_PER_CLASS_RECALL",
    "METRICS",
    "OF_TOWERS",
    "RETRIEVAL",
    "SHARED",
    "TEXT_RETRIEVAL",
    "WAYS",
    "Classified",
    "Metric",
    "Ranking",
    "Retrieved",
    "Value",
    "accuracy_chance",
    "benchmark_metrics",
    "check_cost",
    "cost_value",
    "described",
    "display",
    "headline_metrics",
    "higher_is_better",
    "is_cost",
    "items_of_way",
    "known_metrics",
    "lacking",
    "match_metrics",
    "match_primary",
    "mean_recall_kind",
    "metric_of",
    "metrics_for",
    "recall_chance",
    "recall_kind",
    "register",
    "remember",
    "rules",
    "scale",
    "suite_mean_name",
    "unit",
    "versions",
]
