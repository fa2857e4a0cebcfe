"""What a sweep runs before and after its points times its seeds: a grid to tune on, further seeds.

Nuisance parameters are fields that every point may choose for itself, from one grid, on the
validation split and by seeds of their own.  Looks are numbers of seeds at which open comparisons
are judged.  Plain values and their checks; knows no sweep.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.config.evaluation import VALIDATION
from harness.config.identity import canonical_json
from harness.config.overrides import check_path
from harness.config.points import axis_values, plain_point, whole_numbers
from harness.errors import SweepError

MAX_SEEDS = 16
"""Most seeds of a point that is looked at until it is decided, where nothing else is said."""
_GROWTH = 1.5
"""Of the seeds from one look to the next, where the looks are not given."""


def check_nuisance(
    given: Mapping[str, Iterable[Any]], axes: Sequence[str]
) -> dict[str, tuple[Any, ...]]:
    """The grid with plain values.

    Raises:
        SweepError, ConfigError: a field is none, is an axis too, or has nothing to choose from.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for path, values in given.items():
        check_path(path)
        if path in axes:
            raise SweepError(f"{path} is an axis of the points and a nuisance parameter: choose")
        if path == "seed" or path.startswith("evaluate."):
            raise SweepError(f"{path} is no nuisance parameter: it is not trained with")
        made = [plain_point({path: value})[path] for value in axis_values(path, values)]
        if not made or len({canonical_json(value) for value in made}) < len(made):
            raise SweepError(f"nuisance {path} = {made}: values are wanted, each once")
        grid[path] = tuple(made)
    if grid and all(len(values) == 1 for values in grid.values()):
        raise SweepError("nuisance: one combination leaves nothing to choose; set it in the base")
    return grid


def check_tuning(tune_on: str, tune_seeds: Sequence[int], report_seeds: Sequence[int]) -> None:
    """SweepError where a choice would be made on what is reported."""
    if not tune_on.startswith(f"{VALIDATION}/"):
        raise SweepError(
            f"tune_on = {tune_on!r}: a metric of the validation split is wanted, such as "
            f"'{VALIDATION}/mean_recall'; what is reported may not be chosen by"
        )
    if not tune_seeds or len(set(tune_seeds)) < len(tune_seeds):
        raise SweepError(f"tune_seeds must be given, each once; these were: {[*tune_seeds]}")
    shared = [seed for seed in tune_seeds if seed in report_seeds]
    if shared:
        raise SweepError(
            f"tune_seeds = {[*tune_seeds]}: the report has seeds {shared} too, and what was chosen "
            "by a seed looks better with it; choose others"
        )


def check_looks(
    seeds: Sequence[int], until: int | None, looks: Iterable[int] | None
) -> tuple[int, ...]:
    """Numbers of seeds of the looks, in order; empty for a sweep that is looked at once.

    Args:
        seeds: of the first look.

    Raises:
        SweepError: they are out of order, or do not begin with `seeds` and end with `until`.
    """
    if until is None and looks is None:
        return ()
    first = len(seeds)
    if first < 2:
        raise SweepError(
            f"until = {until}: a first look of at least 2 seeds is wanted, not {first}"
        )
    if looks is not None:
        return _given_looks(first, until, _counts("looks", looks))
    (most,) = _counts("until", [until])
    if most <= first:
        raise SweepError(f"until = {most}: more than the {first} seeds of the first look is wanted")
    counts = [first]
    while counts[-1] < most:
        step = math.floor(counts[-1] * _GROWTH + 0.5)
        counts.append(most if most - step < step - counts[-1] else step)
    return tuple(counts)


def _counts(name: str, given: Iterable[Any]) -> tuple[int, ...]:
    try:
        return whole_numbers(given)
    except SweepError:
        shown = [*given] if isinstance(given, Sequence) else given
        raise SweepError(f"{name} = {shown!r}: whole numbers of seeds are wanted") from None


def _given_looks(first: int, until: int | None, counts: tuple[int, ...]) -> tuple[int, ...]:
    told = f"looks = {list(counts)}"
    if len(counts) < 2 or any(b <= a for a, b in itertools.pairwise(counts)):
        raise SweepError(f"{told}: at least two numbers of seeds are wanted, each above the last")
    if counts[0] != first:
        raise SweepError(f"{told}: the first look has the sweep's own {first} seeds")
    if until is not None and counts[-1] != until:
        raise SweepError(f"{told}: until = {until} is not the last of them")
    return counts


def seeds_in_order(seeds: Sequence[int], looks: Sequence[int], taken: Sequence[int]) -> list[int]:
    """The seeds of the first look, and what follows them up to the last one.

    Args:
        taken: seeds that something else has, which are passed over.
    """
    order = list(seeds)
    following = itertools.count(max(order, default=-1) + 1)
    while looks and len(order) < looks[-1]:
        order += [seed for seed in [next(following)] if seed not in taken]
    return order
