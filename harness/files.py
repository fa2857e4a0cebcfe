"""Files written whole or not at all, what tells one content from another, and the streams.

Level 0, so that both halves write the same way; knows nothing of what a file holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson

from harness.errors import RecordError


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


# --------------------------------------------------------------------------- files


def dump_json(value: object) -> bytes:
    """Strict JSON in a stable order of keys; NaN and Inf are refused (ValueError)."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def write_json(path: Path, value: object) -> None:
    """`dump_json` to `path`, atomically."""
    write_atomic(path, dump_json(value))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when it is absent; RecordError when it is not valid JSON."""
    try:
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object that is the content `data` of `path`; RecordError when it is not valid JSON."""
    try:
        value = _load(data)
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is not valid JSON ({error}); delete it to start over") from None
    if not isinstance(value, dict):
        raise RecordError(f"{path} holds no JSON object")
    return value


def _load(data: bytes) -> Any:
    """orjson is several times as fast; the standard library takes the lone surrogates that a name
    may hold, and words the errors."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode("utf-8"))


def numbers_of(tree: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of a line of a log; those of a section have its name, `terms/instance`, but for
    those of the section `metrics`."""
    found: dict[str, float] = {}
    for name, value in tree.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping):
            found |= numbers_of(value, "" if path == "metrics" else f"{path}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[path] = float(value)
    return found


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; a torn last line (a killed writer) is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise RecordError(f"{path}:{number} is not valid JSON") from None


def open_streams() -> None:
    """Make the standard streams safe to print to, at the start of a process.

    One that was closed leads nowhere, and a character that one lacks is written as its number.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number free: that of the stream
            os.set_inheritable(nowhere, True)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115
        elif name != "stdin" and getattr(stream, "errors", "") == "strict":
            stream.reconfigure(errors="backslashreplace")
