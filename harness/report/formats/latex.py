"""A table as LaTeX with booktabs, for a paper as it is."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import text
from harness.report.table import Column, Entry, Mark, RowGroup, Span, Table, stacked

#: Columns past which a table spans both columns of a paper, with differences under their means.
WIDE = 7


def to_latex(table: Table) -> str:
    r"""A floating table that needs `\usepackage{booktabs}` and nothing else.

    One with many columns is set across the page, with each column that may stand below another
    on a second line.
    """
    wide = len(table.columns) > WIDE
    shown = stacked(table) if wide else table
    folded = len(shown.columns) < len(table.columns)
    environment = "table*" if wide else "table"
    align = "".join("r" if column.numeric else "l" for column in shown.columns)
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{text.latex(table.caption + _second_lines(table, folded=folded))}}}",
        rf"\label{{{table.label}}}",
        r"\footnotesize" if wide else r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        *_head(shown),
        r"\midrule",
        *_body(shown),
        *([r"\midrule"] if shown.footer else []),
        *[line for row in shown.footer for line in _row(shown, row)],
        r"\bottomrule",
        r"\end{tabular}",
        *_notes(table),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


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


def _heading(table: Table, span: Span) -> str:
    words = text.latex(span.text) + _superscript(table.numbers(span.notes))
    if span.width == 1 and not _centred(table.columns[span.first], span):
        return words
    return rf"\multicolumn{{{span.width}}}{{c}}{{{words}}}"


def _centred(column: Column, span: Span) -> bool:
    """Whether a heading over a single column stands above other headings."""
    return bool(span.text) and span.text != column.heads[-1]


def _rule(span: Span) -> str:
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
    title = rf"\textit{{{text.latex(group.title)}}}"
    return [rf"\multicolumn{{{len(table.columns)}}}{{@{{}}l}}{{{title}}} \\"]


def _row(table: Table, row: Sequence[Entry]) -> list[str]:
    lines = []
    for level in range(max(len(entry.lines) for entry in row)):
        cells = [e.lines[level] if level < len(e.lines) else Entry() for e in row]
        lines.append(" & ".join(_line(table, cell) for cell in cells) + r" \\")
    return lines


def _line(table: Table, entry: Entry) -> str:
    shown = text.latex(entry.text)
    if entry.mark is Mark.BEST:
        shown = rf"\textbf{{{shown}}}"
    elif entry.mark is Mark.SECOND:
        shown = rf"\underline{{{shown}}}"
    elif entry.mark is Mark.TIED:
        shown = rf"{shown}\rlap{{$^\approx$}}"
    return shown + _superscript(table.numbers(entry.notes))


def _superscript(numbers: Sequence[int]) -> str:
    return rf"\textsuperscript{{{','.join(map(str, numbers))}}}" if numbers else ""


def _notes(table: Table) -> list[str]:
    lines = [rf"{text.latex(remark)}\par" for remark in table.remarks]
    for number, note in enumerate(table.footnotes, 1):
        lines.append(rf"{_superscript([number])} {text.latex(note)}\par")
    if not lines:
        return []
    head = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright"
    return [head, *lines, r"\end{minipage}"]
