"""Which split a name says: of a column's value, a file, a folder or a shard.

Owns the words; knows no data set.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

#: Words that name one of the three customary splits, as data sets spell them.  Karpathy's `restval`
#: is what is left of COCO's validation pictures, which everybody trains on.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
CUSTOMARY = frozenset(SPLIT_NAMES.values())
_WORD = re.compile(r"[^\W\d_]+")


def split_in(name: str) -> str | None:
    """The split that a file's or folder's name holds as a word, digits and `_-.` around it.

    `captions_train2017.json` says train; a name that holds two of them says none.
    """
    found = {SPLIT_NAMES[word] for word in _WORD.findall(name.casefold()) if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def split_name(given: str) -> str:
    """The customary name of a split (`dev`, `val2014`); any other name is kept as it is."""
    return split_in(given) or given.strip()


def split_folder(path: str) -> tuple[str, str] | None:
    """The split that a folder of a path says, the outermost that does, and that folder."""
    for folder in posixpath.dirname(path).split("/"):
        if (split := split_in(folder)) is not None:
            return split, folder
    return None


def absent_splits(splits: Iterable[str]) -> list[str]:
    """What a user must know of the splits there are: none to train or test on, or unused ones."""
    names = set(splits)
    if not names:
        return []
    lines = []
    if "train" not in names:
        lines.append("there is no split train: nothing can be trained on it")
    if "test" not in names:
        lines.append("there is no split test: metrics on it cannot be asked for")
    lines += [
        f"split {name!r} is neither trained on nor tested, unless evaluate.splits names it"
        for name in sorted(names - CUSTOMARY)
    ]
    return lines
