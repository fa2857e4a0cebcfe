"""A document as LaTeX that a paper takes in as it is: no preamble, booktabs and graphicx alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.document import blocks as b
from harness.document.blocks import Block, Document
from harness.document.escaping import latex
from harness.document.table import (
    Column,
    Heading,
    Mark,
    RowGroup,
    Table,
    TableCell,
    split,
    stacked,
    width,
)
from harness.document.text import Text, write

#: Letters that fit across a column of a paper in \\small, and across its page in \\footnotesize.
_COLUMN, _PAGE = 56, 128


_LEVELS = ("section", "subsection", "subsubsection", "paragraph")
_STYLES = {
    "strong": r"\textbf{{{}}}",
    "code": r"\texttt{{{}}}",
    "superscript": r"\textsuperscript{{{}}}",
    "subscript": r"$_{{\mbox{{\scriptsize {}}}}}$",
    "link": "{}",
}
_MARKS = {
    Mark.NONE: "{}",
    Mark.BEST: r"\textbf{{{}}}",
    Mark.SECOND: r"\underline{{{}}}",
    Mark.TIED: r"{}\rlap{{$^\approx$}}",
    Mark.MUTED: r"\textit{{{}}}",
}


def to_latex(document: Document) -> str:
    r"""Its blocks below each other; the title is a comment, as a paper has one of its own."""
    head = ["% " + latex(document.title), r"% \usepackage{booktabs}"]
    head += [r"% \usepackage{graphicx}"] if any(document.figures()) else []
    return "\n".join([*head, *_blocks(document.blocks, 0)]) + "\n"


def _blocks(blocks: Iterable[Block], level: int) -> Iterator[str]:
    for block in blocks:
        match block:
            case b.Section():
                if block.on_paper:
                    yield rf"\{_LEVELS[min(level, 3)]}{{{latex(block.title)}}}"
                    yield from _blocks(block.blocks, level + 1)
            case b.Paragraph():
                yield f"{words(block.text)}\n"
            case b.BulletList():
                items = (rf"\item {words(item)}" for item in block.items)
                yield "\n".join([r"\begin{itemize}", *items, r"\end{itemize}"])
            case b.Note():
                yield rf"\emph{{Note. {words(block.text)}}}" + "\n"
            case b.Code():
                lines = (rf"\texttt{{{latex(line)}}}\\" for line in block.lines.splitlines())
                yield "\n".join([r"{\raggedright\noindent", *lines, "}"])
            case b.Figure():
                yield _figure(block)
            case b.Details():
                yield f"{words(block.summary)}\n"
                yield from _blocks(block.blocks, level)
            case Table():
                yield _table(block)


def words(text: Text) -> str:
    """Words in a line, set apart as they ask for."""
    return write(text, latex, lambda inline: _STYLES[inline.style].format(latex(inline.text)))


def _figure(figure: b.Figure) -> str:
    environment = "figure*" if figure.wide else "figure"
    return "\n".join(
        [
            rf"\begin{{{environment}}}[t]",
            rf"\includegraphics[width=\linewidth]{{figures/{figure.name}}}",
            rf"\caption{{{latex(figure.caption)}}}",
            rf"\label{{fig:{figure.name}}}",
            rf"\end{{{environment}}}",
        ]
    )


def _table(table: Table) -> str:
    """A floating table.

    One too wide for a column is set across the page; one too wide for that with each column that
    may stand below another on a second line; what is still too wide as several, one below the
    other.
    """
    narrow = width(table) <= _COLUMN
    shown = table if width(table) <= _PAGE else stacked(table)
    folded = len(shown.columns) < len(table.columns)
    environment = "table" if narrow else "table*"
    tabulars = [_tabular(part) for part in split(shown, _PAGE)]
    lines = [
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{latex(table.caption + _second_lines(table, folded=folded))}}}",
        *([rf"\label{{{table.label}}}"] if table.label else []),
        r"\small" if narrow else r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        *tabulars[0],
        *[line for tabular in tabulars[1:] for line in [r"\par\medskip", *tabular]],
        *_explained(table),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)


def _tabular(table: Table) -> list[str]:
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    return [
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        *_head(table),
        r"\midrule",
        *_body(table),
        *([r"\midrule"] if table.footer else []),
        *[line for row in table.footer for line in _row(table, row)],
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _second_lines(table: Table, *, folded: bool) -> str:
    names = list(dict.fromkeys(column.heads[-1] for column in table.columns if column.below))
    return f" Second lines: {', '.join(names)}." if folded else ""


def _head(table: Table) -> list[str]:
    """The headings of each level over their rules."""
    lines: list[str] = []
    for spans in table.header():
        if not any(span.text for span in spans):
            continue
        lines.append(" & ".join(_heading(table, span) for span in spans) + r" \\")
        rules = [_rule(span) for span in spans if span.text and span.width > 1]
        lines += [" ".join(rules)] if rules else []
    return lines


def _heading(table: Table, span: Heading) -> str:
    words = latex(span.text) + _notes(table, span.notes)
    if span.width == 1 and not _centred(table.columns[span.first], span):
        return words
    return rf"\multicolumn{{{span.width}}}{{c}}{{{words}}}"


def _centred(column: Column, span: Heading) -> bool:
    """Whether a heading over a single column stands above other headings."""
    return bool(span.text) and span.text != column.heads[-1]


def _rule(span: Heading) -> str:
    return rf"\cmidrule(lr){{{span.first + 1}-{span.first + span.width}}}"


def _body(table: Table) -> list[str]:
    tall = any(len(entry.lines) > 1 for row in table.rows for entry in row)
    lines: list[str] = []
    for number, group in enumerate(table.groups):
        if number:
            lines.append(r"\midrule" if group.title else r"\addlinespace")
        lines += _title(table, group)
        for place, row in enumerate(group.rows):
            lines += [r"\addlinespace"] if place and tall else []
            lines += _row(table, row)
    return lines


def _title(table: Table, group: RowGroup) -> list[str]:
    if not group.title:
        return []
    title = rf"\textit{{{latex(group.title)}}}"
    return [rf"\multicolumn{{{len(table.columns)}}}{{@{{}}l}}{{{title}}} \\"]


def _row(table: Table, row: Sequence[TableCell]) -> list[str]:
    lines = []
    for level in range(max(len(entry.lines) for entry in row)):
        cells = [e.lines[level] if level < len(e.lines) else TableCell() for e in row]
        lines.append(" & ".join(_line(table, cell) for cell in cells) + r" \\")
    return lines


def _line(table: Table, cell: TableCell) -> str:
    return _MARKS[cell.mark].format(words(cell.text)) + _notes(table, cell.notes)


def _notes(table: Table, notes: Iterable[str]) -> str:
    letters = table.letters(notes)
    return rf"\textsuperscript{{{letters}}}" if letters else ""


def _explained(table: Table) -> list[str]:
    lines = [rf"{words(said)}\par" for said in table.explained()]
    if not lines:
        return []
    head = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright"
    return [head, *lines, r"\end{minipage}"]
