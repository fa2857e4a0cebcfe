"""report.pdf: pages, text that survives, the same bytes twice, nothing set over anything else."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from pypdf import PdfReader
from report_records import I2T, T2I, Records, fill, runs_by, sweep_of

from harness.config.sweep import Run, Sweep
from harness.report import build

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
