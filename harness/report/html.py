"""The report as one page for a browser: report.html, with nothing to fetch.

Every word goes through jinja2's escaping; what the script shows of a run is data in a block of its
own, put into the page as text.  The page's own policy runs no script but the one it came with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.report import formats, text
from harness.report.collect import Collection
from harness.report.content import Content
from harness.report.run_data import run_data
from harness.report.table import Table, stacked

#: Columns past which a table is too wide for a window.
_WIDE = 9
#: Where the data of the runs goes; no foreign text has a bracket by the time it is in the page.
_DATA = "<!--runs-->"


def to_html(content: Content, collection: Collection, pictures: Mapping[str, bytes]) -> bytes:
    """The whole page.

    Args:
        pictures: drawing name -> SVG.
    """
    table = Markup(formats.to_html(_for_page(content.table), _first_run))
    return page_of_runs("report.html.j2", collection, pictures, c=content, table=table)


def page_of_runs(
    template: str, collection: Collection | None, pictures: Mapping[str, bytes], **values: Any
) -> bytes:
    """`template` with its pictures, and with the data of the runs, if there are any, in it.

    Args:
        pictures: drawing name -> SVG.
    """
    page = render(
        template,
        pictures={name: _data_uri(svg) for name, svg in pictures.items()},
        data=None if collection is None else Markup(_DATA),
        **values,
    ).encode()
    if collection is None:
        return page
    # The data of many runs is long, and in a text with any sign beyond ASCII twice as long.
    return page.replace(_DATA.encode(), run_data(collection).encode())


def render(template: str, **values: Any) -> str:
    """`template` with the style, the script and the policy that lets only that script run."""
    style, script = _asset("report.css"), _asset("report.js")
    environment = Environment(
        loader=PackageLoader("harness.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["flat"] = text.one_line
    environment.globals["dash"] = text.DASH
    page = environment.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'",
        **values,
    )
    return page.rstrip("\n") + "\n"


def _asset(name: str) -> str:
    return (files("harness.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _data_uri(svg: bytes) -> str:
    """An SVG that lies in the page itself; as an image it can run nothing."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _for_page(table: Table) -> Table:
    """With each difference below its mean where side by side they would not fit on a page."""
    return stacked(table) if len(table.columns) > _WIDE else table


def _first_run(keys: Sequence[str]) -> str:
    """Where a number leads without a script: to the first of its runs in the list of runs."""
    return f"#run-{keys[0]}"
