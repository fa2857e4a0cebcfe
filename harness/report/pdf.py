"""The report as a two-column paper: report.pdf, set by Typst.

Only plain strings cross into the document, as JSON, so no name is ever markup.  The fonts are those
inside Typst and there is no date, so that the same records give the same bytes anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from typing import Any

from harness.report import formats, style, text
from harness.report.content import Content
from harness.report.drawing import Drawing
from harness.report.table import Table, split, stacked
from harness.report.typesetting import typeset
from harness.report.words import Words

#: Lines of a table that still fit on a page between other things; more go to pages of their own.
_FLOAT_LINES = 46
#: Rows past which the paper refers to table.csv: nobody reads them on paper.
_PRINTED_ROWS = 120
_PRINTED_WORDS = 24
#: Letters of a word that is not broken; report.typ breaks longer ones.
_WHOLE = 14
#: Letters' worth of space around the words of a cell.
_INSET = 2
#: Columns past which differences stand below their means, and past which a page is turned.
_WIDE, _PORTRAIT_COLUMNS = 8, 16
#: Points between the margins of a page, upright and turned, and a letter's share of the size.
_PORTRAIT, _LANDSCAPE, _LETTER = 507, 754, 0.47


def to_pdf(content: Content, pictures: Mapping[str, bytes]) -> bytes:
    """The paper.

    Args:
        pictures: drawing name -> SVG.
    """
    table = _printed(content.table)
    placing = _placing(table)
    numbers = formats.to_typst(table, letters=_letters(placing)).encode()
    return paper("report.typ", _document(content, placing), pictures, {"table.typ": numbers})


def paper(
    template: str,
    document: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    beside: Mapping[str, bytes] | None = None,
) -> bytes:
    """`template` set with the words of `document`.

    Args:
        pictures: drawing name -> SVG.
        beside: further files that the template reads.
    """
    templates = files("harness.report") / "templates"
    inputs = {
        "main.typ": (templates / template).read_bytes(),
        "paper.typ": (templates / "paper.typ").read_bytes(),
        "data.json": json.dumps(_shown(document), ensure_ascii=True).encode(),
        **{f"{name}.svg": svg for name, svg in pictures.items()},
        **(beside or {}),
    }
    return typeset(inputs)


def _document(content: Content, placing: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": content.title,
        "name": content.name,
        "coverage": content.coverage,
        "warnings": content.warnings,
        "summary": content.summary,
        "answers": [asdict(answer) for answer in content.answers],
        "table": placing,
        "drawings": drawings_of(content.drawings),
        "failed": grid_of(content.failed),
        "unfinished": grid_of(content.unfinished),
        "method": content.method,
        "protocol": [asdict(fact) for fact in content.protocol],
        "time": grid_of(content.time),
        "published": grid_of(content.published),
        "published_note": content.published_note,
        "footer": content.footer,
    }


def drawings_of(drawings: Iterable[Drawing]) -> list[dict[str, Any]]:
    """Figures as paper.typ places them."""
    return [
        {
            "file": f"{drawing.name}.svg",
            "words": drawing.words,
            "wide": bool(drawing.figure.get_figwidth() > style.COLUMN + 0.5),
        }
        for drawing in drawings
    ]


def _shown(value: Any) -> Any:
    """The same with every string made printable with the fonts at hand."""
    if isinstance(value, str):
        return text.typeset(value)
    if isinstance(value, Mapping):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value


# --------------------------------------------------------------------------- the table of numbers


def _printed(table: Table) -> Table:
    """The rows that are worth paper, with each difference below its mean in a wide table."""
    shown = stacked(table) if len(table.columns) > _WIDE else table
    left = len(table.rows) - _PRINTED_ROWS
    if left <= 0:
        return shown
    groups, room = [], _PRINTED_ROWS
    for group in shown.groups:
        groups.append(replace(group, rows=group.rows[:room]))
        room -= len(groups[-1].rows)
    remark = f"{left:,} more of {len(table.rows):,} rows are in report.html and table.csv."
    return replace(
        shown, groups=tuple(g for g in groups if g.rows), remarks=(remark, *shown.remarks)
    )


def _placing(table: Table) -> dict[str, Any]:
    """Where the table goes, and how small it is set."""
    columns = len(table.columns)
    lines = sum(max(len(entry.lines) for entry in row) for row in table.rows)
    placing: dict[str, Any] = {
        "flipped": columns > _PORTRAIT_COLUMNS,
        "size": 7.6 if columns <= 8 else 5.8 if columns > 12 else 6.6,
    }
    lines *= len(split(table, _letters(placing)))
    placed = "float" if lines <= _FLOAT_LINES and not placing["flipped"] else "appendix"
    return {**placing, "placed": placed}


def _letters(placing: Mapping[str, Any]) -> int:
    """How many fit on a line of the page."""
    return int((_LANDSCAPE if placing["flipped"] else _PORTRAIT) / (_LETTER * placing["size"]))


# --------------------------------------------------------------------------- tables of words


def grid_of(grid: Words, most: int = _PRINTED_WORDS) -> dict[str, Any]:
    """A table of words as paper.typ sets it, with `most` rows at most."""
    rows = grid.rows[:most]
    left = len(grid.rows) - len(rows)
    columns = [[head, *(row[index] for row in rows)] for index, head in enumerate(grid.heads)]
    return {
        "columns": [
            {
                "text": head,
                "numeric": head in grid.numeric,
                "code": head in grid.code,
                "width": _share(column),
            }
            for head, column in zip(grid.heads, columns, strict=True)
        ],
        "rows": rows,
        "more": f"{left:,} more rows are in report.html." if left else "",
    }


def _share(column: Sequence[str]) -> float:
    """Letters of the longest word, which stays whole, and a part of the longest line."""
    word = max((len(word) for cell in column for word in cell.split()), default=0)
    whole, line = min(word, _WHOLE), min(max(map(len, column)), 40)
    return _INSET + max(whole, 3) + 0.3 * max(0, line - whole)
