"""Test sets of choices: items from the files of their authors, or from the built-in drawings.

Readers of the layouts of SugarCrepe, SugarCrepe++, Winoground and ARO; nothing is fetched.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from harness.data import naming
from harness.data.captions import checked_caption
from harness.data.dataset import Split
from harness.data.files import FileTree
from harness.data.images import BadImage, decode
from harness.data.naming import Meaning
from harness.errors import DataError, one_line
from harness.evaluate.suites.find import Found, listing_of
from harness.evaluate.suites.open import BenchmarkSet, check_count
from harness.evaluate.suites.records import ChoiceItem
from harness.files import read_regular

_MOST_BYTES = 256 << 20
_MOST_PIXELS = 64_000_000
_CROP = "#"
"""Between a file's name and the box of it that is looked at."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ChoiceSet(BenchmarkSet):
    """Pictures, and the items that are chosen among."""

    items: tuple[ChoiceItem, ...]


def open_choices(found: Found, cache: Path) -> ChoiceSet:
    """What `open.open_found` does for a benchmark of choices; DataError likewise."""
    benchmark = found.benchmark
    if benchmark.is_built_in:
        return _swaps(found, cache)
    file = listing_of(benchmark, found.path)
    assert file is not None
    files = FileTree(found.path)
    items = tuple(_items(_rows(file), file, files))
    check_count(found, "items", len(items), benchmark.samples)
    return _choice_set(found, items, lambda name: _read(files, name))


def _choice_set(
    found: Found, items: Sequence[ChoiceItem], reader: Callable[[str], bytes], **more: Any
) -> ChoiceSet:
    images = list(dict.fromkeys(image for item in items for image in item.images))
    split = Split(images, [()] * len(images))
    return ChoiceSet.of(found, split, reader, indexed=len(items), items=tuple(items), **more)


# --------------------------------------------------------------------------- files of authors


