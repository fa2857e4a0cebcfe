"""Tables of captions in JSON: lists of records, Karpathy's and COCO's layouts, JSON lines.

Also a mapping from picture to captions, and lists of equal length by column.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.config import Columns
from harness.data.account import Problem
from harness.data.files import is_image
from harness.data.table_columns import (
    CAPTION_COLUMNS,
    CaptionRow,
    CaptionTable,
    NotATableError,
    Places,
    Row,
    find_columns,
    wanted_words,
)

_LISTS_OF_RECORDS = ("images", "annotations", "data", "rows")
_LARGE = 1 << 20
"""Characters above which a file without any word for a caption is not parsed."""


def json_table(name: str, text: str, columns: Columns) -> CaptionTable:
    """The table in a .json file; NotATableError when it holds none."""
    if len(text) > _LARGE and columns == Columns() and not _may_hold_captions(text):
        raise NotATableError(f"{name} names no field of captions")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = list(_json_lines(name, text))
        if len(lines) > 1 and sum(isinstance(line, tuple) for line in lines) == len(lines):
            return record_table(name, lines, columns)  # JSON lines under another suffix
        raise NotATableError(f"{name} is not JSON: {error}", broken=True) from error
    if isinstance(tree, dict):
        if _is_coco(tree):
            return CaptionTable(name, ("file_name", "caption"), None, _coco_rows(name, tree))
        if tree and all(map(is_image, tree)):
            return CaptionTable(name, ("image", "caption"), None, _mapped_rows(name, tree))
    return record_table(name, list(_numbered(name, _records_in(name, tree, columns))), columns)


def json_lines_table(name: str, text: str, columns: Columns) -> CaptionTable:
    """The table in a file with a record a line; NotATableError when no line is one."""
    return record_table(name, list(_json_lines(name, text)), columns)


Numbered = tuple[str, object]
"""Where a record is, and the record."""


def _may_hold_captions(text: str) -> bool:
    return any(f'"{column}"' in text for column in CAPTION_COLUMNS) or is_image(
        text[:300].partition('"')[2].partition('"')[0]
    )


def _numbered(name: str, records: Sequence[object]) -> Iterator[Numbered]:
    return ((f"{name}[{number}]", record) for number, record in enumerate(records))


def _json_lines(name: str, text: str) -> Iterator[Numbered | Problem]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{name}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Problem(f"{name}:{number}", f"not JSON: {error}")


def _records_in(name: str, tree: object, columns: Columns) -> Sequence[object]:
    """The records of a file: a list, one under a customary name, or lists by column."""
    if isinstance(tree, list):
        return tree
    if isinstance(tree, dict):
        for key in _LISTS_OF_RECORDS:
            found = tree.get(key)
            if isinstance(found, list) and any(isinstance(record, dict) for record in found):
                return found
        places = find_columns([str(key).casefold() for key in tree], columns)
        lists = [value for value in tree.values() if isinstance(value, list)]
        if places is not None and len(lists) == len(tree) and len({*map(len, lists)}) == 1:
            return [dict(zip(tree, values, strict=True)) for values in zip(*lists, strict=True)]
    raise NotATableError(f'{name} is neither a list of records nor has one under "images"')


# --------------------------------------------------------------------------- records


def record_table(name: str, found: Sequence[Numbered | Problem], columns: Columns) -> CaptionTable:
    """The table of these records, in order; NotATableError when none pairs picture and caption."""
    records = [each[1] for each in found if not isinstance(each, Problem)]
    for record in records:
        places = _places(record, columns)
        if isinstance(record, Mapping) and places is not None:
            heads = tuple(sorted(str(key).casefold() for key in record))
            split = next((s for r in records if (s := _split_field(r, columns))), None)
            return CaptionTable(name, heads, split, _rows(found, columns, split))
    fields = sorted({str(key) for r in records[:20] if isinstance(r, Mapping) for key in r})
    words = wanted_words(columns, fields)
    raise NotATableError(
        f"{name} has no record that names a picture and a caption: {words}",
        broken=not records or any(map(_pairs_a_picture, records[:3])),
    )


def _pairs_a_picture(record: object) -> bool:
    values = [v for v in record.values() if isinstance(v, str)] if isinstance(record, dict) else []
    return any(map(is_image, values)) and any(" " in v and not is_image(v) for v in values)


def _places(record: object, columns: Columns) -> Places | None:
    if not isinstance(record, Mapping):
        return None
    return find_columns([str(key).casefold() for key in record], columns)


def _split_field(record: object, columns: Columns) -> str | None:
    places = _places(record, columns)
    return None if places is None else places.split


def _rows(
    found: Sequence[Numbered | Problem], columns: Columns, split: str | None
) -> Iterator[Row]:
    for each in found:
        if isinstance(each, Problem):
            yield each
            continue
        where, record = each
        places = _places(record, columns)
        if places is None or not isinstance(record, Mapping):
            yield Problem(where, "no record with a picture and a caption")
            continue
        fields = {str(key).casefold(): value for key, value in record.items()}
        image = fields[places.image]
        folder = fields.get("filepath")
        if isinstance(image, str) and isinstance(folder, str) and "filename" in fields:
            image = posixpath.join(folder, image)  # Karpathy's COCO: folder and name apart
        raw = json.dumps(record, sort_keys=True, default=str)
        value = None if split is None else fields.get(split, "")
        for number, caption in enumerate(_captions_of(fields, places)):
            yield CaptionRow(where, f"{number}:{raw}", image, caption, value)


def _captions_of(fields: Mapping[str, object], places: Places) -> list[object]:
    if isinstance(sentences := fields.get("sentences"), list):
        return [s.get("raw") if isinstance(s, dict) else s for s in sentences] or [None]
    given = fields[places.caption]
    return (given or [None]) if isinstance(given, list) else [given]


# --------------------------------------------------------------------------- other layouts


def _is_coco(tree: Mapping[str, Any]) -> bool:
    images, captions = tree.get("images"), tree.get("annotations")
    return (
        isinstance(images, list)
        and isinstance(captions, list)
        and any(isinstance(a, dict) and {"image_id", "caption"} <= a.keys() for a in captions)
    )


def _coco_rows(name: str, tree: Mapping[str, Any]) -> Iterator[Row]:
    names = {i.get("id"): i.get("file_name") for i in tree["images"] if isinstance(i, dict)}
    captioned = set()
    for number, annotation in enumerate(tree["annotations"]):
        where = f"{name}[{number}]"
        if not isinstance(annotation, dict) or "caption" not in annotation:
            yield Problem(where, "no annotation with a caption")
            continue
        image = annotation.get("image_id")
        captioned.add(image)
        raw = json.dumps(annotation, sort_keys=True)
        yield CaptionRow(where, raw, names.get(image), annotation["caption"])
    for image in names.keys() - captioned:
        yield Problem(str(names[image]), "no caption of this picture")


def _mapped_rows(name: str, tree: Mapping[str, object]) -> Iterator[Row]:
    for number, (image, given) in enumerate(tree.items()):
        captions = given if isinstance(given, list) else [given]
        for place, caption in enumerate(captions or [None]):
            yield CaptionRow(f"{name}[{number}]", f"{place}:{image}", image, caption)
