"""Looks that are never too early, and files that need not reach the disk."""

from __future__ import annotations

import pytest

from harness.search import source


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
