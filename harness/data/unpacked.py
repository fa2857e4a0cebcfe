"""What is compressed, or inside of a table, as a plain tar in the cache: laid down once.

A picture of it is then one seek and one read, as of any other tar.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from harness.data.verified import made_once
from harness.errors import DataError
from harness.files import bounded

_LEAST_BYTES, _MOST_RATIO = 1 << 30, 100
"""What a compressed tar may come to: pictures are compressed, and zeros between them are few."""


def untarred(archive: Path, cache: Path) -> Path:
    """The plain tar that a `.tar.gz` holds; DataError when it is damaged."""

    def write(file: IO[bytes]) -> None:
        try:
            with gzip.GzipFile(archive) as opened:
                most = _LEAST_BYTES + _MOST_RATIO * archive.stat().st_size
                file.writelines(bounded(opened.read, most))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}") from error

    return laid_down(archive, cache, write)


def laid_down(source: Path, cache: Path, write: Callable[[IO[bytes]], None]) -> Path:
    """The file in the cache that `write` made of `source` as it is now; safe in several processes.

    Its name holds the name, the size and the time of the source, so that another content is another
    file, and it is held to its checksum.
    """
    state = source.stat()
    what = f"{source.absolute()} {state.st_size} {state.st_mtime_ns}"
    key = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = cache / "unpacked" / f"{source.name.partition('.')[0]}-{key}.tar"
    return made_once(target, cache, write)
