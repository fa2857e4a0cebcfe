"""Pictures with a class each as a zero-shot test set: folders, an export, or a table of labels.

Owns what the set tells of itself; what a class is called in a prompt is for `classnames`.  Decodes
no picture.
"""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from harness.config import ClassFolder, Runtime
from harness.data.account import Account, FileRead, RefusedData
from harness.data.captions import MAX_CAPTION
from harness.data.class_folders import Labelled, has_folders, read_class_folders, some_of
from harness.data.classnames import (
    NAMES_FILE,
    TEMPLATES_FILE,
    class_names,
    listed_names,
    prompts,
)
from harness.data.dataset import Split, Task, content_fingerprint
from harness.data.exports import has_labels, is_export, read_export
from harness.data.files import FileTree, existing, is_gzipped, is_image
from harness.data.label_tables import LABEL_COLUMNS, label_table, labelled_rows
from harness.data.source import cache_dir
from harness.data.sources.folder import PictureFolder
from harness.data.tables import has_table, is_table, is_table_name, possible_tables
from harness.data.unpacked import untarred
from harness.errors import DataError

SPLIT = "test"
_PROBED = 500
"""Members of a compressed tar that are looked at for what kind of set it is of."""


def open_class_folder(folder: ClassFolder, cache: Path | None = None) -> PictureFolder:
    """Pictures with a class each as a zero-shot test set: split `test`, one task.

    Understood: a sub-folder of pictures a class, in a folder, zip or tar, in which single folders
    around all the others are looked through; an export of clip-benchmark (`test/0.tar` with `.cls`,
    classnames.txt, zeroshot_classification_templates.txt); and a table of pictures and labels.

    Args:
        cache: where what is compressed is laid down; None: the user's own.

    Raises DataError with fewer than two classes, two classes of one name, or folders that are
    splits.
    """
    found = read_classes(folder.path, cache)
    _add_numbers(found, listed_names(folder.classnames) or found.names or ())
    names, told = class_names(found.classes, folder.classnames, found.names)
    if (longest := max(map(len, names))) > MAX_CAPTION:
        raise DataError(
            f"{folder.path}: a class name has {longest:,} characters, {MAX_CAPTION:,} are allowed"
        )
    templates = folder.templates
    if found.templates is not None and templates == type(folder).model_fields["templates"].default:
        templates = _checked_templates(found.templates)
        told = [*told, f"prompts are those of {TEMPLATES_FILE}, {len(templates)}"]
    task = Task(folder.name, names, templates, {SPLIT: found.labels})
    counts = pictures_a_class(task)
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        told = [*told, f"{some_of(empty, 'class', 'classes')} without a picture"]
    if found.problems:
        where, why = found.problems[0].where, found.problems[0].reason
        lost = f"{len(found.problems):,} of {found.seen:,} files cannot be used"
        told = [*told, f"{lost}, such as {where}: {why}"]
    split = Split(found.images, [()] * len(found.images))
    stamps = (found.files.entries[image].stamp for image in found.images)
    fingerprint = content_fingerprint({SPLIT: split}, [task], stamps)
    return PictureFolder(
        name=folder.name,
        fingerprint=fingerprint,
        evaluation_fingerprint=fingerprint,
        splits={SPLIT: split},
        tasks=(task,),
        problems=tuple(found.problems),
        indexed=found.seen,
        account=_account(found, [task_line(task), *found.notes, *told]),
        files=found.files,
    )


def _account(found: Labelled, notes: Sequence[str]) -> Account:
    place = found.files.root.name
    reason = f"{len(found.problems):,} unusable" if found.problems else None
    read = FileRead(place, found.seen, len(found.images), reason)
    return Account((read,), {SPLIT: "every picture, by its class"}, tuple(notes))


def pictures_a_class(task: Task) -> list[int]:
    """How many pictures of all splits each class has, by label."""
    counts = Counter(label for of_split in task.labels.values() for label in of_split)
    return [counts[label] for label in range(len(task.classnames))]


def task_line(task: Task) -> str:
    """A zero-shot task in one line: its classes, pictures a class, and first prompt."""
    counts = pictures_a_class(task)
    low, high = min(counts), max(counts)
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    (first,) = prompts(task.classnames[:1], task.templates[:1])
    return f"{len(counts):,} classes, {each} pictures a class, first prompt {first!r}"


