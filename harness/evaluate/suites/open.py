"""A benchmark that was found on disk as a DataSet with one split `test`.

Owns how labels get their names: never by the order of folders, unless the names of classes come
from those folders themselves.  A count that is not the benchmark's is refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.config import ClassFolder
from harness.data.captions import checked_caption, sample_captions
from harness.data.dataset import DataSet, Split, Task
from harness.data.sources.folder import open_class_folder, open_folder
from harness.data.tars import IMAGE_FIELDS, by_key, read_at, read_members
from harness.errors import DataError, nearest
from harness.evaluate.suites.find import Found
from harness.evaluate.suites.records import Benchmark

SPLIT = "test"


def open_found(found: Found, cache: Path) -> DataSet:
    """Index what was found.

    Returns:
        A data set whose split `test` has captions (retrieval) or whose only task labels every
        picture of it (classification).

    Raises:
        DataError: it cannot be read, or has not the pictures, captions and classes of the
            benchmark.
    """
    data = _OPENERS[found.layout](found, cache)
    _check_counts(found, data)
    return data


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BenchmarkSet(DataSet):
    """Pictures read by a function of their name; `path` says whose they are in an error."""

    reader: Callable[[str], bytes]
    inner: DataSet | None = field(default=None)

    def read(self, image: str) -> bytes:
        """The bytes of a picture; KeyError or OSError when it is lost or damaged."""
        return self.reader(image)

    def prepare(self) -> None:
        """Make what the data set that these pictures are of needs."""
        if self.inner is not None:
            self.inner.prepare()


def _data_set(
    found: Found,
    images: Sequence[str],
    reader: Callable[[str], bytes],
    *,
    captions: Sequence[tuple[str, ...]] | None = None,
    labels: Sequence[int] | None = None,
    classnames: Sequence[str] = (),
    inner: DataSet | None = None,
) -> BenchmarkSet:
    benchmark = found.benchmark
    tasks: tuple[Task, ...] = ()
    if labels is not None:
        templates = () if benchmark.prompts is None else benchmark.prompts.templates
        tasks = (Task(benchmark.name, tuple(classnames), templates, {SPLIT: list(labels)}),)
    return BenchmarkSet(
        name=benchmark.name,
        fingerprint=found.fingerprint,
        evaluation_fingerprint=found.fingerprint,
        splits={SPLIT: Split(list(images), captions or [()] * len(images))},
        tasks=tasks,
        indexed=len(images),
        reader=reader,
        inner=inner,
    )


def _check_counts(found: Found, data: DataSet) -> None:
    benchmark, split = found.benchmark, data.split(SPLIT)
    counts = {"pictures": (len(split), benchmark.samples)}
    if benchmark.captions is not None:
        counts["captions"] = (sum(map(len, split.captions)), benchmark.captions)
    if benchmark.classes is not None:
        counts["classes"] = (len(data.tasks[0].classnames), benchmark.classes)
    for what, (there, wanted) in counts.items():
        if there != wanted:
            raise DataError(
                f"{found.path} holds {there:,} {what}, and {benchmark.title} has {wanted:,} in "
                f"its split {benchmark.split}: another split, or not all of it"
            )


# --------------------------------------------------------------------------- built in, folders


def _built_in(found: Found, cache: Path) -> DataSet:
    from harness.data.sources.openmoji import open_openmoji

    drawings = open_openmoji(64, cache)
    split = drawings.split(SPLIT)
    if found.benchmark.task == "retrieval":
        return _data_set(
            found, split.images, drawings.read, captions=split.captions, inner=drawings
        )
    wanted = found.benchmark.name.partition("_")[2]
    (task,) = [task for task in drawings.tasks if task.name == wanted]
    chosen = [i for i, label in enumerate(task.labels[SPLIT]) if label >= 0]
    data = _data_set(
        found,
        [split.images[i] for i in chosen],
        drawings.read,
        labels=[task.labels[SPLIT][i] for i in chosen],
        classnames=task.classnames,
        inner=drawings,
    )
    object.__setattr__(data.tasks[0], "templates", task.templates)
    return data


def _captions(found: Found, cache: Path) -> DataSet:
    folder = open_folder(str(found.path), unsplit=SPLIT)
    split = folder.split(SPLIT)
    return _data_set(found, split.images, folder.read, captions=split.captions)


def _class_folder(found: Found, cache: Path) -> DataSet:
    benchmark = found.benchmark
    folder = open_class_folder(ClassFolder(name=benchmark.name, path=str(found.path)))
    task, split = folder.tasks[0], folder.split(SPLIT)
    labels = list(task.labels[SPLIT])
    classnames: Sequence[str] = task.classnames
    if benchmark.classnames is not None:
        # The task's names are the folders' with _ and - as spaces.
        classnames, of_folder = _curated(benchmark, _folders_of(task, split))
        labels = [of_folder[label] for label in labels]
    return _data_set(found, split.images, folder.read, labels=labels, classnames=classnames)


def _folders_of(task: Task, split: Split) -> list[str]:
    """The name of each class's folder, by label."""
    folders = [""] * len(task.classnames)
    for image, label in zip(split.images, task.labels[SPLIT], strict=True):
        if not folders[label]:
            parts = image.split("/")[:-1]
            spelt = [p.replace("_", " ").replace("-", " ").strip() for p in parts]
            folders[label] = parts[spelt.index(task.classnames[label])]
    return folders


