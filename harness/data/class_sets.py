"""Pictures with a class each: a folder a class (or in an archive), or an export with labels.

Owns which folders are classes and which are not, and that every class and picture is accounted for;
what a class is called in a prompt is for `classnames`.  Decodes no picture.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import ClassFolder
from harness.data.account import Account, FileRead, Problem, RefusedData
from harness.data.classnames import (
    NAMES_FILE,
    TEMPLATES_FILE,
    class_names,
    lines_of,
    listed_names,
    prompts,
)
from harness.data.dataset import Split, Task, content_fingerprint
from harness.data.exports import has_labels, is_export, read_export
from harness.data.files import FileTree, existing, is_image
from harness.data.label_tables import LABEL_COLUMNS, is_captioned, label_table, labelled_rows
from harness.data.sources.folder import PictureFolder
from harness.data.split_names import SPLIT_NAMES
from harness.data.tables import has_table, is_table_name, possible_tables
from harness.errors import DataError

SPLIT = "test"
_SHOWN = 3
_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})[-_. ]?(\d+k?|sets?|splits?|images?)?")
_PARTS = frozenset(
    {"images", "image", "imgs", "img", "pictures", "jpegimages", "masks", "mask", "labels"}
    | {"annotations", "segmentations", "segmentation", "gt", "groundtruth", "ground_truth"}
    | {"trimaps", "depth", "edges", "boxes"}
)
_MASK = re.compile(r"(.+?)[-_. ]*(mask|seg|segmentation|gt|groundtruth|label|trimap)([-_. ]?\d+)?")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_SIDE_FILES = frozenset(
    {".txt", ".md", ".pdf", ".html", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml"}
    | {".mat", ".npy", ".npz", ".db", ".log", ".ini", ".py", ".sh", *_ARCHIVES}
)
"""What lies beside pictures and is meant for none; any other file is a picture that is lost."""


@dataclass
class Labelled:
    """Pictures and the class of each, as they lie on disk.

    Attributes:
        images: names for `files.read`.
        labels: class of each picture, a place in `classes`.
        classes: what the data call each class: its folder or number.
        names, templates: for prompts, where they lie beside the data.
        seen: pictures and other files that may have been meant for some.
    """

    files: FileTree
    images: list[str]
    labels: list[int]
    classes: list[str]
    names: list[str] | None = None
    templates: tuple[str, ...] | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Pictures, and other files that may have been meant for some."""
        return len(self.images) + len(self.problems)


def open_class_folder(folder: ClassFolder) -> PictureFolder:
    """Pictures with a class each as a zero-shot test set: split `test`, one task.

    Understood: a sub-folder of pictures a class, in a folder, zip or tar, in which single folders
    around all the others are looked through; an export of clip-benchmark (`test/0.tar` with `.cls`,
    classnames.txt, zeroshot_classification_templates.txt); and a table of pictures and labels.

    Raises DataError with fewer than two classes, two classes of one name, or folders that are
    splits.
    """
    found = read_classes(folder.path)
    _add_numbers(found, listed_names(folder.classnames) or found.names or ())
    names, told = class_names(found.classes, folder.classnames, found.names)
    templates = folder.templates
    if found.templates is not None and templates == type(folder).model_fields["templates"].default:
        templates = found.templates
        told = [*told, f"prompts are those of {TEMPLATES_FILE}, {len(templates)}"]
    task = Task(folder.name, names, templates, {SPLIT: found.labels})
    counts = pictures_a_class(task)
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        told = [*told, f"{_some(empty, 'class', 'classes')} without a picture"]
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
    return not beside and bool(stems) and bool(_tops(files, _class_level(files)[1]))


def _has_label_table(files: FileTree, names: Sequence[str]) -> bool:
    return not is_captioned(files, names) and label_table(files, names) is not None


def _tables_at_top(files: FileTree) -> list[str]:
    """The files that may be tables, of those that no other is above."""
    names = possible_tables(files)
    depth = min((name.count("/") for name in names), default=0)
    return [name for name in names if name.count("/") == depth]


