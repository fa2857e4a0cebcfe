"""Folders of pictures, one a class: which of them are classes and which are not.

Owns that every folder and file is a class, a picture, a problem or a note.  Decodes no picture.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.account import Account, Problem, RefusedData
from harness.data.classnames import NAMES_FILE, TEMPLATES_FILE, lines_of
from harness.data.files import FileTree, is_image
from harness.data.split_names import SPLIT_NAMES
from harness.errors import DataError

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

    def read_lists(self, *folders: str) -> None:
        """Take the names and prompts that lie in one of the folders, or at the top."""
        for folder in (*folders, ""):
            level = f"{folder.rstrip('/')}/" if folder else ""
            self.names = self.names or _lines_beside(self.files, level + NAMES_FILE)
            self.templates = self.templates or _templates(self.files, level)

    def check_occurring(self, place: Path) -> None:
        """RefusedData unless two classes have a picture."""
        occurring = len(set(self.labels))
        if occurring > 1:
            return
        what = f"pictures in {occurring} sub-folders" if occurring else "no picture in any"
        line = f"{place}: {what}; wanted: a sub-folder of pictures a class, or a table"
        raise RefusedData(line, Account(notes=tuple(self.notes)), self.problems, self.seen)


def read_class_folders(place: Path) -> Labelled:
    """The pictures of a folder or archive with a sub-folder a class.

    Raises RefusedData with fewer than two classes, DataError when the folders are something else.
    """
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
        found.notes.append(f"folder {part} is no class: {some_of(lost, 'file', 'files')} left out")
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
    found.check_occurring(place)
    found.read_lists(prefix)
    return found


def has_folders(files: FileTree) -> bool:
    """Whether there are folders that may be classes."""
    return bool(_tops(files, _class_level(files)[1]))


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
        found.notes.append(f"not looked into: {some_of(unread, 'archive', 'archives')}")


def _lines_beside(files: FileTree, name: str) -> list[str] | None:
    if name not in files.entries:
        return None
    try:
        return lines_of(files.read(name).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{files.root / name} cannot be read: {error}") from error


def _templates(files: FileTree, level: str) -> tuple[str, ...] | None:
    lines = _lines_beside(files, level + TEMPLATES_FILE)
    return None if lines is None else tuple(lines)


def some_of(names: Sequence[str], one: str, many: str) -> str:
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
        beside = f" beside {some_of(others, 'folder', 'folders')}" if others else ""
        raise DataError(
            f"{place} holds the splits {', '.join(splits)}{beside}, not classes; give one's path"
        )
    first: set[str] = next(iter(inside.values()), set())
    same = len(first) > 1 and all(each == first for each in inside.values())
    if same and any(each.casefold() in _PARTS for each in by_folder):
        raise DataError(
            f"{place} holds {', '.join(sorted(by_folder))}, each with the same "
            f"{some_of(sorted(first), 'folder', 'folders')}: not classes; give one's path"
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
        is_copy = bool(copies) and copies <= others
        is_part = is_copy or (each.casefold() in _PARTS and _follow(names, others, by_folder))
        if len(others) > 1 and is_part:
            found.append(each)
    return found


def _follow(
    names: Sequence[str], others: Iterable[str], by_folder: Mapping[str, Sequence[str]]
) -> bool:
    """Whether all files of a folder are called as pictures of others."""
    stems = {_stem(name) for folder in others for name in by_folder[folder]}
    return bool(names) and all(_stem(name) in stems for name in names)


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0].casefold()