def _curated(benchmark: Benchmark, folders: Sequence[str]) -> tuple[list[str], list[int]]:
    """Class names, and the class of each folder: by WordNet id, by number, or by name."""
    assert benchmark.classnames is not None
    names, ids = benchmark.classnames.names, benchmark.classnames.ids
    if all(folder.isdecimal() for folder in folders):
        places = _by_number(benchmark, folders, len(names))
    else:
        known = {wnid: i for i, wnid in enumerate(ids)} | {
            _folded(n): i for i, n in enumerate(names)
        }
        places = [_by_name(benchmark, folder, known) for folder in folders]
    chosen = sorted(set(places))
    if len(chosen) < len(places):
        raise DataError(f"{benchmark.title}: two folders are of one class")
    return [names[i] for i in chosen], [chosen.index(place) for place in places]


def _by_number(benchmark: Benchmark, folders: Sequence[str], classes: int) -> list[int]:
    places = [int(folder) for folder in folders]
    first = min(places)
    if first > 1 or max(places) - first >= classes:
        raise DataError(
            f"{benchmark.title}: folders are numbered {first} to {max(places)}, and there are "
            f"{classes} classes"
        )
    # Only all of them tell whether counting begins at 0 or 1.
    if first == 1 and len(places) < classes:
        raise DataError(f"{benchmark.title}: no folder 0, and {len(places)} of {classes} classes")
    return [place - first for place in places]


def _by_name(benchmark: Benchmark, folder: str, known: Mapping[str, int]) -> int:
    for spelt in (folder, _folded(folder)):
        if spelt in known:
            return known[spelt]
    close = nearest(folder, known)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise DataError(f"{benchmark.title}: folder {folder!r} is of no class{hint}")


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


# --------------------------------------------------------------------------- webdataset


@dataclass(frozen=True)
class _Member:
    shard: str
    offset: int
    size: int


def _webdataset(found: Found, cache: Path) -> DataSet:
    """CLIP_benchmark's layout: test/nshards.txt, test/0.tar ..., classnames.txt."""
    benchmark, folder = found.benchmark, found.path / "test"
    field_ = "txt" if benchmark.task == "retrieval" else "cls"
    members: dict[str, _Member] = {}
    targets: dict[str, str] = {}
    for shard in _shards(folder):
        for key, image, target in _samples(folder / shard, field_):
            members[f"{shard}/{key}"] = image
            targets[f"{shard}/{key}"] = target

    reader = _TarReader(folder, members)
    if benchmark.task == "retrieval":
        owned = [_captions_of(folder / key, text) for key, text in targets.items()]
        return _data_set(found, list(members), reader, captions=owned)
    classnames = [line.strip() for line in _text(found.path / "classnames.txt").split("\n")]
    while classnames and not classnames[-1]:
        classnames.pop()
    labels = [_label(target, len(classnames), found) for target in targets.values()]
    return _data_set(found, list(members), reader, labels=labels, classnames=classnames)


@dataclass(frozen=True)
class _TarReader:
    """Reads a picture by one seek; picklable, for worker processes."""

    folder: Path
    members: Mapping[str, _Member]

    def __call__(self, image: str) -> bytes:
        member = self.members[image]
        with (self.folder / member.shard).open("rb") as file:
            return read_at(file, member.offset, member.size, member.shard, image)