def read_classes(path: str) -> Labelled:
    """The pictures at `path` with their classes; DataError as `open_class_folder`."""
    place = existing(path)
    if is_export(place):
        return _of_export(place)
    if place.is_file() and is_table_name(place.name):
        return _of_table(place, FileTree(place.parent), [place.name])
    try:
        return _of_folders(place)
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
    rows = labelled_rows(table, files)
    found = Labelled(files, sorted(rows.labels), [], sorted(set(rows.labels.values())))
    places = {each: label for label, each in enumerate(found.classes)}
    found.labels = [places[rows.labels[image]] for image in found.images]
    found.problems, found.notes = rows.problems, [*files.notes, *rows.notes]
    _check_classes(place, found)
    _read_names(found, table.name.rpartition("/")[0])
    return found


def _read_names(found: Labelled, *folders: str) -> None:
    """Take the names and prompts that lie beside the classes, or above them."""
    for folder in (*folders, ""):
        level = f"{folder.rstrip('/')}/" if folder else ""
        found.names = found.names or _lines_beside(found.files, level + NAMES_FILE)
        found.templates = found.templates or _templates(found.files, level)


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


# --------------------------------------------------------------------------- folders


def _of_folders(place: Path) -> Labelled:
    files = FileTree(place)
    prefix, names = _class_level(files)
    by_folder: dict[str, list[str]] = {top: [] for top in _tops(files, names)}
    outside: list[str] = []
    for name, rest in names.items():
        if name not in files.folders:
            top, slash, _ = rest.partition("/")
            (by_folder[top] if slash else outside).append(name)
    found = Labelled(files, [], [], [], notes=list(files.notes))
    _refuse_parts(place, prefix, by_folder)
    for part in _masks(prefix, by_folder):
        lost = by_folder.pop(part)
        found.notes.append(f"folder {part}: {len(lost):,} files are left out, it is no class")
    found.classes = sorted(by_folder)
    labels = {
        name: label
        for label, each in enumerate(found.classes)
        for name in _pictures(found, by_folder[each])
    }
    found.images = sorted(labels)
    found.labels = [labels[image] for image in found.images]
    _add_others(found, outside)
    _note_archives(found)
    _check_classes(place, found)
    _read_names(found, prefix)
    return found


def _class_level(files: FileTree) -> tuple[str, dict[str, str]]:
    """The folder that holds the classes, and what is in it: name -> name below that folder."""
    names = {name: name for name in (*files.entries, *files.folders)}
    prefix = ""
    while len(tops := _tops(files, names)) == 1:
        inner = {name: rest.partition("/")[2] for name, rest in names.items()}
        if not any("/" in rest and is_image(rest) for rest in inner.values()):
            break
        prefix += f"{tops.pop()}/"
        names = {name: rest for name, rest in inner.items() if rest}
    return prefix, names


def _tops(files: FileTree, names: Mapping[str, str]) -> set[str]:
    return {
        rest.partition("/")[0]
        for name, rest in names.items()
        if "/" in rest or name in files.folders
    }


def _pictures(found: Labelled, names: Sequence[str]) -> list[str]:
    """The pictures of a class; masks of them are noted, and files of another kind counted."""
    images = [name for name in names if is_image(name)]
    masks = _masks_among(images)
    if masks:
        found.notes.append(
            f"{posixpath.dirname(masks[0])}: {len(masks):,} masks of its pictures are left out "
            f"(such as {posixpath.basename(masks[0])})"
        )
    _add_others(found, [name for name in names if not is_image(name)])
    return sorted(set(images).difference(masks))


def _masks_among(images: Sequence[str]) -> list[str]:
    """Pictures that are called as another one of their folder, and mask or the like after it."""
    stems = {posixpath.splitext(image)[0].casefold() for image in images}
    found = ((image, _MASK.fullmatch(posixpath.splitext(image)[0].casefold())) for image in images)
    return [image for image, like in found if like is not None and like[1] in stems]