def looks_labelled(place: Path) -> bool:
    """Whether there are classes at a place, and no captions: labelled tars, or folders of pictures.

    A table of captions, or a text of the same name beside a picture, stands for captions.
    """
    if has_labels(place):
        return True
    if is_gzipped(place.name):
        return _begins_with_classes(place)
    if place.is_file() and is_table_name(place.name):
        return _has_label_table(FileTree(place.parent), [place.name])
    if not place.is_dir() and place.suffix.lower() not in {".zip", ".tar"}:
        return False
    files = FileTree(place)
    stems = {posixpath.splitext(image)[0] for image in files.images()}
    texts = {posixpath.splitext(name) for name in files.entries if not is_image(name)}
    beside = any(suffix in {".txt", ".json"} and stem in stems for stem, suffix in texts)
    if has_table(files):
        return _has_label_table(files, _tables_at_top(files))
    return not beside and bool(stems) and has_folders(files)


def _begins_with_classes(archive: Path) -> bool:
    """Whether the first members of a compressed tar are labels, or pictures in folders alone."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            names = [member.name for member in islice(tar, _PROBED) if member.isfile()]
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        return False
    suffixes = {posixpath.splitext(name)[1].lower() for name in names}
    folders = {posixpath.dirname(name) for name in names if is_image(name)}
    return ".cls" in suffixes or (len(folders) > 1 and not any(map(is_table_name, names)))


def _has_label_table(files: FileTree, names: Sequence[str]) -> bool:
    captioned = any(is_table(name, files) for name in names)
    return not captioned and label_table(files, names) is not None


def _tables_at_top(files: FileTree) -> list[str]:
    """The files that may be tables, of those that no other is above."""
    names = possible_tables(files)
    depth = min((name.count("/") for name in names), default=0)
    return [name for name in names if name.count("/") == depth]


def read_classes(path: str, cache: Path | None = None) -> Labelled:
    """The pictures at `path` with their classes; DataError as `open_class_folder`."""
    place = existing(path)
    if is_gzipped(place.name):
        place = untarred(place, cache or cache_dir(Runtime()))
    if is_export(place):
        return _of_export(place)
    if place.is_file() and is_table_name(place.name):
        return _of_table(place, FileTree(place.parent), [place.name])
    try:
        return read_class_folders(place)
    except RefusedData as error:
        files = FileTree(place)
        if label_table(files, _tables_at_top(files)) is None:
            raise error
    return _of_table(place, files, _tables_at_top(files))


def _of_table(place: Path, files: FileTree, names: Sequence[str]) -> Labelled:
    table = label_table(files, names)
    if table is None:
        raise DataError(
            f"{place} is no table of pictures and labels: a column of "
            f"{'|'.join(LABEL_COLUMNS)} is wanted beside that of the pictures"
        )
    found = labelled_rows(table, files)
    found.check_occurring(place)
    found.read_lists(table.name.rpartition("/")[0])
    return found


def _add_numbers(found: Labelled, names: Sequence[str]) -> None:
    """Where classes are numbers from 0 and names are given for more, those are classes too."""
    numbers = {int(each) for each in found.classes if each.isdecimal()}
    if len(numbers) < len(found.classes) or 0 not in numbers or max(numbers) >= len(names):
        return
    was = [int(each) for each in found.classes]
    found.classes = [str(number) for number in range(len(names))]
    found.labels = [was[label] for label in found.labels]


def _of_export(place: Path) -> Labelled:
    export = read_export(place, "cls")
    names = export.names
    if names is None:
        raise DataError(f"{place}: there is no {NAMES_FILE} beside test/, which names the classes")
    labels = [_label(each["cls"], len(names), place) for each in export.texts]
    classes = [str(number) for number in range(len(names))]
    return Labelled(
        export.files, list(export.files.entries), labels, classes, names, export.templates
    )


def _label(text: str, classes: int, place: Path) -> int:
    if not text.strip().isdecimal() or int(text) >= classes:
        raise DataError(f"{place}: label {text.strip()[:20]!r} is none of {classes} classes")
    return int(text)


def _checked_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    """The templates that lie beside a set; DataError where a class name has no place in one."""
    wrong = next((each for each in templates if "{c}" not in each), None)
    if wrong is not None or not templates:
        what = "holds no template" if wrong is None else f"holds {wrong[:60]!r}"
        raise DataError(f"{TEMPLATES_FILE} {what}; {{c}} stands for the class name in each line")
    return templates
