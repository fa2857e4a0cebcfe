"""Commands of the shell in `data.path`: only those that the caller typed, or has in a sweep file.

A record that names one is somebody's word, and never run for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.errors import DataError

SEPARATOR = "::"
"""Between the sources of one path, as in webdataset and open_clip."""
_SCHEME = "pipe:"
_ALLOWED: set[str] = set()
"""Of this process."""


def pipes_in(path: object) -> Sequence[str]:
    """The sources of a `data.path` that are commands."""
    sources = [part.strip() for part in path.split(SEPARATOR)] if isinstance(path, str) else []
    return [source for source in sources if source.lower().startswith(_SCHEME)]


def allow_pipes(paths: Iterable[object]) -> None:
    """Take the commands in `paths` for the caller's own."""
    for path in paths:
        _ALLOWED.update(pipes_in(path))


def check_pipes(path: object) -> Sequence[str]:
    """The commands in a `data.path`; DataError for one that is not the caller's own."""
    found = pipes_in(path)
    for pipe in found:
        if pipe not in _ALLOWED:
            raise DataError(
                f"data.path runs a command, {pipe!r}, which a record names and you did not: it is "
                "not run; an option of the command line or a sweep file of yours may name it"
            )
    return found
