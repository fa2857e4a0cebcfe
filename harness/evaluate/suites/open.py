"""A benchmark that was found on disk as a DataSet with one split `test`.

Owns how labels get their names: never by the order of folders, unless the names of classes come
from those folders themselves.  A count that is not the benchmark's is refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from harness.data.captions import checked_caption, sample_captions
from harness.data.class_sets import SPLIT, read_classes
from harness.data.classnames import folded, spelt
from harness.data.dataset import DataSet, Split, Task
from harness.data.exports import read_export
from harness.data.sources.folder import open_folder
from harness.errors import DataError, nearest
from harness.evaluate.suites.find import Found
from harness.evaluate.suites.records import Benchmark


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

    @classmethod
    def of(cls, found: Found, split: Split, reader: Callable[[str], bytes], **more: Any) -> Self:
        """What was found, as a data set of that split."""
        return cls(
            name=found.benchmark.name,
            fingerprint=found.fingerprint,
            evaluation_fingerprint=found.fingerprint,
            splits={SPLIT: split},
            reader=reader,
            **{"indexed": len(split), **more},
        )

    def read(self, image: str) -> bytes:
        """The bytes of a picture; KeyError or OSError when it is lost or damaged."""
        return self.reader(image)

    def prepare(self) -> None:
        """Make what the data set that these pictures are of needs."""
        if self.inner is not None:
            self.inner.prepare()


def _labelled(
    found: Found,
    images: Sequence[str],
    reader: Callable[[str], bytes],
    labels: Sequence[int],
    classnames: Sequence[str],
) -> BenchmarkSet:
    benchmark = found.benchmark
    templates = () if benchmark.prompts is None else benchmark.prompts.templates
    task = Task(benchmark.name, tuple(classnames), templates, {SPLIT: list(labels)})
    split = Split(list(images), [()] * len(images))
    return BenchmarkSet.of(found, split, reader, tasks=(task,))


def _check_counts(found: Found, data: DataSet) -> None:
    benchmark, split = found.benchmark, data.split(SPLIT)
    counts = {"pictures": (len(split), benchmark.samples)}
    if benchmark.captions is not None:
        counts["captions"] = (sum(map(len, split.captions)), benchmark.captions)
    if benchmark.classes is not None:
        counts["classes"] = (len(data.tasks[0].classnames), benchmark.classes)
    for what, (there, wanted) in counts.items():
        check_count(found, what, there, wanted)


def check_count(found: Found, what: str, there: int, wanted: int) -> None:
    """DataError unless as many are there as the benchmark has; 0: copies of it differ."""
    if wanted and there != wanted:
        benchmark = found.benchmark
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
        return BenchmarkSet.of(found, split, drawings.read, inner=drawings)
    wanted = found.benchmark.name.partition("_")[2]
    (task,) = [task for task in drawings.tasks if task.name == wanted]
    chosen = [i for i, label in enumerate(task.labels[SPLIT]) if label >= 0]
    labels = {SPLIT: [task.labels[SPLIT][i] for i in chosen]}
    own = Task(found.benchmark.name, task.classnames, task.templates, labels)
    images = Split([split.images[i] for i in chosen], [()] * len(chosen))
    return BenchmarkSet.of(found, images, drawings.read, tasks=(own,), inner=drawings)


def _captions(found: Found, cache: Path) -> DataSet:
    folder = open_folder(str(found.path), unsplit=SPLIT, cache=cache)
    return BenchmarkSet.of(found, folder.split(SPLIT), folder.read)


def _class_folder(found: Found, cache: Path) -> DataSet:
    benchmark = found.benchmark
    labelled = read_classes(str(found.path), cache)
    labels, classnames = labelled.labels, [spelt(each) for each in labelled.classes]
    if benchmark.classnames is not None:
        classnames, of_folder = _curated(benchmark, labelled.classes)
        labels = [of_folder[label] for label in labels]
    return _labelled(found, labelled.images, labelled.files.read, labels, classnames)


def _curated(benchmark: Benchmark, folders: Sequence[str]) -> tuple[list[str], list[int]]:
    """Class names, and the class of each folder: by WordNet id, by number, or by name."""
    assert benchmark.classnames is not None
    names, ids = benchmark.classnames.names, benchmark.classnames.ids
    if all(folder.isdecimal() for folder in folders):
        places = _by_number(benchmark, folders, len(names))
    else:
        known = {wnid: i for i, wnid in enumerate(ids)} | {
            folded(n): i for i, n in enumerate(names)
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
    for name in (folder, folded(folder)):
        if name in known:
            return known[name]
    close = nearest(folder, known)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise DataError(f"{benchmark.title}: folder {folder!r} is of no class{hint}")


def _webdataset(found: Found, cache: Path) -> DataSet:
    if found.benchmark.task == "classification":
        labelled = read_classes(str(found.path), cache)
        images, names = labelled.images, labelled.names or ()
        return _labelled(found, images, labelled.files.read, labelled.labels, names)
    export = read_export(found.path, "json", "txt")
    images = list(export.files.entries)
    owned = []
    for image, texts in zip(images, export.texts, strict=True):
        given = sample_captions(texts.get("json"), texts.get("txt"))
        owned.append(tuple(_checked(f"{found.path}/test/{image}", caption) for caption in given))
    return BenchmarkSet.of(found, Split(images, owned), export.files.read)


def _checked(where: str, caption: object) -> str:
    try:
        return checked_caption(caption)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


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
            tuple(_checked(f"{found.path}, picture {i}", c) for c in _target(dataset, i))
            for i in range(len(images))
        ]
        return BenchmarkSet.of(found, Split(images, owned), reader)
    return _labelled(found, images, reader, _labels_of(dataset), dataset.classes)


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
