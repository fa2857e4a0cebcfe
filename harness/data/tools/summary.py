"""What `harness.data check` has to say of a data set, as one tree of plain values.

The printed tables and `--json` are made from it, so that they cannot differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from harness.data.account import Account, Problem, RefusedData
from harness.data.class_sets import pictures_a_class
from harness.data.classnames import prompts
from harness.data.dataset import DataSet
from harness.data.sources.shards import Shards
from harness.data.tools.scan import Scan
from harness.errors import DataError

SCHEMA = 1


def summary_of(data: DataSet, found: Scan) -> dict[str, Any]:
    """The tree of a data set whose pictures have all been looked at.

    `seen` and `usable` are rows: captions of tables, samples of shards.  A picture that cannot be
    decoded takes all its rows with it, which is the `count` of its problem.
    """
    bad = [each for split in found.bad for each in _undecodable(data, split, found.bad[split])]
    problems = [*((problem, 1) for problem in found.problems), *bad]
    lost = sum(count for _, count in problems)
    return {
        **_tree(None, _account(data, found), problems),
        "splits": {
            name: {
                "pictures": len(split),
                "captions": sum(map(len, split.captions)),
                "origin": data.account.origins.get(name, "as the source gives it"),
            }
            for name, split in data.splits.items()
        },
        "classes": _classes(data),
        "seen": max(data.indexed, lost),
        "usable": max(data.indexed, lost) - lost,
        "captions": _extremes(data),
    }


def _account(data: DataSet, found: Scan) -> Account:
    return replace(
        data.account,
        files=found.files,
        notes=(*data.account.notes, *found.notes, *found.duplicates.lines(data)),
        repeated=found.duplicates.repeated,
        leakage=found.duplicates.across,
    )


def summary_of_refused(error: DataError) -> dict[str, Any]:
    """The tree of data that cannot be used, with as much as was read of them."""
    if not isinstance(error, RefusedData):
        return _tree(str(error), Account(), ())
    tree = _tree(str(error), error.account, [(problem, 1) for problem in error.problems])
    return {**tree, "seen": error.seen}


def _tree(
    refused: str | None, account: Account, problems: Sequence[tuple[Problem, int]]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "refused": refused,
        "files": [asdict(file) for file in account.files],
        "splits": {},
        "classes": {},
        "seen": 0,
        "usable": 0,
        "duplicates": {
            "within": dict(account.repeated),
            "across": [asdict(each) for each in account.leakage],
        },
        "problems": list(_by_reason(problems)),
        "notes": list(account.notes),
        "captions": {},
    }


def _by_reason(problems: Iterable[tuple[Problem, int]]) -> Iterator[dict[str, Any]]:
    """A record for each reason, the most frequent first, with the first place of each."""
    first: dict[str, Problem] = {}
    counts: dict[str, int] = defaultdict(int)
    for problem, count in problems:
        first.setdefault(problem.reason, problem)
        counts[problem.reason] += count
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        file, row = first[reason].place
        yield {"file": file, "row": row, "reason": reason, "count": count}


def _undecodable(
    data: DataSet, split: str, bad: Mapping[str, str]
) -> Iterator[tuple[Problem, int]]:
    """Each picture of a split that cannot be decoded, and how many rows go with it."""
    rows = rows_lost(data, split, bad)
    return ((Problem(image, reason), rows[image]) for image, reason in bad.items())


def rows_lost(data: DataSet, split: str, bad: Iterable[str]) -> dict[str, int]:
    """Picture of a split that cannot be used -> how many rows go with it: its captions, of a table.

    What `check` and `pack` count as unusable, beside the rows that the index left out.
    """
    rows = dict.fromkeys(bad, 1)
    if rows and not isinstance(data, Shards):
        pairs = zip(data.splits[split].images, data.splits[split].captions, strict=True)
        rows |= {image: max(1, len(captions)) for image, captions in pairs if image in rows}
    return rows


def _classes(data: DataSet) -> dict[str, dict[str, Any]]:
    """Class -> pictures, and the first prompt; of a data set that is one task."""
    if len(data.tasks) != 1:
        return {}
    (task,) = data.tasks
    counts = pictures_a_class(task)
    first = prompts(task.classnames, task.templates[:1]) or task.classnames
    found: dict[str, dict[str, Any]] = {}
    for name, pictures, prompt in zip(task.classnames, counts, first, strict=True):
        again = f"{name} ({sum(each.partition(' (')[0] == name for each in found) + 1})"
        found[again if name in found else name] = {"pictures": pictures, "prompt": prompt}
    return found


def _extremes(data: DataSet) -> dict[str, dict[str, Any]]:
    """The longest and the shortest caption, by characters."""
    found: dict[str, dict[str, Any]] = {}
    for split in data.splits.values():
        for image, captions in zip(split.images, split.captions, strict=True):
            for caption in captions:
                this = {"characters": len(caption), "caption": caption, "picture": image}
                if not found or len(caption) > found["longest"]["characters"]:
                    found["longest"] = this
                if "shortest" not in found or len(caption) < found["shortest"]["characters"]:
                    found["shortest"] = this
    return found
