"""Shards from elsewhere, kept on local disk while they are read.

One folder serves every process of a machine: a shard is fetched once, whoever asks first, and the
one that was not read for the longest goes when room is wanted.  What is kept is the shard as it
came, so a shuffle over many shards costs disk and no memory.  Knows nothing of samples.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
from pathlib import Path
from typing import BinaryIO

from harness.errors import DataError, one_line
from harness.files import bounded, locked

DEFAULT_BYTES = 50 * 10**9

_TRIES = 3
_WAIT_SECONDS = 1.0
"""Before the second try to fetch a shard; the third waits twice as long."""
_LOSSES = 20


class Spool:
    """Local copies of shards, of at most `max_bytes` together."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._verified: set[Path] = set()

    def open(self, url: str, sha256: str) -> BinaryIO:
        """A shard to read from, fetched unless it is there.

        Raises DataError when it cannot be had or its content is another than `sha256`.
        """
        path = self.path_of(url)
        for _ in range(_LOSSES):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                self.fetch(url, sha256)
                continue
            if path not in self._verified and not self._is_whole(path, file, sha256):
                continue
            os.utime(file.fileno())  # the file stays readable, even if it has to go now
            return file
        raise DataError(
            f"{url} had to go from {self.folder} {_LOSSES} times before it was read; "
            "runtime.spool_mb is too small for all that read there"
        )

    def _is_whole(self, path: Path, file: BinaryIO, sha256: str) -> bool:
        """Whether a copy is what came; looked at once, and removed where it is not."""
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]
            file.close()
            path.unlink(missing_ok=True)
            return False
        file.seek(0)
        self._verified.add(path)
        return True

    def path_of(self, url: str) -> Path:
        """Where the copy of `url` is or will be."""
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.tar"

    def fetch(self, url: str, expected: str | None = None) -> tuple[Path, str]:
        """The copy of a shard and its SHA-256, fetched unless one of that content is there.

        Raises DataError as `open` does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path_of(url)
        with locked(path):
            if path.exists() and expected is not None:
                return path, expected  # it was compared when it came
            sha256 = self._download(url, path, expected)
        self._make_room(path)
        return path, sha256

    def _download(self, url: str, path: Path, expected: str | None) -> str:
        part = path.with_suffix(".part")
        for left in reversed(range(_TRIES)):
            try:
                sha256 = _copy(url, part, self.max_bytes)
            except (OSError, ValueError) as error:
                part.unlink(missing_ok=True)
                if not left:
                    raise DataError(f"cannot fetch {url}: {_reason(error)}") from error
                time.sleep(_WAIT_SECONDS * (_TRIES - left))
                continue
            if expected is None or sha256 == expected:
                os.replace(part, path)
                return sha256
            part.unlink()
            break
        raise DataError(
            f"{url} has changed since it was indexed (SHA-256 {sha256[:12]}, not "
            f"{str(expected)[:12]}); python -m harness.data check --again indexes it anew"
        )

    def _make_room(self, newest: Path) -> None:
        with locked(self.folder / "room"):
            kept = sorted(self.folder.glob("*.tar"), key=_last_read)
            size = sum(path.stat().st_size for path in kept)
            for path in kept:
                if size <= self.max_bytes:
                    return
                if path != newest:
                    size -= path.stat().st_size
                    path.unlink()


def _copy(url: str, part: Path, most: int) -> str:
    """Put what `url` gives into a file; its SHA-256.  Raises OSError, of more than `most` bytes
    too, or ValueError."""
    from webdataset.gopen import gopen

    digest = hashlib.sha256()
    with part.open("wb") as out, gopen(_for_gopen(url)) as source:
        for block in bounded(source.read, most):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def _for_gopen(url: str) -> str:
    """What webdataset opens for `url`: for s3 it has no opener but the customary pipe."""
    return f"pipe:aws s3 cp {shlex.quote(url)} -" if url.startswith("s3://") else url


def _reason(error: Exception) -> str:
    """In one line; of a command's failure its exit code, which it has said more about itself."""
    code = re.search(r"\bexit (\d+)\b", str(error))
    return f"its reader ended with exit code {code[1]}" if code else one_line(error)


def _last_read(path: Path) -> float:
    return path.stat().st_mtime
