"""What a stranger may put in a record, a name, a model's folder or an archive, with a marker file.

Every payload, if anything runs it, makes the file `MARKER` of the working directory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

MARKER = "ran-by-a-stranger"
TOUCH = f"touch {MARKER}"
PYTHON = f"import pathlib; pathlib.Path({MARKER!r}).touch()\n"

#: Shells, five markup languages, terminals, spreadsheets, options, paths, templates.
_SEEDS = (
    f"$({TOUCH})", f"`{TOUCH}`", f"; {TOUCH} ;", f"' ; {TOUCH} ; '", f'" ; {TOUCH} ; "',
    f"a\n{TOUCH}\n", f"| {TOUCH}", f"&& {TOUCH}", f"${{IFS}}$({TOUCH})", f"#\n{TOUCH}",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>",
    "</table></body>", "&lt;b&gt;", "[x](javascript:alert(1))", "![](http://e.example/x.png)",
    "| a | b |", "# head", "```", r"\input{/etc/passwd}", r"\write18{touch x}", "$x^2$", "%",
    "~^_&",
    '#eval("1+1")', '#read("/etc/passwd")', "*strong*", "@cite", "[[x]]", "[bold red]x[/]",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "a\rb", "\x08\x08", "\x00",
    "\x7f",
    "\u202eltr\u202c", "\u2066x\u2069", "\u200fx", "a\u2028b", "\ufeffx", "\ud800",
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201",
    "=cmd|' /C calc'!A0", '=HYPERLINK("http://e.example")',
    "--help", "-rf", "--root=/", "-o", "--name=x", "--", "-",
    "../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "~", "~root", "file:///etc/passwd",
    "{}", "{0}", "%s", "%n", "{{7*7}}", "${7*7}", "{x.__class__}",
    "", " ", "\t", "x" * 5000, "\U0001f600", "e\u0301" * 50, "NULL", "nan", "1e999",
)  # fmt: skip


def nasty(count: int = 200) -> list[str]:
    """A corpus of `count` strings: each of the seeds, then pairs of them."""
    pairs = (f"{a} {b}" for a, b in itertools.product(_SEEDS[:40], _SEEDS[10:60:7]))
    return list(itertools.islice(itertools.chain(_SEEDS, pairs), count))


def marked(*folders: Path) -> Iterator[Path]:
    """Every marker there is."""
    for folder in (Path.cwd(), *folders):
        yield from folder.rglob(MARKER)
