"""Pictures that are there more than once: by their content, whatever they are called.

Two pictures are one when their bytes are: the same size and CRC-32.  Where not all are read anyway,
those alone are looked into whose size occurs in several splits (or classes), first at their
beginning; what is found is kept beside other derived data, once for each content.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.data.account import Leakage
from harness.data.dataset import DataSet
from harness.data.tools.jobs import ProgressLines
from harness.data.verified import cache_key, keep_json, kept_json

_VERSION = 1
_HEAD = 4096
"""Bytes at the beginning of a picture that are compared before all of it is."""
_READERS = 8
_TOGETHER = 4096

Content = tuple[int, int]
"""Size and CRC-32 of a picture."""


class _Place(NamedTuple):
    split: str
    number: int


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once.

    Attributes:
        across: pictures that several splits have; of a zero-shot set, several classes.
        repeated: split -> pictures whose content another one of the split has; only of data all of
            which was read.
    """

    across: tuple[Leakage, ...] = ()
    repeated: Mapping[str, int] = field(default_factory=dict)

    def lines(self, data: DataSet) -> list[str]:
        """A line for each group of splits or classes that have pictures in common."""
        what = "in several classes" if _is_class_set(data) else "leakage between splits"
        return [
            f"{what}: {each.pictures:,} {'picture' if each.pictures == 1 else 'pictures'} of "
            f"{' and of '.join(each.splits)}, such as {' = '.join(each.example)}"
            for each in self.across
        ]


def duplicates_of(data: DataSet, contents: Mapping[str, Sequence[Content | None]]) -> Duplicates:
    """What is there more than once, of data all of which was read.

    Args:
        contents: split -> content of each picture; None of one that cannot be read.
    """
    found: dict[Content, list[_Place]] = defaultdict(list)
    for split, of_split in contents.items():
        for number, content in enumerate(of_split):
            if content is not None:
                found[content].append(_Place(split, number))
    several = [places for places in found.values() if len(places) > 1]
    repeated: Counter[str] = Counter()
    for places in several:
        counts = Counter(place.split for place in places)
        repeated += Counter({split: count - 1 for split, count in counts.items()})
    return Duplicates(_across(data, several), dict(repeated))


def find_duplicates(data: DataSet, cache: Path) -> Duplicates:
    """What several splits (or classes) have, looked for once for each content of the data.

    Nothing of data whose pictures have no known size before they are read.
    """
    try:
        kept = (kept_json(_file(data, cache)) or {})["across"]
        leaks = [Leakage(tuple(e["splits"]), e["pictures"], tuple(e["example"])) for e in kept]
        return Duplicates(tuple(leaks))
    except (KeyError, TypeError):
        found = Duplicates(_across(data, _candidates(data)))
    keep_duplicates(data, cache, found)
    return found


def keep_duplicates(data: DataSet, cache: Path, found: Duplicates) -> None:
    """Keep what was found for those who ask later."""
    keep_json(_file(data, cache), {"across": [asdict(each) for each in found.across]})


def _file(data: DataSet, cache: Path) -> Path:
    what = [_VERSION, data.fingerprint, data.evaluation_fingerprint]
    return cache / "duplicates" / f"{cache_key(what)}.json"


# --------------------------------------------------------------------------- groups


def _is_class_set(data: DataSet) -> bool:
    return len(data.splits) == 1 and len(data.tasks) == 1


def _group(data: DataSet) -> Callable[[_Place], str]:
    """What a picture is of: its split, or its class where there is but one split."""
    if not _is_class_set(data):
        return lambda place: place.split
    (task,) = data.tasks
    return lambda place: task.classnames[task.labels[place.split][place.number]]


def _across(data: DataSet, several: Iterable[Sequence[_Place]]) -> tuple[Leakage, ...]:
    """Of places with one content each, those in several groups, by the groups."""
    group = _group(data)
    counts: Counter[tuple[str, ...]] = Counter()
    examples: dict[tuple[str, ...], tuple[str, ...]] = {}
    for places in several:
        first = {group(place): place for place in reversed(places)}
        groups = tuple(sorted(first))
        if len(groups) > 1:
            counts[groups] += 1
            names = (data.splits[first[g].split].images[first[g].number] for g in groups)
            examples.setdefault(groups, tuple(names))
    ordered = sorted(counts, key=lambda groups: (-counts[groups], groups))
    return tuple(Leakage(groups, counts[groups], examples[groups]) for groups in ordered)


# --------------------------------------------------------------------------- without reading all


def _candidates(data: DataSet) -> list[list[_Place]]:
    """Places with one content each, in several groups."""
    sizes = {split: data.sizes(split) for split in data.splits}
    known = {split: found for split, found in sizes.items() if found is not None}
    if len(known) < len(sizes) or not known:
        return []
    group = _group(data)
    starts = np.cumsum([0, *(len(found) for found in known.values())])
    splits = list(known)

    def place_of(i: int) -> _Place:
        at = int(np.searchsorted(starts, i, side="right")) - 1
        return _Place(splits[at], int(i - starts[at]))

    if _is_class_set(data):
        groups = np.asarray(data.tasks[0].labels[splits[0]])
    else:
        groups = np.repeat(np.arange(len(splits)), np.diff(starts))
    alike = [[place_of(i) for i in run] for run in _runs(np.concatenate([*known.values()]), groups)]
    for whole in (False, True):
        alike = _told_apart(data, alike, group, whole=whole)
    return alike


def _runs(sizes: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Indexes of equal `sizes` (N,) that are in several `groups` (N,)."""
    order = np.argsort(sizes, kind="stable")
    starts = np.flatnonzero(np.diff(sizes[order], prepend=-1))
    mixed = np.minimum.reduceat(groups[order], starts) != np.maximum.reduceat(groups[order], starts)
    runs = np.split(order, starts[1:])
    return [run for run, is_mixed in zip(runs, mixed, strict=True) if is_mixed]


def _told_apart(
    data: DataSet,
    alike: Sequence[Sequence[_Place]],
    group: Callable[[_Place], str],
    *,
    whole: bool,
) -> list[list[_Place]]:
    """Lists of places that are still alike once their beginnings, or all of them, were read."""

    def checksum(place: _Place) -> int | None:
        image = data.splits[place.split].images[place.number]
        known = data.checksum(image)
        if known is not None:
            return known
        try:
            return zlib.crc32(data.read(image) if whole else data.beginning(image, _HEAD))
        except (OSError, KeyError):
            return None

    flat = [(number, place) for number, places in enumerate(alike) for place in places]
    found: dict[tuple[int, int], list[_Place]] = defaultdict(list)
    told = ProgressLines("looking for pictures that are there twice", "pictures")
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(flat), _TOGETHER):
            some = flat[first : first + _TOGETHER]
            for (number, place), crc in zip(
                some, pool.map(checksum, [place for _, place in some]), strict=True
            ):
                if crc is not None:
                    found[number, crc].append(place)
            told(first + len(some), len(flat))
    return [places for places in found.values() if len({group(place) for place in places}) > 1]
