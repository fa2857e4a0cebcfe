"""Which of the shown metrics belong under one heading, and the averages that may be taken of them.

An average is over the metrics of one kind in one section (top-1 accuracy over the zero-shot sets)
and always goes with the list of what it is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import metrics
from harness.config import TERMS
from harness.metrics.choice import CHOICE

RETRIEVAL, ZERO_SHOT, COST, OTHER = "Retrieval", "Zero-shot classification", "Cost", ""
CHOICES, OBJECTIVES = "Choices", "Objectives"


@dataclass(frozen=True)
class MetricSection:
    """Metrics under one heading, the averages last."""

    title: str
    metrics: tuple[str, ...]
    averages: Mapping[str, tuple[str, ...]]
    """Average among `metrics` -> what it is the mean of."""


def sections_of(shown: Sequence[str]) -> tuple[MetricSection, ...]:
    """The shown metrics by section, sections and metrics in the order of their first appearance."""
    by_title: dict[str, list[str]] = {}
    for name in shown:
        by_title.setdefault(_title(name), []).append(name)
    return tuple(_section(title, names) for title, names in by_title.items())


def averages_of(sections: Sequence[MetricSection]) -> dict[str, tuple[str, ...]]:
    """The averages of all sections."""
    return {name: members for section in sections for name, members in section.averages.items()}


def _section(title: str, names: Sequence[str]) -> MetricSection:
    averages: dict[str, tuple[str, ...]] = {}
    if title == ZERO_SHOT:
        for kind in dict.fromkeys(name.rpartition("/")[2] for name in names):
            members = tuple(name for name in names if name.rpartition("/")[2] == kind)
            found = metrics.described(members[0])
            if len(members) > 1 and found is not None:
                averages[f"average {found.title}"] = members
    return MetricSection(title, (*names, *averages), averages)


def _title(name: str) -> str:
    if metrics.is_cost(name):
        return COST
    found = metrics.described(name)
    if found is not None and found.needs == metrics.RETRIEVAL:
        return _of_split(RETRIEVAL, name.rpartition("/")[0])
    if found is not None and found.needs in TERMS:
        return OBJECTIVES
    if found is not None and found.needs == CHOICE:
        return CHOICES
    if found is not None and found.needs in metrics.OWN_SUITES:
        return metrics.OWN_SUITES[found.needs]
    return ZERO_SHOT if found is not None and found.needs == metrics.CLASSIFICATION else OTHER


def _of_split(title: str, split: str) -> str:
    return title if split == "test" else f"{title}, {split}"
