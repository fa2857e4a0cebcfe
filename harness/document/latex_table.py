r"""A table as LaTeX that fits its paper: booktabs, no \resizebox, and longtable past a page.

Every width is worked out beforehand.  Letters of 9 points become 8 and 7, the space between columns
narrower, long words a paragraph; what is still too wide is set as several tables, one below the
other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf

from harness.document.escaping import latex
from harness.document.layout import POINTS, PaperLayout, ems
from harness.document.table import (
    Heading,
    Mark,
    Table,
    TableCell,
    first_rows,
    split,
    stacked,
    width,
    without_spare,
)
from harness.document.text import Text, flat, write

#: Points of letters, and of space at either side of a column, in the order that they are tried.
_SIZES = ((9.0, 5.0), (9.0, 4.0), (8.0, 4.0), (8.0, 3.0), (7.0, 3.0), (7.0, 2.5))
#: Small letters of Computer Modern are wider for their size.
_WIDER = {9.0: 1.03, 8.0: 1.065, 7.0: 1.14}
#: Lines that stand on one page below a caption, and notes that are printed of a table of holes.
_LINES, _NOTES = 46, 12
#: Rows past which an appendix refers to the CSV file: nobody reads them on paper.
_MOST_ROWS = 400
#: Width of a script and of a bold letter as multiples of the letter's.
_SCRIPT, _BOLD = 0.9, 1.16
#: The most of a line that the words which name a row may take, and the least for one of them.
_WORDS, _LEAST = 0.5, 30.0
#: Letters of a word within a paragraph after which it may be broken.
_WHOLE = 10
_STYLES = {
    "strong": r"\textbf{{{}}}",
    "code": r"\texttt{{{}}}",
    "superscript": r"\textsuperscript{{{}}}",
    "subscript": r"\textsubscript{{{}}}",
    "link": "{}",
}
_MARKS = {
    Mark.NONE: "{}",
    Mark.BEST: r"\textbf{{{}}}",
    Mark.SECOND: r"\underline{{{}}}",
    Mark.MUTED: r"\textit{{{}}}",
}
_LETTERS = _STYLES["superscript"]
_ALIGN = {"left": "l", "right": "r", "center": "c"}
_MATH = str.maketrans({"\u00b1": r"\pm ", "\u2248": r"\approx ", "\u2212": "-"})


def words(text: Text) -> str:
    """Words in a line, set apart as they ask for."""
    return write(text, latex, lambda inline: _STYLES[inline.style].format(latex(inline.text)))


def set_table(table: Table, layout: PaperLayout) -> str:
    """A floating table; several, or tables that go on from page to page, where it is longer.

    What no size of letters makes fit is set with each column that may stand below another there,
    and without those that say the same as others.
    """
    points = layout.text * POINTS - 1
    table = first_rows(table, _MOST_ROWS, "table.csv")
    fit = _fit(table, points)
    for narrower in (stacked, without_spare):
        if fit is None:
            table = narrower(table)
            fit = _fit(table, points)
    fit = fit or _Fit(8.0, 3.0, table, points, _naturals(table))
    parts = [table] if _width(table, fit) <= points else _parts(table, fit)
    heights = [_height(part) for part in parts]
    if sum(heights) <= _LINES:
        return _floating(parts, fit, layout)
    if max(heights) <= _LINES:
        floats = [_floating([part], fit, layout, part=n) for n, part in enumerate(parts)]
        return "\n".join(floats)
    return "\n".join(_long(part, fit, part=n) for n, part in enumerate(parts))


# --------------------------------------------------------------------------- widths


@dataclass(frozen=True)
class _Fit:
    """How a table is set: points of its letters, and of space at either side of a column."""

    size: float
    gap: float
    table: Table
    points: float
    """Of the line."""
    naturals: Mapping[tuple[str, ...], float]
    """Headings of a column -> its width in multiples of the letters' size."""
    paragraphs: Mapping[tuple[str, ...], float] = field(init=False)
    """Headings of a column of words that is broken into lines -> its points."""

    def __post_init__(self) -> None:
        natural = {
            column.heads: self._natural(self.table, index)
            for index, column in enumerate(self.table.columns)
            if not column.numeric
        }
        most = _share_out(list(natural.values()), _WORDS * self.points)
        broken = {heads: most for heads, points in natural.items() if points > most}
        object.__setattr__(self, "paragraphs", broken)

    def _natural(self, table: Table, index: int) -> float:
        return _WIDER[self.size] * self.size * self.naturals[table.columns[index].heads]

    def measure(self, table: Table, index: int) -> float:
        """Points of a column with the space beside it."""
        natural = self._natural(table, index)
        return min(natural, self.paragraph(table, index)) + 2 * self.gap

    def paragraph(self, table: Table, index: int) -> float:
        """Points of a column that is broken into lines; infinite for the others."""
        return self.paragraphs.get(table.columns[index].heads, inf)

    @property
    def begin(self) -> list[str]:
        """The settings of letters and space."""
        return [
            rf"\fontsize{{{self.size:g}}}{{{1.2 * self.size:g}}}\selectfont",
            rf"\setlength{{\tabcolsep}}{{{self.gap:g}pt}}",
        ]


