"""Tables as LaTeX that a paper takes in as it is: no preamble, common packages alone."""

from __future__ import annotations

from collections.abc import Sequence

from harness.document.escaping import latex
from harness.document.latex_table import set_table
from harness.document.layout import LAYOUTS, NARROWEST, PaperLayout
from harness.document.table import Table

#: What a package's absence would be noticed by -> the package.
_PACKAGES = {
    r"\toprule": "booktabs",
    r"\begin{longtable}": "longtable",
    r"\checkmark": "amssymb",
}


def to_latex(title: str, tables: Sequence[Table], layout: PaperLayout = LAYOUTS[NARROWEST]) -> str:
    """Tables below each other, at most as wide as the text of `layout`.

    The title is a comment, as a paper has one of its own; so are the packages that are needed.
    """
    body = "\n".join(set_table(table, layout) for table in tables) + "\n"
    needs = [package for sign, package in _PACKAGES.items() if sign in body]
    head = [f"% {latex(title)}", *[rf"% \usepackage{{{name}}}" for name in needs]]
    if "longtable" in needs:
        head.append(r"% where the paper has two columns, \onecolumn before the first longtable")
    return "\n".join([*head, body])
