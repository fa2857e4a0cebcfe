"""A table value written down: LaTeX, Markdown, HTML, Typst and CSV, one module each.

A format escapes every word it is given and decides nothing: what is bold, missing or noted is in
the table.
"""

from __future__ import annotations

from harness.report.formats.html import to_html
from harness.report.formats.latex import to_latex
from harness.report.formats.markdown import to_markdown
from harness.report.formats.plain import csv_text, to_csv
from harness.report.formats.typst import to_typst

__all__ = ["csv_text", "to_csv", "to_html", "to_latex", "to_markdown", "to_typst"]
