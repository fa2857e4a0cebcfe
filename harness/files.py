"""Files written whole or not at all, and what tells one content from another.

Level 0, so that both halves write the same way; knows nothing of what a file holds.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import AbstractContextManager
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all: unique temporary name, fsync, replace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locked(path: Path) -> AbstractContextManager[object]:
    """Only one process of a machine at a time is in the block; `path` and `.lock` is the file."""
    from filelock import FileLock  # here: who only reads must not pay for it

    return FileLock(f"{path}.lock")
