"""A root with runs in every state, with words that a browser must not take for markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from board_cases import SWEEP, Root

from harness.config import Runtime
from harness.config.sweep import expand
from harness.store.manifest import write_manifest


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    """Four runs: one done, one that goes on while the test does, one failed, one not begun."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    runs = expand(SWEEP)
    made = Root(tmp_path / "root", runs)
    write_manifest(made.store, SWEEP, runs, Runtime(), ["python", "-m", "harness.sweep", "depth"])
    with made.lease(made.going_on):
        made.fill()
        yield made