def _add_others(found: Labelled, names: Sequence[str]) -> None:
    """Count what is no picture: it is lost, unless it is a kind of file that lies beside some."""
    for name in names:
        if is_image(name):
            found.problems.append(Problem(name, "in no folder of a class"))
        elif posixpath.splitext(name)[1].lower() not in _SIDE_FILES:
            found.problems.append(Problem(name, "not a picture by its suffix"))


def _note_archives(found: Labelled) -> None:
    """Archives that were not read; of a folder, the zips at its top were."""
    files = found.files
    read = {entry.archive for entry in files.entries.values()}
    unread = [
        name
        for name in files.entries
        if name.lower().endswith(_ARCHIVES)
        and str(files.root / name) not in read
        and not any(note.startswith(f"{name}:") for note in files.notes)
    ]
    if unread:
        found.notes.append(f"not looked into: {_some(unread, 'archive', 'archives')}")


def _lines_beside(files: FileTree, name: str) -> list[str] | None:
    return lines_of(files.read(name).decode("utf-8-sig")) if name in files.entries else None


def _templates(files: FileTree, level: str) -> tuple[str, ...] | None:
    lines = _lines_beside(files, level + TEMPLATES_FILE)
    return None if lines is None else tuple(lines)


def _some(names: Sequence[str], one: str, many: str) -> str:
    """`3 classes (a, b, c)`, of many the first."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{len(names):,} {one if len(names) == 1 else many} ({', '.join(names[:_SHOWN])}{more})"


# --------------------------------------------------------------------------- what is no class


def _refuse_parts(place: Path, prefix: str, by_folder: Mapping[str, Sequence[str]]) -> None:
    """DataError when the folders are splits, or pictures and masks, and not classes."""
    splits = sorted(each for each in by_folder if _SPLIT.fullmatch(each.casefold()))
    inside = {each: _folders_in(prefix, each, by_folder[each]) for each in by_folder}
    whole = len(splits) == len(by_folder) and splits
    if whole or len(splits) > 1 or any(inside[each] for each in splits):
        others = sorted(set(by_folder).difference(splits))
        beside = f" beside {_some(others, 'folder', 'folders')}" if others else ""
        raise DataError(
            f"{place} holds the splits {', '.join(splits)}{beside}, not classes; give one's path"
        )
    first: set[str] = next(iter(inside.values()), set())
    same = len(first) > 1 and all(each == first for each in inside.values())
    if same and any(each.casefold() in _PARTS for each in by_folder):
        raise DataError(
            f"{place} holds {', '.join(sorted(by_folder))}, each with the same "
            f"{_some(sorted(first), 'folder', 'folders')}: not classes; give one's path"
        )


def _folders_in(prefix: str, folder: str, names: Sequence[str]) -> set[str]:
    """The folders of pictures right inside a folder; none if pictures are there too."""
    rests = [name[len(prefix) + len(folder) + 1 :] for name in names if is_image(name)]
    if any("/" not in rest for rest in rests):
        return set()
    return {rest.partition("/")[0] for rest in rests}


def _masks(prefix: str, by_folder: Mapping[str, Sequence[str]]) -> list[str]:
    """Folders whose content is of the others: masks, labels, a copy of the classes."""
    found = []
    for each, names in sorted(by_folder.items()):
        others = {folder for folder in by_folder if folder != each}
        copies = _folders_in(prefix, each, names)
        stems = {_stem(name) for folder in others for name in by_folder[folder]}
        named = each.casefold() in _PARTS and names and all(_stem(n) in stems for n in names)
        if len(others) > 1 and (named or (copies and copies <= others)):
            found.append(each)
    return found


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0].casefold()


def _check_classes(place: Path, found: Labelled) -> None:
    occurring = len(set(found.labels))
    if occurring > 1:
        return
    what = f"pictures in {occurring} sub-folders" if occurring else "no picture in any"
    line = f"{place}: {what}; wanted: a sub-folder of pictures a class, or a table"
    raise RefusedData(line, Account(notes=tuple(found.notes)), found.problems, found.seen)
