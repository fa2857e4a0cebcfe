"""Files of published figures as rows: CSV in any separator, JSON, JSON lines, Markdown, LaTeX.

A row is what its columns are called -> what is printed there, without emphasis; what a column means
is for harness.report.external_import.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from harness.report.external import ExternalError, read_rows, text_of

Row = tuple[int, dict[str, str]]
"""The line of the file, counted from 1, and column -> cell."""

_NO_FIGURE = {"", "-", "\N{EN DASH}", "\N{EM DASH}", "/", "n/a", "na", "nan", "none", "null", "x"}
_NUMBER = r"\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?|[.,]\d+"
_PRINTED = re.compile(
    rf"(?P<value>{_NUMBER})\s*(?P<percent>%)?\s*"
    rf"(?:(?:\N{{PLUS-MINUS SIGN}}|\+/?-)\s*(?P<spread>{_NUMBER})\s*%?"
    rf"|\(\s*(?:\N{{PLUS-MINUS SIGN}}|\+/?-)?\s*(?P<inside>{_NUMBER})\s*%?\s*\))?"
)


def rows_of(data: bytes, name: str) -> list[Row]:
    """Every row of every table in a file; the format is told by the content.

    Raises:
        ExternalError: it is no text, or torn; the line is named.
    """
    text = text_of(data, name)
    if text.lstrip()[:1] in {"{", "["}:
        return _json_rows(text, name)
    if re.search(r"\\begin\s*\{tabular|\\begin\s*\{longtable", text):
        return list(_latex_rows(text, name))
    if re.search(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-+:?\s*)+\|?\s*$", text, re.MULTILINE):
        return list(_markdown_rows(text, name))
    return _csv_rows(text, name)


def printed_number(cell: str, where: str, *, percent: bool) -> tuple[str, str | None] | None:
    """The value as a fraction and the spread as it is printed; None for a dash or nothing.

    `62.8%`, `62.8 \N{PLUS-MINUS SIGN} 0.3` and `62,8 (0.3)` are 62.8; the decimal point is moved
    for a percentage, and no digit is rounded.

    Args:
        percent: whether all values are percentages, with a sign or without.
    """
    plain = cell.strip().rstrip("*\N{DAGGER}\N{DOUBLE DAGGER}").strip()
    if plain.casefold() in _NO_FIGURE:
        return None
    found = _PRINTED.fullmatch(plain)
    if found is None:
        raise ExternalError(f"{where}: value = {cell!r} is no number")
    value = found["value"].replace(",", ".")
    if percent or found["percent"]:
        value = str(Decimal(value).scaleb(-2).normalize())
    return value, found["spread"] or found["inside"]


# --------------------------------------------------------------------------- CSV and JSON


def _csv_rows(text: str, name: str) -> list[Row]:
    """By the separator that the first line has most of."""
    head = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    rows = read_rows(text, name, max(",;\t|", key=head.count))
    return [(line, row) for line, row in rows if any(cell.strip() for cell in row.values())]


def _row(columns: Sequence[str], cells: Sequence[str], where: str) -> dict[str, str]:
    if len(cells) != len(columns):
        raise ExternalError(
            f"{where}: this row has not as many cells as there are columns ({len(columns)})"
        )
    return dict(zip(columns, cells, strict=True))


def _json_rows(text: str, name: str) -> list[Row]:
    try:
        tree = json.loads(text, parse_float=str)
        found = [
            (n, entry) for n, entry in enumerate(tree if isinstance(tree, list) else [tree], 1)
        ]
        return [(n, _flat(entry, f"{name}, result {n}")) for n, entry in found]
    except ValueError as error:
        lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or not lines[0][1].rstrip().endswith("}"):
            raise ExternalError(f"{name} is not valid JSON: {error}") from None
    return [(n, _flat(_json_line(line, f"{name}:{n}"), f"{name}:{n}")) for n, line in lines]


def _json_line(line: str, where: str) -> Any:
    try:
        return json.loads(line, parse_float=str)
    except ValueError as error:
        raise ExternalError(f"{where} is not valid JSON: {error}") from None


def _flat(entry: Any, where: str) -> dict[str, str]:
    """An object as a row: what is in a section `metrics` stands beside the rest."""
    if not isinstance(entry, Mapping):
        raise ExternalError(f"{where} is no object with names and values")
    metrics = entry.get("metrics")
    values = {**entry, **metrics} if isinstance(metrics, Mapping) else entry
    return {
        str(key): str(value)
        for key, value in values.items()
        if value is not None and not isinstance(value, (Mapping, list))
    }


# --------------------------------------------------------------------------- Markdown


def _markdown_rows(text: str, name: str) -> Iterator[Row]:
    columns: list[str] | None = None
    before: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = _markdown_cells(line)
        if len(cells) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            columns = before
        elif columns is not None and len(cells) > 1:
            if len([cell for cell in cells if cell]) > 1:
                yield number, _row(columns, cells, f"{name}:{number}")
        elif not line.strip():
            columns = None
        before = cells


def _markdown_cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [_without_marks(cell.replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", inner)]


def _without_marks(cell: str) -> str:
    cell = re.sub(r"<su[bp]>\s*(.*?)\s*</su[bp]>", _raised, cell)
    cell = re.sub(r"<br\s*/?>", " ", cell)
    cell = re.sub(r"</?\w+[^>]*>|`", "", cell)
    cell = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell)
    cell = re.sub(r"(\*\*|__|~~)(.*?)\1", r"\2", cell)
    return re.sub(r"(?<![\w*])([*_])(\S.*?)\1(?![\w*])", r"\2", cell).strip()


def _raised(found: re.Match[str]) -> str:
    """What stands higher or lower is a spread if it is a number, else a footnote."""
    inside = found[1].replace("\N{PLUS-MINUS SIGN}", "").strip()
    return f" \N{PLUS-MINUS SIGN} {inside}" if re.fullmatch(_NUMBER, inside) else ""


# --------------------------------------------------------------------------- LaTeX

_TABULAR = re.compile(r"\\begin\s*\{(tabular\*?|tabularx|longtable)\}(.*?)\\end\s*\{\1\}", re.S)
_RULE = re.compile(r"\\(?:hline|toprule|midrule|bottomrule|endhead|endfirsthead)\b(?:\[[^\]]*\])?")
_MULTIROW = re.compile(
    r"\s*\\multirow\*?\s*(?:\[[^\]]*\])?\{(\d+)\}\s*\{[^{}]*\}\s*\{(.*)\}\s*$", re.S
)
_WORDLESS = re.compile(
    r"\\(?:cmidrule|cline|addlinespace|rowcolor|cellcolor|arrayrulecolor|label|footnotemark|footnote"
    r"|cite\w*|tnote|textsuperscript|vspace|noalign)\*?\s*(?:\([^)]*\))?(?:\[[^\]]*\])*"
    r"(?:\{[^{}]*\})?(?:\[[^\]]*\])?"
)
_SYMBOLS = {
    r"\%": "%", r"\_": "_", r"\&": "&", r"\#": "#", r"\pm": "\N{PLUS-MINUS SIGN}", r"\to": "->",
    r"\rightarrow": "->", r"\,": " ", r"\;": " ", r"\ ": " ", r"\dagger": "\N{DAGGER}", "~": " ",
    "---": "\N{EM DASH}", "--": "\N{EN DASH}",
}  # fmt: skip


def _latex_rows(text: str, name: str) -> Iterator[Row]:
    for found in _TABULAR.finditer(text):
        first = text.count("\n", 0, found.start(2)) + 1
        columns: list[str] = []
        seen_rule = "\\midrule" not in found[2] and len(_RULE.findall(found[2])) < 2
        heads: list[list[str]] = []
        for line, cells, rule in _latex_lines(found[2]):
            if not columns and rule and heads:
                columns = _joined(heads)
            if len(set(filter(None, cells))) < (2 if columns else 1):
                continue
            if columns:
                yield first + line, _row(columns, cells, f"{name}:{first + line}")
            else:
                heads.append(cells)
                columns = _joined(heads) if seen_rule else []


def _latex_lines(body: str) -> Iterator[tuple[int, list[str], bool]]:
    """(line, cells, whether a rule stands before) of each row of a tabular."""
    body = re.sub(r"(?<!\\)%[^\n]*", "", body)
    body = re.sub(r"^\s*(?:\[[^\]]*\])?(?:\{(?:[^{}]|\{[^{}]*\})*\}){1,2}", _blank, body)
    spent: dict[int, tuple[int, str]] = {}
    place = 0
    for part in _split(body, "\\\\"):
        indent = re.match(r"\s*(?:\[[^\]]*\])?(?:\s|" + _RULE.pattern + ")*", part)
        line = body.count("\n", 0, place + (0 if indent is None else indent.end()))
        place += len(part) + 2
        rule = bool(_RULE.search(part))
        inner = _RULE.sub("", re.sub(r"^\s*\[[^\]]*\]", "", part))
        cells = [c for cell in _split(inner, "&") for c in _spanned(cell)]
        yield line, [_carried(spent, n, cell) for n, cell in enumerate(cells)], rule


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def _split(text: str, mark: str) -> list[str]:
    """`text` at each `mark` outside of braces."""
    parts, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if depth == 0 and text.startswith(mark, place) and text[place - 1 : place] != "\\":
            parts.append(text[start:place])
            place = start = place + len(mark)
            continue
        if text[place] == "\\":
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        place += 1
    return [*parts, text[start:]]


def _spanned(cell: str) -> list[str]:
    """A cell as often as it has columns."""
    found = re.match(r"\s*\\multicolumn\s*\{(\d+)\}\s*\{[^{}]*\}\s*\{(.*)\}\s*$", cell, re.S)
    return [cell] if found is None else [found[2]] * int(found[1])


def _carried(spent: dict[int, tuple[int, str]], column: int, cell: str) -> str:
    """The text of a cell; that of a \\multirow above it, where it is empty."""
    found = _MULTIROW.match(cell)
    if found is not None:
        spent[column] = (int(found[1]) - 1, _latex_text(found[2]))
        return spent[column][1]
    left, text = spent.get(column, (0, ""))
    own = _latex_text(cell)
    if own or left < 1:
        return own
    spent[column] = (left - 1, text)
    return text


def _latex_text(cell: str) -> str:
    """What a reader sees of a cell."""
    cell = _WORDLESS.sub("", cell)
    for mark, shown in _SYMBOLS.items():
        after = r"(?![A-Za-z])" if mark[-1].isalpha() else ""
        cell = re.sub(re.escape(mark) + after, shown, cell)
    cell = re.sub(r"[\^_]\{?\s*\\?\w*\{?\\?(?=\N{PLUS-MINUS SIGN})", "", cell)
    cell = re.sub(r"\^\{?[^}\s]*\}?", "", cell)
    cell = re.sub(r"\\[A-Za-z]+\*?\s*", "", cell)
    return " ".join(re.sub(r"[${}]", "", cell).split())


def _joined(heads: Iterable[Sequence[str]]) -> list[str]:
    """One name a column of header rows above one another."""
    rows = list(heads)
    width = max(map(len, rows))
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    return [" ".join(filter(None, dict.fromkeys(parts))) for parts in zip(*padded, strict=True)]
