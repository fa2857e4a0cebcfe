"""What lies in a cache, or beside a data set, held to the checksum that was recorded of it.

A large file is compared once on a machine: the mark of that tells its inode, size and times, and is
sealed by the key of this user, so that nobody else's counts.  What is damaged, or was put there by
another hand, is made again by whoever asks.  Knows nothing of what a file holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.errors import RecordError
from harness.files import (
    drop_leftovers,
    inside,
    is_sealed,
    locked,
    parse_json,
    read_regular,
    seal,
    sha256_of,
    write_atomic,
    written,
)

_SUM = "sha256"
_seen: dict[tuple[Path, ...], str] = {}
"""What this process compared, and in which state it was."""


def is_content(file: Path, sha256: str, cache: Path) -> bool:
    """Whether `file` has the content of that SHA-256, by a mark in the cache or by reading it.

    Raises OSError where the file cannot be read.
    """
    return are_contents({file: sha256}, cache)


def are_contents(sums: Mapping[Path, str], cache: Path) -> bool:
    """The same of several files, by one mark."""
    files = tuple(sums)
    state = "\n".join(_state_of(file, sha256) for file, sha256 in sums.items())
    if _seen.get(files) == state:
        return True
    mark = _mark_of(files, cache)
    if not _is_marked(mark, state):
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a cache that is not ours to write
                mark.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(mark))  # of many workers one reads, the others wait
            if not _is_marked(mark, state):
                if any(sha256_of(file) != sha256 for file, sha256 in sums.items()):
                    return False
                _keep_mark(mark, state)
    _seen[files] = state
    return True


def _state_of(file: Path, sha256: str) -> str:
    """All that changes when somebody writes to a file, before its content is read."""
    s = file.stat()
    times = f"{s.st_mtime_ns} {s.st_ctime_ns}"
    return f"{_name_of(file)} {s.st_dev} {s.st_ino} {s.st_size} {times} {sha256}"


def _name_of(file: Path) -> str:
    """On this machine, in ASCII."""
    return f"{platform.node()} {str(file.absolute())!a}"


def _mark_of(files: Sequence[Path], cache: Path) -> Path:
    what = [os.getuid(), *map(_name_of, files)]
    return cache / "verified" / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def _is_marked(mark: Path, state: str) -> bool:
    try:
        return is_sealed(state, read_regular(mark, 1000).decode("ascii"))
    except (OSError, UnicodeDecodeError):
        return False


def _keep_mark(mark: Path, state: str) -> None:
    if sealed := seal(state):
        with contextlib.suppress(OSError):
            write_atomic(mark, sealed.encode())


# --------------------------------------------------------------------------- what is kept


def cache_key(what: object) -> str:
    """What names a file of the cache: all that its content depends on, as plain values."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def keep_json(file: Path, value: Mapping[str, Any]) -> None:
    """Put `value` into a file that tells its own checksum."""
    write_atomic(file, _dumped({**value, _SUM: _sum_of(value)}))


def kept_json(file: Path) -> dict[str, Any] | None:
    """What `keep_json` put there; None where it is not there or no longer whole."""
    try:
        value = parse_json(read_regular(file, None), file)
        given = value.pop(_SUM, None)
        return value if given == _sum_of(value) else None
    except (OSError, RecordError, ValueError):
        return None


def _dumped(value: Mapping[str, Any]) -> bytes:
    """Escaped: a broken name may hold what UTF-8 cannot; in the order given."""
    return json.dumps(value).encode("ascii")


def _sum_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dumped(value)).hexdigest()


def keep_sums(folder: Path, about: str, value: Mapping[str, Any]) -> None:
    """Put `value` into the file `about` of a folder, with the checksums of the other files."""
    sums = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    keep_json(folder / about, {**value, "files": sums})


def kept_with_files(folder: Path, about: str, cache: Path) -> dict[str, Any] | None:
    """What `keep_sums` put there; None unless every file is as it was then."""
    found = kept_json(folder / about)
    files = None if found is None else found.get("files")
    if not isinstance(files, dict):
        return None
    try:
        whole = are_contents({inside(folder, n): str(sum) for n, sum in files.items()}, cache)
    except (OSError, RecordError):
        return None
    return found if whole else None


def made_once(target: Path, cache: Path, write: Callable[[IO[bytes]], None]) -> Path:
    """`target`, a file that `write` makes unless a whole one is there; safe in several processes.

    Its checksum is beside it.
    """
    if not _is_whole(target, cache):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not _is_whole(target, cache):
                drop_leftovers(target.parent)
                with written(target) as file:
                    write(file)
                keep_json(_beside(target), {"content": sha256_of(target)})
    return target


def _is_whole(target: Path, cache: Path) -> bool:
    kept = kept_json(_beside(target))
    try:
        return kept is not None and is_content(target, str(kept.get("content")), cache)
    except OSError:
        return False


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")
