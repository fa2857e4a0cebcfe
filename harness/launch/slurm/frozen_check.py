"""Whether frozen code is as it was frozen, and nobody else could have changed it.

    python -I -c TEXT_OF_THIS_FILE FOLDER SHA256

A job's script holds this text and runs it ahead of that code; so it is one file, and imports
nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping

ASIDE = ("snapshot.json",)
"""Says where the code was taken from, and is none."""


def digest_of(contents: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


def fault_of(folder: str, sha256: str) -> str:
    """What is wrong with the code in `folder`, in a few words; empty if nothing is."""
    contents: dict[str, bytes] = {}
    for place, folders, names in os.walk(folder):
        for path in [place, *(os.path.join(place, name) for name in (*folders, *names))]:
            state = os.lstat(path)
            if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
                return f"{path} is no file"
            if state.st_uid not in (0, os.getuid()) or state.st_mode & 0o022:
                return f"others may write {path}"
        for name in names:
            path = os.path.join(place, name)
            inside = os.path.relpath(path, folder).replace(os.sep, "/")
            if inside not in ASIDE and "__pycache__" not in inside.split("/"):
                with open(path, "rb") as file:
                    contents[inside] = file.read()
    return "" if digest_of(contents) == sha256 else f"{folder} is not as it was frozen"


if __name__ == "__main__":
    fault = fault_of(sys.argv[1], sys.argv[2])
    sys.exit(f"frozen code is not run: {fault}" if fault else 0)
