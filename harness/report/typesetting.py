"""Typst in a process of its own, whose hundreds of megabytes go when it is done.

python -m harness.report.typesetting FOLDER     # main.typ and what it includes -> paper.pdf
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typst

from harness.errors import HarnessError

_PAPER = "paper.pdf"


def typeset(inputs: Mapping[str, bytes]) -> bytes:
    """The PDF of `main.typ` among `inputs`, file name -> content; HarnessError if it is refused."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, data in inputs.items():
            (folder / name).write_bytes(data)
        words = [sys.executable, "-m", "harness.report.typesetting", temporary]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HarnessError(f"the paper cannot be set: {done.stderr.strip()}")
        return (folder / _PAPER).read_bytes()


def main(folder: Path) -> None:
    """Set the paper, with the fonts inside Typst alone."""
    inputs = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    # Its annotations do not know of an input of several files, which its documentation has.
    compiled: Any = typst.compile
    (folder / _PAPER).write_bytes(compiled(inputs, format="pdf", ignore_system_fonts=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
