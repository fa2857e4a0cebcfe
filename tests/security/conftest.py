"""A working directory of its own for every attack, which must leave no marker anywhere in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import marked

from harness.config import sweep_files


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; a key of its own, and no sweep file named before."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sweep_files, "_named", {})
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    yield folder
    assert list(marked(tmp_path)) == []