def _fit(table: Table, points: float) -> _Fit | None:
    """The largest letters with which the table is within `points`; None where none are."""
    naturals = _naturals(table)
    for size, gap in _SIZES:
        fit = _Fit(size, gap, table, points, naturals)
        if _width(table, fit) <= points:
            return fit
    return None


def _width(table: Table, fit: _Fit) -> float:
    """Points of the table, whose headings may be wider than the columns below them."""
    own = width(table, fit.measure) - 2 * fit.gap
    return own + sum(_excess(span, table, fit) for spans in table.header()[:-1] for span in spans)


def _excess(span: Heading, table: Table, fit: _Fit) -> float:
    """Points by which the longest word of a heading is wider than the columns below it."""
    columns = range(span.first, span.first + span.width)
    room = sum(fit.measure(table, index) for index in columns) - 2 * fit.gap
    longest = max(map(ems, span.text.split()), default=0.0)
    return max(0.0, _WIDER[fit.size] * fit.size * longest - room)


def _parts(table: Table, fit: _Fit) -> list[Table]:
    """The table as several that fit, whatever headings come to stand over a single column."""
    above = {word for c in table.columns for head in c.heads[:-1] for word in head.split()}
    widest = max(map(ems, above), default=0.0)
    narrowest = min(fit.measure(table, index) for index in range(len(table.columns)))
    spare = max(0.0, _WIDER[fit.size] * fit.size * widest - narrowest + 2 * fit.gap)
    return split(table, fit.points + 2 * fit.gap - spare, fit.measure)


def _naturals(table: Table) -> dict[tuple[str, ...], float]:
    """Width of each column, of its cells and of its heading; of equal headings the wider."""
    found: dict[tuple[str, ...], float] = {}
    for index, column in enumerate(table.columns):
        cells = _cells_width(table, index)
        notes = _SCRIPT * ems(table.letters(column.notes))
        head = notes + max(map(ems, _wrapped(column.heads[-1], cells)))
        found[column.heads] = max(head, cells, found.get(column.heads, 0.0))
    return found


def _share_out(natural: Sequence[float], points: float) -> float:
    """The greatest width with which columns so wide, the wider ones cut to it, take `points`."""
    left, waiting = points, sorted(natural)
    for place, each in enumerate(waiting):
        share = left / (len(waiting) - place)
        if each > share:
            return max(share, _LEAST)
        left -= each
    return inf


def _cells_width(table: Table, index: int) -> float:
    """In multiples of the letters' size; a spread and a star stand at the same place."""
    cells = [row[index] for row in (*table.rows, *table.footer)]
    lines = [line for cell in cells for line in cell.lines]
    after = max((_after_width(line) for line in lines), default=0.0)
    return after + max((_number_width(table, line) for line in lines), default=0.0)


def _number_width(table: Table, cell: TableCell) -> float:
    bold = _BOLD if cell.mark is Mark.BEST else 1.0
    return bold * ems(flat(cell.text)) + _SCRIPT * ems(table.letters(cell.notes))


def _after_width(cell: TableCell) -> float:
    by_style: dict[str, float] = {}
    for inline in cell.after:
        by_style[inline.style] = by_style.get(inline.style, 0.0) + ems(inline.text)
    return 0.1 + _SCRIPT * max(by_style.values()) if by_style else 0.0


def _wrapped(said: str, most: float) -> list[str]:
    lines: list[str] = []
    for word in said.split():
        if lines and ems(f"{lines[-1]} {word}") <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


# --------------------------------------------------------------------------- environments


