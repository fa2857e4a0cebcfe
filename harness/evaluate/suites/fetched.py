"""What `--fetch` brings: bounded while it comes, its checksums kept, and compared ever after.

The hub's client notes which revision it brought; a later fetch asks for that one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.files import read_json, sha256_of, too_large, write_json

RECORD = ".fetched.json"
MAX_BYTES = 200 << 30
_LOOK_SECONDS = 1.0
_REVISION = re.compile(r"[0-9a-f]{40}")


def bring(command: Sequence[str], folder: Path) -> str:
    """Run the command that fills `folder`; why what it brought cannot be used, empty if it can.

    Raises RecordError when the record of an earlier fetch cannot be read.
    """
    before = read_json(folder / RECORD) or {}
    pin = before.get("revision")
    pinned = isinstance(pin, str) and _REVISION.fullmatch(pin)
    process = subprocess.Popen([*command, *(["--revision", str(pin)] if pinned else [])])
    while process.poll() is None:
        try:
            process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if words := too_large("it has brought", _size(folder), MAX_BYTES):
                process.kill()
                process.wait()
                return words
    if process.returncode:
        return f"it ended with exit code {process.returncode}"
    found = {name: sha256_of(folder / name) for name in _files(folder)}
    known = before.get("files", {})
    changed = [name for name, sha256 in found.items() if known.get(name, sha256) != sha256]
    if changed:
        return (
            f"{folder / changed[0]} is another than at the first fetch (SHA-256 "
            f"{found[changed[0]][:12]}, was {str(known[changed[0]])[:12]}); remove "
            f"{folder / RECORD} to take it nonetheless"
        )
    write_json(folder / RECORD, {"revision": _revision(folder) or pin, "files": {**known, **found}})
    return ""


def _files(folder: Path) -> list[str]:
    """Of the data set: what is hidden is the client's own."""
    found = (f.relative_to(folder) for f in sorted(folder.rglob("*")) if f.is_file())
    return [name.as_posix() for name in found if not any(p.startswith(".") for p in name.parts)]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _revision(folder: Path) -> str | None:
    """What the client notes beside each file in its first line."""
    for file in sorted((folder / ".cache" / "huggingface").rglob("*.metadata")):
        first = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        if _REVISION.fullmatch(first):
            return first
    return None
