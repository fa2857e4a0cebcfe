"""Small tables of plain words, and how Markdown writes them.

What a report says beside its numbers (failures, runs, time, published neighbours) is told once, as
plain text, and escaped by each format for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.report import text


@dataclass(frozen=True)
class Words:
    """A table of plain text: no cell is markup, whatever it holds."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    code: frozenset[str] = frozenset()
    """Columns of keys, paths and hashes, by their heads."""
    numeric: frozenset[str] = frozenset()
    """Columns of numbers, set to the right."""
    keys: tuple[tuple[str, ...], ...] = field(default=())
    """The runs behind each row; empty when rows are of no run."""

    def __bool__(self) -> bool:
        return bool(self.rows)


def words(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    code: Iterable[str] = (),
    numeric: Iterable[str] = (),
    keys: Iterable[Iterable[str]] = (),
) -> Words:
    """A `Words` of anything that has a text."""
    return Words(
        tuple(heads),
        tuple(tuple(map(str, row)) for row in rows),
        frozenset(code),
        frozenset(numeric),
        tuple(tuple(key) for key in keys),
    )


def to_markdown(grid: Words) -> str:
    """A GitHub table; nothing without rows."""
    if not grid.rows:
        return ""
    aligned = ["---:" if head in grid.numeric else "---" for head in grid.heads]
    lines = [
        [text.markdown(head) for head in grid.heads],
        aligned,
        *[
            [
                _markdown_cell(cell, head in grid.code)
                for head, cell in zip(grid.heads, row, strict=True)
            ]
            for row in grid.rows
        ],
    ]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _markdown_cell(cell: str, is_code: bool) -> str:
    return (
        text.markdown_code(cell) if is_code and cell not in {"", text.DASH} else text.markdown(cell)
    )
