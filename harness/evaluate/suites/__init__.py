"""Suites of public benchmarks, as data: `records` says what one is, `find` where it is on disk.

A new benchmark is a new record in one of the lists; a new suite is a new list.  The own suites of
`metrics` are measured on a run's own splits and have no benchmarks.  Torch-free, so that
a plan can name what is missing before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.errors import ConfigError, unknown
from harness.evaluate.suites.composition import COMPOSITION, SWAPS
from harness.evaluate.suites.lightclip11 import LIGHTCLIP11
from harness.evaluate.suites.records import Benchmark
from harness.evaluate.suites.retrieval import RELEVANT, RETRIEVAL
from harness.evaluate.suites.robustness import ROBUSTNESS
from harness.evaluate.suites.smoke import SMOKE
from harness.metrics import OWN_SUITES

SUITES: dict[str, tuple[Benchmark, ...]] = {
    "lightclip11": LIGHTCLIP11,
    "retrieval": RETRIEVAL,
    "relevance": RELEVANT,
    "robustness": ROBUSTNESS,
    "composition": COMPOSITION,
    "smoke": SMOKE,
    "swaps": SWAPS,
}

BENCHMARKS: dict[str, Benchmark] = {b.name: b for suite in SUITES.values() for b in suite}


def suite(name: str) -> tuple[Benchmark, ...]:
    """The benchmarks of the suite `name`, or the one that is called so; an own suite has none.

    Raises ConfigError naming the nearest.
    """
    if name in OWN_SUITES:
        return ()
    if name in SUITES:
        return SUITES[name]
    if name in BENCHMARKS:
        return (BENCHMARKS[name],)
    raise ConfigError(unknown("suite", name, [*SUITES, *OWN_SUITES, *BENCHMARKS], show=30))


def benchmarks_of(names: Iterable[str]) -> list[Benchmark]:
    """The benchmarks of several suites, each once, in their order."""
    return list({b.name: b for name in names for b in suite(name)}.values())
