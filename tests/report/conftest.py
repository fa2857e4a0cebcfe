"""The record factory as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from report_records import Records

from harness.figures.base import Figures


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    # No machine loses power here, and hundreds of small files need not reach the disk.
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    with ExitStack() as held:
        yield Records(tmp_path / "root", held)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without them, in a third of its time: they have tests of their own."""
    monkeypatch.setattr(Figures, "draw", lambda self, material: [])
