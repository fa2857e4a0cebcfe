"""report.pdf: pages, text that survives, the same bytes twice, nothing set over anything else."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typst
from PIL import Image
from pypdf import PdfReader
from report_records import I2T, T2I, Records, fill, runs_by, sweep_of

from harness.config.sweep import Run, Sweep
from harness.report.folder import build

SPECIALS = r"# $x$ @ref *b* _i_ <label> \ ~ #panic() `c` // [y] é → 中"


def named(words: str) -> Sweep:
    sweep = sweep_of(
        {"model.text.layers": [1, 2, 4, 8, 12]},
        metrics=[T2I, I2T],
        baseline={"model.text.layers": 12},
        names={words: {"model.text.layers": 4}},
    )
    return replace(sweep, question=f"What of {words}?", name=words)  # fmt: skip


@pytest.fixture
def made(records: Records, tmp_path: Path) -> tuple[Sweep, list[Run], Path]:
    """A sweep whose names hold every special of Typst, with a failed run."""
    sweep = named(SPECIALS)
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1),))
    records.failed(at(2, 1), failure="bug", error=f"torch.{'Very' * 12}LongError: {SPECIALS}")
    build(sweep, runs, records.store, tmp_path / "report")
    return sweep, runs, tmp_path / "report" / "report.pdf"


def text_of(file: Path) -> str:
    """All words of all pages; a line may have been broken anywhere, so without any space."""
    pages = PdfReader(io.BytesIO(file.read_bytes())).pages
    words = " ".join(page.extract_text() for page in pages)
    return "".join(words.replace("\u200b", "").split())


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_specials_survive_in_title_name_and_error(made: tuple[Sweep, list[Run], Path]) -> None:
    text = text_of(made[2])

    printable = "".join(SPECIALS.replace("中", "").split())
    assert f"Whatof{printable}" in text
    assert f"LongError:{printable}" in text
    assert text.count(printable) >= 4, "title, footer, table and error"


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_the_same_records_give_the_same_pdf(
    made: tuple[Sweep, list[Run], Path], records: Records, tmp_path: Path
) -> None:
    sweep, runs, file = made
    build(sweep, runs, records.store, tmp_path / "again")

    data = file.read_bytes()
    assert data.startswith(b"%PDF")
    assert (tmp_path / "again" / "report.pdf").read_bytes() == data


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_every_part_of_a_paper_is_in_it(made: tuple[Sweep, list[Run], Path]) -> None:
    text = text_of(made[2])

    for heading in ("Design:", "Allmetrics", "Furtherfigures", "Protocol", "Time"):
        assert heading in text
    assert "smallestdetectabledifference" in text, "what the design can see"
    assert "Table1:" in text
    assert "Figure1:" in text
    pages = PdfReader(io.BytesIO(made[2].read_bytes())).pages
    assert 2 <= len(pages) <= 8
    assert {(round(float(p.mediabox.width)), round(float(p.mediabox.height))) for p in pages} == {
        (595, 842)
    }, "A4, upright"


# ---- figures


def figure_boxes(file: Path) -> list[list[tuple[float, float, float, float]]]:
    """Of each page the boxes (x0, y0, x1, y1) of the figures on it, in points, as they are set."""
    pages = []
    for page in PdfReader(io.BytesIO(file.read_bytes())).pages:
        forms = page["/Resources"].get("/XObject", {})
        found: list[tuple[float, float, float, float]] = []

        def keep(
            operator: bytes,
            operands: Sequence[Any],
            matrix: list[float],
            text: object,
            forms: Any = forms,
            found: list[tuple[float, float, float, float]] = found,
        ) -> None:
            if operator == b"Do" and forms[operands[0]]["/Subtype"] == "/Form":
                left, low, right, high = map(float, forms[operands[0]]["/BBox"])
                own = [float(n) for n in forms[operands[0]].get("/Matrix", (1, 0, 0, 1, 0, 0))]
                wide, tall = (right - left) * own[0], (high - low) * own[3]
                xs = sorted([matrix[4], matrix[4] + matrix[0] * wide])
                ys = sorted([matrix[5], matrix[5] + matrix[3] * tall])
                found.append((xs[0], ys[0], xs[1], ys[1]))

        page.extract_text(visitor_operand_before=keep)
        pages.append(found)
    return pages


def seen_pages(file: Path) -> list[Image.Image]:
    """Each page as it is seen, a pixel a point."""
    count = len(PdfReader(file).pages)
    source = file.parent / "pages.typ"
    source.write_text(
        "#set page(width: auto, height: auto, margin: 0pt)\n"
        + "\n#pagebreak()\n".join(f'#image("{file.name}", page: {n + 1})' for n in range(count))
    )
    drawn = typst.compile(str(source), root=str(file.parent), format="png", ppi=72)
    listed = drawn if isinstance(drawn, list) else [drawn]
    return [Image.open(io.BytesIO(data)).convert("L") for data in listed]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_every_figure_is_on_its_page_whole_in_order_and_in_its_own_shape(
    made: tuple[Sweep, list[Run], Path],
) -> None:
    file = made[2]
    text = (file.parent / "report.md").read_text()
    names = re.findall(r"\(figures/(\w+)\.png\)", text)
    pictures = [Image.open(file.parent / "figures" / f"{name}.png").convert("L") for name in names]

    placed = [(n, box) for n, boxes in enumerate(figure_boxes(file)) for box in boxes]
    pages = seen_pages(file)

    assert len(placed) == len(pictures) >= 4
    assert placed == sorted(placed, key=lambda each: (each[0], -each[1][3])), "in order"
    for (number, (x0, y0, x1, y1)), picture in zip(placed, pictures, strict=True):
        assert (x1 - x0) / (y1 - y0) == pytest.approx(picture.width / picture.height, rel=0.01)
        page = pages[number]
        assert 0 <= x0 <= x1 <= page.width
        assert 0 <= y0 <= y1 <= page.height
        place = [round(n) for n in (x0, page.height - y1, x1, page.height - y0)]
        seen = page.crop((place[0], place[1], place[2], place[3]))
        alike = np.corrcoef(_coarse(seen).ravel(), _coarse(picture).ravel())[0, 1]
        assert alike > 0.9, "cut off, or covered by something else"


def _coarse(picture: Image.Image) -> np.ndarray:
    """Brightness of a picture in 24 x 12 cells, in which the edges of letters do not count."""
    return np.asarray(picture.resize((24, 12), Image.Resampling.BOX), dtype=float)
