"""A page as a value: sections of paragraphs, lists, tables and figures.

Whoever builds a document knows no format, and whoever writes one knows nothing of what it tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.document.table import Table
from harness.document.text import Text


@dataclass(frozen=True)
class Paragraph:
    """Words that run on."""

    text: Text


@dataclass(frozen=True)
class BulletList:
    """Items of one line each, in no order."""

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Note:
    """What a reader must know before the rest."""

    text: Text


@dataclass(frozen=True)
class Code:
    """Lines as they are, of a language or of none."""

    lines: str
    language: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture in as many forms as there are files, with what it shows in words.

    `files` are ending -> content: `svg` and `png` of the picture, `csv` of what is drawn in it.
    """

    name: str
    """Of its files, without an ending."""
    caption: str
    files: Mapping[str, bytes]
    wide: bool = False
    """Whether it takes both columns of a paper."""


@dataclass(frozen=True)
class Details:
    """Blocks behind a line that opens them; a paper shows them all."""

    summary: Text
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; a section within it has a smaller one."""

    title: str
    blocks: tuple[Block, ...]
    on_paper: bool = True
    """Whether a paper has it; lists of all runs are for screens."""


Block = Paragraph | BulletList | Note | Code | Figure | Details | Section | Table


@dataclass(frozen=True)
class Document:
    """A page: its title, a line below it, and what it holds."""

    title: str
    blocks: tuple[Block, ...]
    subtitle: str = ""

    def figures(self) -> Iterator[Figure]:
        """Every figure, in order."""
        return _figures(self.blocks)


def _figures(blocks: tuple[Block, ...]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, (Section, Details)):
            yield from _figures(block.blocks)