def _shards(folder: Path) -> list[str]:
    text = _text(folder / "nshards.txt").strip()
    if not text.isdecimal() or text == "0":
        raise DataError(f"{folder / 'nshards.txt'} holds {text[:20]!r}, not a number of shards")
    shards = [f"{i}.tar" for i in range(int(text))]
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        raise DataError(
            f"{folder} lacks {len(absent)} of {len(shards)} shards, such as {absent[0]}"
        )
    return shards


def _samples(path: Path, target: str) -> Iterator[tuple[str, _Member, str]]:
    """Key, picture and target of every sample of a shard; DataError when one lacks either."""
    archives, problems = read_members(path, path.name)
    if problems:
        raise DataError(f"{path} cannot be read: {problems[0].reason}")
    wanted = {*IMAGE_FIELDS, target}
    with path.open("rb") as file:
        for members in archives:
            for key, fields in by_key(members, wanted).items():
                images = [
                    m for field, found in fields.items() if field in IMAGE_FIELDS for m in found
                ]
                if not images and target not in fields:
                    continue
                if not images or target not in fields:
                    missing = f".{target}" if images else "picture"
                    raise DataError(f"{path}: sample {key} has no {missing}")
                image, text = images[-1], fields[target][-1]
                data = read_at(file, text.offset_data, text.size, path.name, text.name)
                yield key, _Member(path.name, image.offset_data, image.size), _decoded(data, path)


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _captions_of(where: object, text: str) -> tuple[str, ...]:
    """The captions of a picture, a line each; DataError names the picture of one that is none."""
    try:
        return tuple(checked_caption(caption) for caption in sample_captions(None, text))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _label(text: str, classes: int, found: Found) -> int:
    if not text.strip().isdecimal() or int(text) >= classes:
        raise DataError(f"{found.path}: label {text.strip()[:20]!r} is none of {classes} classes")
    return int(text)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


# --------------------------------------------------------------------------- torchvision


def _torchvision(found: Found, cache: Path) -> DataSet:
    """As CLIP_benchmark's own builder opens it; nothing is downloaded."""
    from clip_benchmark.datasets.builder import build_dataset

    benchmark, builder = found.benchmark, found.benchmark.builder
    assert builder is not None
    task = f"zeroshot_{benchmark.task}"
    try:
        dataset = build_dataset(
            builder.name,
            root=str(found.path),
            transform=None,
            split=builder.split,
            download=False,
            task=task,
        )
    except (RuntimeError, OSError, ValueError, AssertionError, KeyError) as error:
        raise DataError(
            f"{found.path}: {benchmark.title} cannot be opened: {' '.join(str(error).split())}"
        ) from error
    reader = _Indexed(dataset)
    images = [f"{i:07d}" for i in range(len(dataset))]
    if benchmark.task == "retrieval":
        owned = [
            _captions_of(f"{found.path}, picture {i}", "\n".join(_target(dataset, i)))
            for i in range(len(images))
        ]
        return _data_set(found, images, reader, captions=owned)
    return _data_set(
        found, images, reader, labels=_labels_of(dataset), classnames=list(dataset.classes)
    )


@dataclass(frozen=True)
class _Indexed:
    """A picture of a map-style data set, as the file it came from or else without loss as PNG."""

    dataset: Any

    def __call__(self, image: str) -> bytes:
        picture = self.dataset[int(image)][0]
        file = io.BytesIO()
        Image.fromarray(np.asarray(picture.convert("RGB"))).save(file, "PNG", compress_level=0)
        return file.getvalue()


def _labels_of(dataset: Any) -> list[int]:
    """Labels without decoding pictures where the data set keeps them in a list of its own."""
    for name in ("targets", "_labels", "labels", "y"):
        kept = getattr(dataset, name, None)
        if kept is not None and len(kept) == len(dataset):
            return [int(label) for label in kept]
    return [int(_target(dataset, i)) for i in range(len(dataset))]


def _target(dataset: Any, place: int) -> Any:
    return dataset[place][1]


_OPENERS: dict[str, Callable[[Found, Path], DataSet]] = {
    "built in": _built_in,
    "captions": _captions,
    "class folder": _class_folder,
    "webdataset": _webdataset,
    "torchvision": _torchvision,
}
