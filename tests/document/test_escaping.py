"""Foreign text survives every format, judged by independent readers of those formats."""

from __future__ import annotations

import csv
import io
import re

import pytest
from markdown_it import MarkdownIt

from harness.document import escaping, text

WEIRD = [
    "a|b",
    "a_b_c *bold* `code` ~~struck~~",
    "R&D <script>alert(1)</script> &amp;",
    "$x^2$ costs $5",
    "back\\slash \\| \\",
    "[link](http://x) [ref]: y ![i](j)",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "2) item",
    "=== ",
    "[x] task",
    "---",
    "- - -",
    "12. item",
    "7.",
    "#",
    "caf\u00e9 \u4e2d\u6587 \U0001f600 \u00b1 \u2212",
    "100 % {of} ~it~ \"quoted\" 'so'",
]


def shown(markdown: str) -> str:
    """The text that a Markdown reader shows of a table's cell."""
    table = f"| head |\n| --- |\n| {markdown} |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    inline = [token for token in tokens if token.type == "inline"]
    assert len(inline) == 2, "one heading and one cell"
    kinds = {child.type for child in inline[1].children or []}
    assert kinds <= {"text", "text_special", "code_inline"}, "foreign text made markup"
    return "".join(child.content for child in inline[1].children or [])


@pytest.mark.parametrize("given", WEIRD)
def test_markdown_cell_shows_the_text_itself(given: str) -> None:
    assert shown(escaping.markdown(given)) == given.strip()


@pytest.mark.parametrize("given", WEIRD)
def test_markdown_paragraph_and_list_show_the_text_itself(given: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for prefix, blocks in (("", 3), ("1. ", 7)):
        tokens = reader.parse(prefix + escaping.markdown(given))

        assert len(tokens) == blocks, "one paragraph, alone or in one item"
        inline = next(token for token in tokens if token.type == "inline")
        assert "".join(child.content for child in inline.children or []) == given.strip()


@pytest.mark.parametrize("given", ["plain", "a|b", "`", "a``b", "`a`", "/tmp/x_y|z"])
def test_code_span_shows_the_text_itself(given: str) -> None:
    assert shown(escaping.markdown_code(given)) == given


def test_line_breaks_and_control_characters_become_spaces() -> None:
    given = "a\nb\r\nc\td\u2028e\x00f\u202eg\ud800h"

    assert text.one_line(given) == "a b c d e fgh"
    assert "\n" not in escaping.latex(given) + escaping.markdown(given) + escaping.markdown_code(
        given
    )


@pytest.mark.parametrize(
    "given", ["\u22121.2 [\u22122.0, \u22120.3]", "+1.2 [0.3, 2.1]", "0.1", "38.3 \u00b1 0.7", "-1"]
)
def test_numbers_stay_readable_in_the_source(given: str) -> None:
    assert escaping.markdown(given) == given
    assert shown(given) == given


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a_b & 5% #1 {x}", r"a\_b \& 5\% \#1 \{x\}"),
        ("$x^2$ ~ \\", r"\$x\textasciicircum{}2\$ \textasciitilde{} \textbackslash{}"),
        ("\u22121.2 \u00b1 0.3 [a]", r"$-$1.2 $\pm$ 0.3 {[}a{]}"),
        ("caf\u00e9 \u4e2d", "caf\u00e9 \\texttt{U+4E2D}"),
        ('<a|b> "q"', r"\textless{}a\textbar{}b\textgreater{} ''q''"),
    ],
)
def test_latex_by_hand(given: str, expected: str) -> None:
    assert escaping.latex(given) == expected


@pytest.mark.parametrize("given", WEIRD)
def test_latex_leaves_no_special_character_and_balances_braces(given: str) -> None:
    written = escaping.latex(given)

    bare = re.sub(r"\\[&%$#_{}]|\\[a-z]+\{\}|\\texttt\{[^{}]*\}|\$(-|\\[a-zA-Z]+)\$", "", written)
    bare = bare.replace("{[}", "").replace("{]}", "")
    assert not set(bare) & set("&%$#_{}^\\|<>")


@pytest.mark.parametrize("given", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_text_that_a_spreadsheet_would_run_is_quoted(given: str) -> None:
    assert escaping.csv_field(given) == "'" + given


@pytest.mark.parametrize(
    ("given", "expected"),
    [(-1, -1), (-0.5, "-0.5"), (0.1 + 0.2, "0.30000000000000004"), (None, ""), (True, "true")],
)
def test_numbers_are_written_in_full_and_never_quoted(given: object, expected: object) -> None:
    assert escaping.csv_field(given) == expected
    assert escaping.csv_field(float("nan")) == ""


def test_csv_round_trip_of_weird_text() -> None:
    given = [*WEIRD, 'comma, "quote"', "line\nbreak"]
    written = escaping.csv_text(["text"], [[word] for word in given])

    read = [row[0] for row in csv.reader(io.StringIO(written, newline=""))]
    assert [word.removeprefix("'") for word in read[1:]] == given


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "expected"),
    [
        (-0.04, 1, True, "0.0"),
        (-1.25, 2, False, "\u22121.25"),
        (1.0, 1, True, "+1.0"),
        (12345.6, 1, False, "12,345.6"),
    ],
)
def test_numbers_have_a_true_minus_and_no_negative_zero(
    value: float, decimals: int, sign: bool, expected: str
) -> None:
    assert text.number(value, decimals, sign=sign) == expected
