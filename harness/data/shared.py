"""Pictures that several runs of one machine see alike, decoded once for all of them.

A batch is a function of a run's seed and the step.  Runs that agree in all that decides its
pictures (`PictureSpec`) find one another in a folder of shared memory that is named after that:
whoever needs a batch first makes it and leaves it there, and whoever finds it in the making makes
a later one meanwhile.  Nobody depends on anybody: what is not there, is strange or does not come is
made by the process that wants it, so a run has the bits that it would have alone.  A claim and a
reader are files locked (flock) by a process, and so gone with it.  Knows no model; torch-free.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from harness.data.pictured import Pictured, PictureSpec, packed, unpacked
from harness.errors import one_line
from harness.files import read_regular

VARIABLE = "HARNESS_SHARED_DATA"
"""Of the environment: the folder that the runs of a launch share."""
_PREFIX = "lightclip-shared-"
_LAUNCH, _READER = "launch", "reader-"
"""Files that are locked as long as the folder that they are in is in use."""
_KEPT = 64
"""Batches of one stream that are kept: runs do not begin at the same moment."""
_SHARE_OF_MEMORY = 8
"""Those of one stream take at most an eighth of what /dev/shm is in all."""
_FEWEST = 2
"""Batches that must fit."""
AHEAD = 4
"""Most batches that a process makes for later while it waits."""
_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 0.5
"""Waited at the least for a batch that another process makes; at the most four times as long as
the last one took here."""
_FORGOTTEN_SECONDS = 30.0
"""After which what a stream without readers left goes."""


Make = Callable[[int], list[Pictured]]
"""Makes the pictures of the batch of a step."""


# --------------------------------------------------------------------------- the folder of a launch


@contextmanager
def shared_folder(base: Path | None = None) -> Iterator[Path]:
    """A folder in shared memory for the runs of one launch, for this user alone; gone afterwards.

    What launches that were killed left there goes too.  Raises OSError where none can be made.
    """
    base = base or _memory()
    _drop_forgotten(base.glob(f"{_PREFIX}*"))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    held = _hold(folder, _LAUNCH, b"")
    try:
        yield folder
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> Path:
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def is_own(folder: Path) -> bool:
    """Whether a folder is this user's, and nobody else may look or write into it."""
    found = os.lstat(folder)
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return private and found.st_uid == os.getuid()


def _drop_forgotten(folders: Iterable[Path]) -> None:
    """Remove those of this user that no process holds any more."""
    for folder in folders:
        with suppress(OSError):
            age = time.time() - folder.stat().st_mtime
            if age < _FORGOTTEN_SECONDS or not is_own(folder):
                continue
            guards = [file for file in folder.iterdir() if file.name.startswith((_LAUNCH, _READER))]
            if not any(map(_is_held, guards)):
                shutil.rmtree(folder, ignore_errors=True)


def _hold(folder: Path, name: str, content: bytes) -> int:
    """Descriptor of a new file `name`, which is held from the moment that it has its name."""
    draft = folder / f".{name}.{uuid.uuid4().hex}.tmp"
    held = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.pwrite(held, content, 0)
        os.rename(draft, folder / name)
    except OSError:
        os.close(held)
        raise
    return held


