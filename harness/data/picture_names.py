"""Which picture of a folder each name in a table of captions means.

A name that says a folder means a picture of that folder, or of none: never one that merely has the
same base name elsewhere, unless the whole table is of other folders than those that are there.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.data.files import FileTree, is_image
from harness.errors import DataError

ABSENT = "picture is not there"
_ELSEWHERE = f"{ABSENT}, though another folder has one of its name"
_CLAIMED = "several names of other folders mean this picture"


class _Found(NamedTuple):
    image: str
    by_folder: bool
    """The folder that was given is that of the picture."""
    guessed: bool = False
    """The folder that was given is not there: only the base name speaks for it."""


def resolve(given: Iterable[str], files: FileTree) -> Mapping[str, str | DataError]:
    """Picture of each distinct name, or why there is none.

    A name is looked for as it stands, then in another case or Unicode form, then as the end of a
    path, and last by its base name.
    """
    lookup = _Lookup(files)
    found = {name: lookup.find(name) for name in given}
    answers = [each for each in found.values() if isinstance(each, _Found)]
    by_folder = any(each.by_folder for each in answers)
    claims = Counter(each.image for each in answers)
    out: dict[str, str | DataError] = {}
    for name, each in found.items():
        if isinstance(each, DataError):
            out[name] = each
        elif each.guessed and (by_folder or lookup.has_folder_of(name)):
            out[name] = DataError(_ELSEWHERE)
        elif each.guessed and claims[each.image] > 1:
            out[name] = DataError(_CLAIMED)
        else:
            out[name] = each.image
    return out


class _Lookup:
    def __init__(self, files: FileTree) -> None:
        self._entries = files.entries
        self._bases: dict[str, list[str]] | None = None
        self._folders: set[str] | None = None

    def find(self, given: str) -> _Found | DataError:
        """The picture that a name means by itself."""
        if given in self._entries and is_image(given):
            return _Found(given, "/" in given)
        name = posixpath.normpath(given.strip().replace("\\", "/"))
        if name in self._entries:
            return _picture(name, "/" in name)
        same = self._same_base(posixpath.basename(name))
        if not same:
            return DataError(ABSENT)
        folded = _folded(name)
        equal = [other for other in same if _folded(other) == folded]
        ending = [other for other in same if _folded(other).endswith("/" + folded)]
        longer = [o for o in same if "/" in o and folded.endswith("/" + _folded(o))]
        for candidates in (equal, ending, longer):
            if len(candidates) == 1:
                return _picture(candidates[0], "/" in name)
        if len(same) > 1:
            return DataError("picture is ambiguous")
        return _Found(same[0], by_folder=False, guessed="/" in name)

    def has_folder_of(self, given: str) -> bool:
        """Whether a folder called as the one that a name says is there."""
        if self._folders is None:
            self._folders = {
                _folded(folder) for name in self._entries for folder in name.split("/")[:-1]
            }
        folder = posixpath.dirname(posixpath.normpath(given.strip().replace("\\", "/")))
        return _folded(posixpath.basename(folder)) in self._folders

    def _same_base(self, base: str) -> list[str]:
        """Pictures of this base name as it is written, else in any case or Unicode form."""
        if self._bases is None:
            self._bases = defaultdict(list)
            for name in self._entries:
                if is_image(name):
                    self._bases[_folded(posixpath.basename(name))].append(name)
        same = self._bases.get(_folded(base), [])
        return [name for name in same if posixpath.basename(name) == base] or same


def _picture(name: str, by_folder: bool) -> _Found | DataError:
    return _Found(name, by_folder) if is_image(name) else DataError("not a picture by its suffix")


def _folded(name: str) -> str:
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).casefold()
