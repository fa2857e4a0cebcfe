"""Size and speed of a model: named, shown and read from the `cost` section of a result.

Speed and memory are those of deployed forms, measured in sittings of their own
(`harness.store.deployed`); what a training process timed beside its work is never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import ConfigError, unknown
from harness.metrics.base import Described

_TITLES = {
    "parameters/total": ("parameters when training", "M"),
    "parameters/inference": ("parameters", "M"),
    "parameters/inference_without_embeddings": ("parameters without embeddings", "M"),
    "parameters/image": ("image tower parameters", "M"),
    "parameters/text": ("text tower parameters", "M"),
    "parameters/text_embeddings": ("token embedding parameters", "M"),
    "gmacs/image": ("image tower GMACs", "GMACs"),
    "gmacs/text": ("text tower GMACs", "GMACs"),
    "latency_ms/image_batch1": ("image tower latency, batch 1", "ms"),
    "latency_ms/text_batch1": ("text tower latency, batch 1", "ms"),
    "latency_ms/image_batch32": ("image tower latency, batch 32", "ms"),
    "latency_ms/text_batch32": ("text tower latency, batch 32", "ms"),
    "latency_least_ms/image_batch1": ("image tower latency, batch 1, least", "ms"),
    "latency_least_ms/text_batch1": ("text tower latency, batch 1, least", "ms"),
    "latency_least_ms/image_batch32": ("image tower latency, batch 32, least", "ms"),
    "latency_least_ms/text_batch32": ("text tower latency, batch 32, least", "ms"),
    "size_mb/image": ("image tower file", "MB"),
    "size_mb/text": ("text tower file", "MB"),
    "load_ms/image": ("image tower load", "ms"),
    "load_ms/text": ("text tower load", "ms"),
    "memory_mb/image": ("image tower memory", "MB"),
    "memory_mb/text": ("text tower memory", "MB"),
}
#: Sections that a sitting measures, and no run.
MEASURED_APART = ("latency_ms", "latency_least_ms", "load_ms", "memory_mb")
#: Name -> how it is shown; parameters are recorded as a count.
COSTS = {
    f"cost/{name}": Described(f"cost/{name}", title, unit, higher_is_better=False)
    for name, (title, unit) in _TITLES.items()
}


#: Costs that an image tower and a text tower have, by the section that holds both.
OF_TOWERS = {
    "cost/parameters": ("cost/parameters/image", "cost/parameters/text"),
    "cost/gmacs": ("cost/gmacs/image", "cost/gmacs/text"),
    "cost/latency_ms": ("cost/latency_ms/image_batch1", "cost/latency_ms/text_batch1"),
    "cost/latency_least_ms": (
        "cost/latency_least_ms/image_batch1",
        "cost/latency_least_ms/text_batch1",
    ),
    "cost/latency_ms_batch32": ("cost/latency_ms/image_batch32", "cost/latency_ms/text_batch32"),
    "cost/size_mb": ("cost/size_mb/image", "cost/size_mb/text"),
    "cost/load_ms": ("cost/load_ms/image", "cost/load_ms/text"),
    "cost/memory_mb": ("cost/memory_mb/image", "cost/memory_mb/text"),
}
#: What a table calls them.
TITLES_OF_TOWERS = {
    "cost/parameters": "parameters",
    "cost/gmacs": "GMACs",
    "cost/latency_ms": "latency",
    "cost/latency_least_ms": "least latency",
    "cost/latency_ms_batch32": "batch of 32",
    "cost/size_mb": "files",
    "cost/load_ms": "load",
    "cost/memory_mb": "memory",
}


def is_cost(name: str) -> bool:
    """Whether `name` measures the model's size or speed and not its quality."""
    return name in COSTS


def is_measured_apart(name: str) -> bool:
    """Whether `name` is a cost that no run has on record when it is done."""
    return is_cost(name) and name.split("/")[1] in (*MEASURED_APART, "size_mb")


def check_cost(name: str) -> None:
    """ConfigError, naming the nearest, unless `name` is a cost metric."""
    if not is_cost(name):
        raise ConfigError(unknown("cost", name, COSTS))


def cost_value(cost: Mapping[str, Any], name: str) -> float | None:
    """The value of a cost metric in the `cost` section of a result; None where it has none."""
    _, section, which = name.split("/")
    value = cost.get(section, {}).get(which)
    return None if value is None else float(value)
