"""Errors that teach: what was given, what is allowed, what is nearest.

Owns every exception a user may meet.  Each carries the class under which a failed run
is filed (`failure`) and the exit code of a command that it ends (`exit_code`).
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import pwd
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit


class HarnessError(Exception):
    """A clear, one-line message for the user; never shown with a traceback."""

    failure = "bug"
    exit_code = 2


class ConfigError(HarnessError):
    """A field, name or value of a configuration that cannot be used."""

    failure = "config"


class SweepError(HarnessError):
    """A sweep file that cannot be found, read or expanded."""

    failure = "config"


class DataError(HarnessError):
    """A data set that is absent, empty, or broken past the allowed fraction."""

    failure = "data"


class RecordError(HarnessError):
    """A run directory that is of another schema, was edited by hand, or is torn."""

    failure = "record"


class DivergedError(HarnessError):
    """NaN or Inf in the loss or the gradient: the run stops and is never evaluated."""

    failure = "diverged"
    exit_code = 3


class InvariantError(HarnessError):
    """A result that cannot be true (R@5 below R@1, a NaN, a wrong number of samples)."""

    failure = "invariant"
    exit_code = 3


class DeviceError(HarnessError):
    """A GPU that is there and cannot be used now."""

    failure = "node_failure"
    exit_code = 3


class RankLost(HarnessError):
    """Another process of the run died, fell silent, or failed, whose `failure` this one takes."""

    failure = "killed"
    exit_code = 3

    def __init__(self, message: str, failure: str = "killed") -> None:
        super().__init__(message)
        self.failure = failure


class InterruptedRun(HarnessError):
    """A stop was asked for; the state is on disk and the same command goes on."""

    failure = "interrupted"
    exit_code = 130


class StoppedRun(InterruptedRun):
    """A stop was asked for in the run's directory, for a `reason` (`cancelled`, `pruned`)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"stopped by request: {reason}; what there is of it is on disk")
        self.failure = reason


NOT_WHOLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a record of any other shape comes to."""


@contextmanager
def whole(what: object) -> Iterator[None]:
    """RecordError where the records of `what`, which may hold anything, are not as their readers
    rely on; what is relied on most, `harness.store.shapes` names."""
    try:
        yield
    except NOT_WHOLE as error:
        raise RecordError(f"{what} holds a record that is not whole ({one_line(error)})") from error


def refuse_controls(what: str, text: str) -> None:
    """ConfigError where a name or a path has a line break or another control character.

    Such a name could end a line of a script, of a record or of a terminal.
    """
    found = [c for c in text if unicodedata.category(c) in {"Cc", "Zl", "Zp"}]
    if found:
        raise ConfigError(f"{what} {text!r} has the control character {found[0]!r}: rename it")


MAX_NAME = 10_000


def refuse_long(what: str, text: str) -> None:
    """ConfigError where a name is longer than any page can show."""
    if len(text) > MAX_NAME:
        raise ConfigError(
            f"{what} {text[:40]!r}... has {len(text):,} characters, {MAX_NAME:,} are allowed"
        )


def nearest(given: str, allowed: Iterable[str], *, most: int = 3) -> list[str]:
    """The allowed names closest to `given`, best first, at most `most` of them."""
    names = list(allowed)
    folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(given.casefold(), folded, n=most, cutoff=0.5)
    by_part = [name for name in names if given and given.casefold() in name.casefold()]
    return list(dict.fromkeys([folded[c] for c in close] + by_part))[:most]


def few(given: Iterable[object], most: int = 3) -> str:
    """The first of some things in a line, and how many more there are."""
    names = list(map(str, given))
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def unknown(kind: str, given: str, allowed: Iterable[str], *, show: int = 12) -> str:
    """One line that says `given` is no `kind`, what is nearest and what is allowed."""
    names = sorted(allowed)
    close = nearest(given, names)
    line = f"unknown {kind} {given!r}"
    if close:
        line += f"; nearest: {', '.join(close)}"
    if names and len(names) <= show:
        line += f"; allowed: {', '.join(names)}"
    elif names:
        line += f"; {len(names)} are allowed, such as {', '.join(names[:3])}"
    return line


_NO_MEMORY = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")
"""What torch, NCCL and cuBLAS say in errors of no class of their own."""


def failure_class(error: BaseException) -> str:
    """The class a failed run is filed under: what a retry policy needs to know."""
    if isinstance(error, HarnessError):
        return error.failure
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "disk_full"
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _NO_MEMORY):
        return "out_of_memory"
    return "bug"


def one_line(error: BaseException) -> str:
    """The last line a user needs: the exception's own words, without line breaks."""
    text = " ".join(str(error).split()) or type(error).__name__
    text += _whose(error.filename) if isinstance(error, PermissionError) else ""
    return text if isinstance(error, HarnessError) else f"{type(error).__name__}: {text}"


def _whose(path: object) -> str:
    """Who else owns what could not be written or read, and what users of one root agree on."""
    if not isinstance(path, str):
        return ""
    place = Path(path)
    there = next((p for p in (place, *place.parents) if os.access(p, os.F_OK)), None)
    if there is None or (owner := there.stat().st_uid) == os.geteuid():
        return ""
    return (
        f"; {there} belongs to {user_name(owner)}: a root that users share is of one group, has "
        "`chmod -R g+rwX`, set-group-ID on its folders, and umask 002 for all of them"
    )


def require(why: str, packages: Iterable[str], *, extra: str | None) -> None:
    """ConfigError, which begins with `why`, unless packages that an extra brings are installed.

    Args:
        extra: of this project; None: the packages are somebody's own.
    """
    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        advice = installs(" ".join(absent)) if extra is None else how_to_install(extra)
        raise ConfigError(f"{why} needs {', '.join(absent)}; {advice} brings it")


def how_to_install(extra: str) -> str:
    """The command that adds an extra to this installation, be it of a clone, a copy or an index."""
    from importlib.metadata import PackageNotFoundError, distribution

    clone = Path(__file__).absolute().parents[1]
    try:
        origin = json.loads(distribution(PROJECT).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        return installs(f"'{PROJECT}[{extra}] @ {origin['vcs_info']['vcs']}+{url}'")
    if not url.startswith("file://"):
        return installs(f"'{PROJECT}[{extra}]'")
    place = Path(unquote(urlsplit(url).path))
    where = "." if place == Path.cwd() else str(place)
    editable = origin.get("dir_info", {}).get("editable")
    return installs(f"{'-e ' if editable else ''}'{where}[{extra}]'")


PROJECT = "lightclip-harness"


def installs(what: str) -> str:
    """The command by which this interpreter gets packages; one that uv made has no pip."""
    python = Path(sys.executable)
    shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    if find_spec("pip") is None:
        return f"uv pip install --python {shown} {what}"
    return f"{shown} -m pip install {what}"


def user_name(user: int) -> str:
    """The name of a user, or the number where there is none."""
    return known_name(user) or f"user {user}"


def known_name(user: int) -> str | None:
    """The name of a user; None where this machine knows none."""
    try:
        return pwd.getpwuid(user).pw_name
    except (KeyError, OverflowError):
        return None