def _is_held(file: Path) -> bool:
    """Whether a process that lives has locked `file`."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# --------------------------------------------------------------------------- a stream in it


class SharedBatches:
    """The batches of one stream, as one process reads and makes them.

    Args:
        folder: of the launch.
        samples: of the split.

    Attributes:
        made: batches that this process has made.
    """

    def __init__(self, folder: Path, spec: PictureSpec, samples: int) -> None:
        self._folder, self._spec, self._samples = folder / spec.key, spec, samples
        pixels = sum(map(math.prod, spec.shapes().values()))
        self._pixels, self._limit = pixels, 2 * pixels + 2**20
        self._run, self._mark = uuid.uuid4().hex, 0
        self._reader: int | None = None
        self._alone = False
        self._told: set[str] = set()
        self._seconds = 0.0
        self.made = 0

    def get(self, steps: Sequence[int], make: Make) -> list[Pictured]:
        """The pictures of the batch of a step, made by `make` if need be.

        Args:
            steps: it and the next ones of this process, which may be made meanwhile.
        """
        step = steps[0]
        self._at(step)
        began = time.monotonic()
        while (rows := self._read(step)) is None:
            claim = self._claim(step)
            late = time.monotonic() - began > max(_PATIENCE_SECONDS, 4 * self._seconds)
            if claim is not None or self._alone or late:
                if claim is None and not self._alone:
                    self._say("another run does not end a batch that it began: it is made here")
                rows = self._make(step, make, claim)
                break
            if not self._made_ahead(steps, make):
                time.sleep(_POLL_SECONDS)
        self._at(steps[1] if len(steps) > 1 else step + 1)
        return rows

    def close(self) -> None:
        """No more will be read; the last one takes all with it."""
        if self._reader is None:
            return
        os.close(self._reader)
        self._reader = None
        with suppress(OSError):
            if not self._marks():
                shutil.rmtree(self._folder, ignore_errors=True)

    # ---- alone

    @contextmanager
    def _or_alone(self) -> Iterator[None]:
        """Whatever is wrong with the files, this run goes on without them."""
        try:
            yield
        except OSError as error:
            self._go_alone(one_line(error))

    def _go_alone(self, why: str) -> None:
        if not self._alone:
            self._alone = True
            self._say(f"{why}: this run decodes all its pictures itself")
            self.close()

    def _say(self, words: str) -> None:
        """A line in the log, once."""
        if words not in self._told:
            self._told.add(words)
            print(f"shared pictures: {words}", file=sys.stderr, flush=True)

    # ---- who reads

    def _at(self, step: int) -> None:
        """Put down that this process reads from `step` on."""
        if self._alone:
            return
        self._mark = step
        with self._or_alone():
            if self._reader is None:
                self._reader = self._joined()
            else:
                os.pwrite(self._reader, _mark(step), 0)

    def _joined(self) -> int:
        """Descriptor of this process's own file among the readers; its run is in the name."""
        above = self._folder.parent
        if not is_own(above):
            raise PermissionError(f"{above} is not this user's alone")
        if self._capacity < _FEWEST:
            raise OSError(f"{above.parent} has no room for {_FEWEST} batches")
        _drop_forgotten(above.iterdir())
        name = f"{_READER}{self._run}-{os.getpid()}"
        for _ in range(2):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # the last reader took the folder with it meanwhile
                return _hold(self._folder, name, _mark(self._mark))
        raise OSError(f"{self._folder} does not stay")

    @cached_property
    def _capacity(self) -> int:
        """Batches that are kept."""
        memory = os.statvfs(self._folder.parent)
        return min(_KEPT, memory.f_blocks * memory.f_frsize // _SHARE_OF_MEMORY // self._pixels)

    def _marks(self) -> list[int]:
        """The next step of each reader of other runs that lives; what dead ones left goes."""
        found = []
        for file in self._folder.glob(f"{_READER}*"):
            if not _is_held(file):
                file.unlink(missing_ok=True)
            elif self._run not in file.name:
                with suppress(FileNotFoundError, ValueError):
                    found.append(int(read_regular(file, 64)))
        return found

    # ---- what is there

    def _read(self, step: int) -> list[Pictured] | None:
        """The batch, if it is there."""
        if self._alone:
            return None
        rows, file = None, self._batch(step)
        with self._or_alone(), suppress(FileNotFoundError):
            rows = unpacked(read_regular(file, self._limit), self._spec, self._samples)
            if rows is None:
                self._say("a batch that lay there is none of this data, and is made here")
                file.unlink()
        return rows

    def _batch(self, step: int) -> Path:
        return self._folder / f"{step}.batch"

    # ---- what is made

    def _make(self, step: int, make: Make, claim: int | None) -> list[Pictured]:
        began = time.monotonic()
        try:
            rows = make(step)
            self.made += 1
            self._seconds = time.monotonic() - began
            if claim is not None:
                with self._or_alone():
                    self._leave(step, rows)
            return rows
        finally:
            if claim is not None:
                with self._or_alone():
                    self._release(step, claim)

    def _made_ahead(self, steps: Sequence[int], make: Make) -> bool:
        """Whether there was a later batch to make while another process makes the first."""
        for later in steps[1:]:
            if later - steps[0] < self._capacity and (claim := self._claim(later)) is not None:
                self._make(later, make, claim)
                return True
        return False

    def _claim(self, step: int) -> int | None:
        """Descriptor that holds the making of a batch; None if it is made or in the making."""
        if self._alone or self._batch(step).exists():
            return None
        claim = None
        with self._or_alone():
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            claim = os.open(self._folder / f"{step}.claim", flags, 0o600)
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(claim)
                return None
            if self._batch(step).exists():  # it came between the two looks
                self._release(step, claim)
                return None
        return claim

    def _release(self, step: int, claim: int) -> None:
        try:
            (self._folder / f"{step}.claim").unlink(missing_ok=True)
        finally:
            os.close(claim)

    def _leave(self, step: int, rows: Sequence[Pictured]) -> None:
        """Put a batch where others find it, unless all that is there is wanted earlier."""
        marks = self._marks()
        if marks and min(marks) > step:
            self._say("the other runs are further than what is kept: made here until they are met")
        data = packed(rows, self._spec)
        if len(data) <= self._limit and self._make_room(step, marks):
            part = self._folder / f".{step}.{uuid.uuid4().hex}.part"
            try:
                with open(part, "xb", opener=_for_us_alone) as file:
                    file.write(data)
                part.rename(self._batch(step))
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def _make_room(self, step: int, marks: Sequence[int]) -> bool:
        """Whether a batch may stay; those that are wanted last, or by nobody, go for it."""

        def need(of: int) -> tuple[float, int]:
            wanted = [of - mark for mark in marks if mark <= of]
            wanted += [of - self._mark] if of > self._mark else []
            return min(wanted, default=math.inf), -of

        there = [int(file.stem) for file in self._folder.glob("*.batch")]
        by_need = sorted({*there, step}, key=need)
        for gone in by_need[self._capacity :]:
            self._batch(gone).unlink(missing_ok=True)
        return step in by_need[: self._capacity]


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _mark(step: int) -> bytes:
    return b"%020d" % step
