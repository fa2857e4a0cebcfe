"""A document as LaTeX that a paper takes in as it is: no preamble, common packages alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.document import blocks as b
from harness.document.blocks import Block, Document
from harness.document.escaping import latex
from harness.document.latex_table import set_table, words
from harness.document.layout import LAYOUTS, NARROWEST, PaperLayout
from harness.document.table import Table

_LEVELS = ("section", "subsection", "subsubsection", "paragraph")
#: What a package's absence would be noticed by -> the package.
_PACKAGES = {
    r"\toprule": "booktabs",
    r"\begin{longtable}": "longtable",
    r"\checkmark": "amssymb",
    r"\includegraphics": "graphicx",
}


def to_latex(document: Document, layout: PaperLayout = LAYOUTS[NARROWEST]) -> str:
    r"""Its blocks below each other, at most as wide as the text of `layout`.

    The title is a comment, as a paper has one of its own; so are the packages that it needs.
    """
    body = "\n".join(_blocks(document.blocks, 0, layout)) + "\n"
    needs = [package for sign, package in _PACKAGES.items() if sign in body]
    head = [f"% {latex(document.title)}", *[rf"% \usepackage{{{name}}}" for name in needs]]
    if "longtable" in needs:
        head.append(r"% where the paper has two columns, \onecolumn before the first longtable")
    return "\n".join([*head, body])


def _blocks(blocks: Iterable[Block], level: int, layout: PaperLayout) -> Iterator[str]:
    for block in blocks:
        match block:
            case b.Section():
                if block.on_paper:
                    yield rf"\{_LEVELS[min(level, 3)]}{{{latex(block.title)}}}"
                    yield from _blocks(block.blocks, level + 1, layout)
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
                yield from _blocks(block.blocks, level, layout)
            case Table():
                yield set_table(block, layout)


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