def _rows(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Where each row is, and the row: of a JSON list, object of objects, or JSON lines."""
    try:
        text = read_regular(file, _MOST_BYTES).decode("utf-8")
        lines = file.suffix == ".jsonl"
        tree = (
            [json.loads(line) for line in text.splitlines() if line] if lines else json.loads(text)
        )
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: {one_line(error)}") from None
    if not isinstance(tree, (dict, list)):
        raise DataError(f"{file}: a list of items is wanted, {tree!r:.60} is there")
    pairs = list(tree.items()) if isinstance(tree, dict) else [*enumerate(tree)]
    for key, row in pairs:
        if not isinstance(row, dict):
            raise DataError(f"{file}, item {key}: an object is wanted, {row!r:.60} is there")
    return [(str(key), row) for key, row in pairs]


def _items(
    rows: Sequence[tuple[str, Mapping[str, Any]]], file: Path, files: FileTree
) -> Iterator[ChoiceItem]:
    by_name: dict[str, list[str]] = {}
    for name in files.entries:
        by_name.setdefault(name.rpartition("/")[2], []).append(name)
    for key, row in rows:
        where = f"{file}, item {key}"
        pictures, captions, right = _shape(row, where)
        try:
            texts = tuple(checked_caption(text) for text in captions)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if len(texts) <= right:
            raise DataError(f"{where}: {len(texts)} captions, more than {right} are wanted")
        box = _box(row, where)
        yield ChoiceItem(
            tuple(_file_of(name, by_name, where) + box for name in pictures), texts, right
        )


def _shape(row: Mapping[str, Any], where: str) -> tuple[list[str], list[Any], int]:
    """Pictures, captions and how many of these are right, by the names of the fields."""
    if "image_0" in row:  # Winoground
        return [row["image_0"], row["image_1"]], [row.get("caption_0"), row.get("caption_1")], 1
    if "caption2" in row:  # SugarCrepe++: two ways to say what is right
        own = [row.get("caption"), row["caption2"]]
        return [row.get("filename", "")], [*own, row.get("negative_caption")], 2
    if "negative_caption" in row:  # SugarCrepe
        return [row.get("filename", "")], [row.get("caption"), row["negative_caption"]], 1
    if "true_caption" in row:  # ARO
        return [row.get("image_path", "")], [row["true_caption"], row.get("false_caption")], 1
    if isinstance(row.get("caption_options"), list):  # ARO's order: the right one comes first
        return [row.get("image", "")], row["caption_options"], 1
    raise DataError(
        f"{where} has the fields {', '.join(row)}; those of SugarCrepe (negative_caption), "
        "Winoground (image_0) or ARO (true_caption, caption_options) are wanted"
    )


def _file_of(name: object, by_name: Mapping[str, list[str]], where: str) -> str:
    """The one file of that name; Winoground's names have no ending."""
    wanted = str(name).rpartition("/")[2]
    found = by_name.get(wanted) or next(
        (by_name[each] for end in (".png", ".jpg", ".jpeg") if (each := wanted + end) in by_name),
        [],
    )
    if len(found) != 1:
        what = "is not there" if not found else f"is there {len(found)} times"
        raise DataError(f"{where}: picture {name!r} {what}")
    return found[0]


def _box(row: Mapping[str, Any], where: str) -> str:
    """The part of its picture that an item of ARO is about, as a name carries it."""
    if "bbox_x" not in row:
        return ""
    try:
        left, top, width, height = (int(row[f"bbox_{side}"]) for side in "xywh")
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: bbox_x, _y, _w and _h are no whole numbers") from None
    return f"{_CROP}{left},{top},{width},{height}"


def _read(files: FileTree, name: str) -> bytes:
    """A picture, or the part of it that its name asks for, without loss as PNG."""
    file, mark, box = name.rpartition(_CROP)
    if not mark or name in files.entries:
        return files.read(name)
    left, top, width, height = map(int, box.split(","))
    try:
        picture = Image.fromarray(decode(files.read(file), max_pixels=_MOST_PIXELS))
    except BadImage as error:
        raise OSError(str(error)) from error
    out = io.BytesIO()
    picture.crop((left, top, left + width, top + height)).save(out, "PNG", compress_level=0)
    return out.getvalue()


# --------------------------------------------------------------------------- built in


def _swaps(found: Found, cache: Path) -> ChoiceSet:
    """Held-out drawings of a man or a woman: the name, and the name with one part swapped."""
    from harness.data.sources.openmoji import held_out_people, open_openmoji

    drawings = open_openmoji(64, cache)
    swap = _SWAPS[found.benchmark.name.rpartition("_")[2]]
    people = held_out_people()
    roles = sorted({meaning.role for meaning in people.values()})
    items = [
        ChoiceItem((image,), (_name(meaning), _name(swap(meaning, roles))))
        for image, meaning in people.items()
    ]
    check_count(found, "items", len(items), found.benchmark.samples)
    return _choice_set(found, items, drawings.read, inner=drawings)


def _name(meaning: Meaning) -> str:
    return naming.captions_of(meaning)[0]


def _other_gender(meaning: Meaning, roles: Sequence[str]) -> Meaning:
    del roles
    gender = "woman" if meaning.gender == "man" else "man"
    return replace(meaning, gender=gender, phrase=naming.phrase_of(meaning.role, gender))


def _other_tone(meaning: Meaning, roles: Sequence[str]) -> Meaning:
    """Two steps along the scale, so that the drawings differ plainly."""
    del roles
    place = naming.TONES.index(meaning.tones[0])
    return replace(meaning, tones=(naming.TONES[(place + 2) % len(naming.TONES)],))


def _other_role(meaning: Meaning, roles: Sequence[str]) -> Meaning:
    role = roles[(roles.index(meaning.role) + 1) % len(roles)]
    return replace(meaning, role=role, phrase=naming.phrase_of(role, meaning.gender))


_SWAPS: Mapping[str, Callable[[Meaning, Sequence[str]], Meaning]] = {
    "gender": _other_gender,
    "tone": _other_tone,
    "role": _other_role,
}
