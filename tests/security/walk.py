"""A command ended by SIGKILL, or refused for want of space, at any of its writes.

It runs in a copy of this process, in which the nth change of a file (opened to write, moved,
removed, a folder made) below a folder is its last; a file that was being written holds a part.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Command:
    """A command below a folder, twice or more the same.

    Attributes:
        run: ends with an error of its own, or as it should.
        prepare: puts there what the command reads.
        unlike: names of files that tell times, places or numbers of processes; of others the bytes
            are compared.
        hidden: names that are others each time.
        told: what of such files is to be the same.
    """

    run: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda place: None
    unlike: str = r"(?!)"
    hidden: str = r"(?!)"
    told: Callable[[Path], object] = lambda place: None

    def left(self, place: Path) -> dict[str, object]:
        """What there is after it."""
        found = {n: data for n, data in tree(place).items() if not re.search(self.hidden, n)}
        kept = {n: None if re.search(self.unlike, n) else data for n, data in found.items()}
        return {**kept, "": self.told(place)}


def new(folder: Path, command: Command) -> Path:
    """A folder with what the command reads; always of one name, which some records tell."""
    place = folder / "whole"
    place.mkdir(parents=True, exist_ok=True)
    command.prepare(place)
    return place


def walk(
    command: Command, tmp_path: Path, how: str, shares: Iterable[float], *, twice: bool = True
) -> Iterator[int]:
    """Break the command at these shares of its writes, and compare what the same one makes of it.

    Gives the number of each write.
    """
    whole = new(tmp_path / "0", command)
    total = writes(command, whole)
    wanted = command.left(whole)
    for number in sorted({max(1, round(share * total)) for share in shares}):
        place = new(tmp_path / f"{how}{number}", command)
        assert broken_at(number, lambda p=place: command.run(p), place, how)  # type: ignore[misc]
        command.run(place)
        if twice:
            command.run(place)  # which may tidy up what the first found too young
        assert_same(command.left(place), wanted, number)
        yield number


def writes(command: Command, place: Path) -> int:
    """How many there are in a whole one, which runs in a copy of this process."""
    inner, outer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            left = watch(10**9, place, "count")
            command.run(place)
            os.write(outer, str(10**9 - left()).encode())
        finally:
            os._exit(0)
    os.close(outer)
    os.waitpid(child, 0)
    with open(inner) as told:
        return int(told.read())


def assert_same(found: dict[str, object], wanted: dict[str, object], what: object = "") -> None:
    """Of the files, which differ and not how."""
    assert set(found) == set(wanted), (what, set(found) ^ set(wanted))
    assert [name for name in wanted if found[name] != wanted[name]] == [], what


class Full(Exception):
    """A command said that there is no space."""


def broken_at(number: int, command: Callable[[], object], place: Path, how: str) -> bool:
    """Run `command` in a child that its change number `number` ends; whether it came so far."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            left = watch(number, place, how)
            command()
            code = 7 if left() > 0 else 0
        except (OSError, Full) as error:
            code = 9 if isinstance(error, Full) or error.errno in _FULL else 1
            if code == 1:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 7, 9, -signal.SIGKILL}, code
    return code != 7


def watch(number: int, place: Path, how: str) -> Callable[[], int]:
    """Lie in wait; what tells how many writes are left until then."""
    left = number

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in _EVENTS or not str(args[0]).startswith(str(place)):
            return
        if event == "open" and not (args[2] or 0) & _WRITING:
            return
        if str(args[0]).endswith(".lock"):
            return
        left -= 1
        if left == 0:
            if event == "open":
                _tear(str(args[0]))
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)
    return lambda: left


def _tear(file: str) -> None:
    """As a writer leaves it that was stopped within its first block."""
    number = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(number, b'{"torn": ')
    os.close(number)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but locks, and marks of what was compared, which tell numbers of inodes."""
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    found = (file for file in found if file.parent.name != "verified")
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in found
        if file.suffix != ".lock"
    }