def _floating(parts: Sequence[Table], fit: _Fit, layout: PaperLayout, part: int = 0) -> str:
    """One float of the parts below each other; `part` counts the floats of one table."""
    table = parts[0]
    within = max(_width(each, fit) for each in parts) <= layout.column * POINTS
    environment = "table" if within or layout.column == layout.text else "table*"
    tabulars = [_tabular(each, fit) for each in parts]
    lines = [
        rf"\begin{{{environment}}}[t]",
        r"\centering\sloppy\setlength{\belowcaptionskip}{4pt}",
        *_caption(table, part),
        *fit.begin,
        *tabulars[0],
        *[line for tabular in tabulars[1:] for line in [r"\par\medskip", *tabular]],
        *_explained(table),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)


def _caption(table: Table, part: int) -> list[str]:
    if part:
        return [r"\addtocounter{table}{-1}", r"\caption{(continued)}"]
    label = [rf"\label{{{table.label}}}"] if table.label else []
    return [rf"\caption{{{_breakable(latex(table.caption))}}}", *label]


def _tabular(table: Table, fit: _Fit) -> list[str]:
    return [
        rf"\begin{{tabular}}{{{_columns(table, fit)}}}",
        r"\toprule",
        *_head(table, fit),
        r"\midrule",
        *_body(table, fit),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _long(table: Table, fit: _Fit, part: int) -> str:
    """A table that goes on from page to page, each under the headings."""
    head = [r"\toprule", *_head(table, fit), r"\midrule"]
    caption = " ".join(_caption(table, part)[-2:] if not part else [r"\caption{(continued)}"])
    lines = [
        r"\begingroup\sloppy",
        *fit.begin,
        r"\setlength{\LTcapwidth}{\linewidth}",
        *([r"\addtocounter{table}{-1}"] if part else []),
        rf"\begin{{longtable}}{{{_columns(table, fit)}}}",
        rf"{caption} \\",
        *head,
        r"\endfirsthead",
        *head,
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *_body(table, fit),
        r"\end{longtable}",
        *_explained(table),
        r"\endgroup",
    ]
    return "\n".join(lines)


def _columns(table: Table, fit: _Fit) -> str:
    return f"@{{}}{''.join(_column(table, fit, i) for i in range(len(table.columns)))}@{{}}"


def _column(table: Table, fit: _Fit, index: int) -> str:
    points = fit.paragraph(table, index)
    return f"p{{{points:.1f}pt}}" if points < inf else _ALIGN[table.columns[index].align]


def _height(table: Table) -> int:
    """Lines of the table."""
    heads = sum(1 for spans in table.header() if any(span.text for span in spans))
    lines = [max(len(e.lines) for e in row) for row in (*table.rows, *table.footer)]
    return heads + sum(lines) + (len(lines) // 2 if max(lines, default=1) > 1 else 0)


def _explained(table: Table) -> list[str]:
    told = table.explained()
    lines = [words(said) for said in told[:_NOTES]]
    if len(told) > _NOTES:
        lines.append(f"{len(told) - _NOTES} more notes: see the CSV file.")
    if not lines:
        return []
    head = r"\par\smallskip\noindent\begin{minipage}{\linewidth}\raggedright"
    return [head, r" \quad ".join(map(_breakable, lines)), r"\end{minipage}"]


# --------------------------------------------------------------------------- headings


def _head(table: Table, fit: _Fit) -> Iterator[str]:
    """The headings of each level over their rules."""
    header = table.header()
    for spans in header[:-1]:
        if any(span.text for span in spans):
            yield " & ".join(_group(table, span, fit) for span in spans) + r" \\"
            yield " ".join(_rule(span) for span in spans if span.text)
    yield " & ".join(_name(table, span, fit) for span in header[-1]) + r" \\"


def _group(table: Table, span: Heading, fit: _Fit) -> str:
    """A heading over columns, in lines no wider than they are."""
    if not span.text:
        return " & ".join([""] * span.width)
    columns = range(span.first, span.first + span.width)
    most = sum(fit.measure(table, index) for index in columns) - 2 * fit.gap
    lines = _wrapped(span.text, most / fit.size)
    return rf"\multicolumn{{{span.width}}}{{c}}{{{_stack(lines, 'c', '')}}}"


def _name(table: Table, span: Heading, fit: _Fit) -> str:
    if fit.paragraph(table, span.first) < inf:
        return rf"\raggedright {_breakable(latex(span.text))}{table.letters(span.notes, _LETTERS)}"
    align = _ALIGN[table.columns[span.first].align]
    lines = _wrapped(span.text, fit.naturals[table.columns[span.first].heads])
    return _stack(lines, align, table.letters(span.notes, _LETTERS))


def _stack(lines: Sequence[str], align: str, after: str) -> str:
    """Lines below each other, the last of them with what stands after it."""
    shown = [latex(line) for line in lines]
    shown[-1] += after
    if len(shown) == 1:
        return shown[0]
    return rf"\shortstack[{align}]{{" + r"\\".join(shown) + "}"


def _rule(span: Heading) -> str:
    return rf"\cmidrule(lr){{{span.first + 1}-{span.first + span.width}}}"


# --------------------------------------------------------------------------- rows


def _body(table: Table, fit: _Fit) -> Iterator[str]:
    tall = any(len(entry.lines) > 1 for row in table.rows for entry in row)
    set_row = partial(_row, table, fit, _longest_scripts(table))
    for number, group in enumerate(table.groups):
        if number:
            yield r"\midrule"
        if group.title:
            title = rf"\raggedright\textit{{{_breakable(latex(group.title))}}}"
            across = f"@{{}}p{{{_width(table, fit):.1f}pt}}@{{}}"
            yield rf"\multicolumn{{{len(table.columns)}}}{{{across}}}{{{title}}} \\"
        for place, row in enumerate(group.rows):
            yield from [r"\addlinespace"] * bool(place and tall)
            yield from set_row(row)
    if table.footer:
        yield r"\midrule"
        for row in table.footer:
            yield from set_row(row)


def _row(
    table: Table, fit: _Fit, scripts: Sequence[_Scripts], row: Sequence[TableCell]
) -> Iterator[str]:
    for level in range(max(len(entry.lines) for entry in row)):
        cells = [e.lines[level] if level < len(e.lines) else TableCell() for e in row]
        lines = (
            _line(table, fit.paragraph(table, index) < inf, longest, cell)
            for index, (cell, longest) in enumerate(zip(cells, scripts, strict=True))
        )
        yield " & ".join(lines) + r" \\"


def _line(table: Table, broken: bool, longest: _Scripts, cell: TableCell) -> str:
    shown = words(cell.text)
    if broken:
        shown = rf"\raggedright {_breakable(shown)}" if shown else ""
    return (
        _MARKS[cell.mark].format(shown)
        + _scripts(longest, cell)
        + table.letters(cell.notes, _LETTERS)
    )


def _scripts(longest: _Scripts, cell: TableCell) -> str:
    """What stands after a number, its spread below and its star above at the same place.

    Spreads of a column are made as wide as the widest, so that its numbers stand under each other.
    """
    below, above = _script(cell, "subscript"), _script(cell, "superscript")
    widest, stars = longest
    if not widest:  # of differences: the star is a place of its own
        space = "*" * (stars - len(above)) if cell.value is not None else ""
        space = rf"\phantom{{{space}}}" if space else ""
        return f"$^{{{above.translate(_MATH)}{space}}}$" if above or space else ""
    if not below and not above:
        return ""
    space = rf"\phantom{{{'0' * (widest - len(below))}}}" if widest > len(below) else ""
    star = f"^{{{above.translate(_MATH)}}}" if above else ""
    return f"$_{{{below.translate(_MATH)}{space}}}{star}$"


_Scripts = tuple[int, int]
"""Letters of the longest spread, and of the longest star, of a column."""


def _longest_scripts(table: Table) -> list[_Scripts]:
    found = [(0, 0)] * len(table.columns)
    for row in table.rows:
        for index, cell in enumerate(row):
            if cell.after:
                below, above = found[index]
                below = max(below, len(_script(cell, "subscript")))
                found[index] = below, max(above, len(_script(cell, "superscript")))
    return found


def _script(cell: TableCell, style: str) -> str:
    return "".join(inline.text for inline in cell.after if inline.style == style)


def _breakable(shown: str) -> str:
    """LaTeX in which a long word may be broken after signs, and after so many letters."""
    broken = shown.replace(r"}\texttt{", r"}\allowbreak{}\texttt{")
    broken = re.sub(r"(\\_|[/=:.,]|(?<!-)-(?!-))(?=[^\W\d]|\\)", r"\1\\allowbreak{}", broken)
    return re.sub(rf"([^\W\d_]{{{_WHOLE}}})(?=[^\W\d_]{{4}})(?![a-z]*\{{)", r"\1\\-", broken)
