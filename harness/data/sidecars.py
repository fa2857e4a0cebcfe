"""Captions in a file beside each picture: `a.txt`, `a.json` or both, of `a.jpg`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from harness.data.account import Problem
from harness.data.captions import sample_captions
from harness.data.collect import OUTSIDE, Collected
from harness.data.files import FileTree, is_image
from harness.data.split_names import split_folder
from harness.data.table_columns import CaptionRow, CaptionTable, Row
from harness.errors import DataError

_NAME = "*.txt"
_ABOUT = ("readme", "license", "licence", "copying", "notes", "classes", "classnames", "labels")
_UNKNOWN = "no picture of the same name"


def add_sidecars(collected: Collected) -> None:
    """Take in each picture with the captions beside it, and file each that lacks its other half."""
    files = collected.files
    rows = [*_captioned(files), *_without_picture(files)]
    if rows:
        collected.add(CaptionTable(_NAME, (), None, rows))


def _captioned(files: FileTree) -> Iterator[Row]:
    images = files.images()
    split_folders = any(map(split_folder, images))
    for image in images:
        if split_folders and split_folder(image) is None:
            yield Problem(image, OUTSIDE)
            continue
        stem = posixpath.splitext(image)[0]
        beside = {s: stem + s for s in (".txt", ".json") if stem + s in files.entries}
        if not beside:
            yield Problem(image, "no .txt file of the same name")
            continue
        where = beside.get(".txt") or beside[".json"]
        try:
            captions = sample_captions(*_texts(files, beside))
        except (DataError, OSError) as error:
            yield Problem(where, str(error))
            continue
        for caption in captions:
            yield CaptionRow(where, f"{image}:{caption}", image, caption)


def _texts(files: FileTree, beside: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The text of the record, and that of the .txt file; None for one that is not there."""
    record, text = (
        files.read(beside[suffix]).decode("utf-8-sig", "surrogateescape")
        if suffix in beside
        else None
        for suffix in (".json", ".txt")
    )
    return record, text


def _without_picture(files: FileTree) -> Iterator[Row]:
    """A .txt file beside a file that is no picture by its suffix, or beside none."""
    stems = {posixpath.splitext(name)[0] for name in files.entries if is_image(name)}
    folders = {posixpath.dirname(stem) for stem in stems}
    others = {
        posixpath.splitext(name)[0]: posixpath.splitext(name)[1]
        for name in files.entries
        if not is_image(name) and not name.lower().endswith((".txt", ".json"))
    }
    for name in sorted(files.entries):
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() == ".txt" and stem not in stems:
            if stem in others:
                yield Problem(stem + others[stem], "not a picture by its suffix")
            elif posixpath.dirname(name) in folders and not _is_about(stem):
                yield Problem(name, _UNKNOWN)


def _is_about(stem: str) -> bool:
    """Whether a text seems to be about all pictures, and not the caption of one that is lost."""
    return posixpath.basename(stem).casefold().startswith(_ABOUT)
