"""report.html in a real browser: it sorts, shows the runs behind a number, and asks for nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from report_records import T2I, Records, fill, runs_by, sweep_of

from harness.config.sweep import Run
from harness.document.blocks import Document
from harness.document.html import to_html
from harness.document.table import Column, RowGroup, Table, TableCell
from harness.document.text import Inline
from harness.report.folder import build
from harness.store.state import State
from tests.browser import (
    DESK,
    FAINTEST,
    NARROW,
    PHONE,
    asked,
    chromium,
    complaints,
    prefer,
    view_size,
)

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVIL = (
    '</td></script><img src=x onerror="window.owned=1"><script>window.owned=2</script>'
    "<a href='http://198.51.100.7/'>'\"{{ 7*7 }}"
)
DEPTHS = [1, 2, 4, 8, 12]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """A report with a failed run, a hole, and names, an error and a log that try to be markup."""
    root = tmp_path_factory.mktemp("page")
    sweep = sweep_of({"model.text.layers": DEPTHS}, metrics=[T2I],
                     baseline={"model.text.layers": 12},
                     labels={"model.text.layers": EVIL},
                     names={EVIL: {"model.text.layers": 4}})  # fmt: skip
    sweep = replace(sweep, question=EVIL, name=f"evil {EVIL}")
    runs, at = runs_by(sweep)
    with mock.patch("os.fsync"), ExitStack() as held:
        records = Records(root, held)
        fill(records, runs, skip=((2, 1), (8, 0)))
        failed = records.failed(at(2, 1), failure=EVIL, error=f"ValueError: {EVIL}")
        failed.write_status(State.FAILED, attempt=1, samples_seen=5, failure=EVIL,
                            error=f"ValueError: {EVIL}", log=f"/logs/{EVIL}.txt")  # fmt: skip
        build(sweep, runs, records.store, root / "report")
    return root / "report" / "report.html", runs


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driven:
        yield driven


@pytest.fixture
def page(browser: Chrome, report: tuple[Path, list[Run]]) -> Chrome:
    """The page, freshly opened, with what was logged before forgotten."""
    browser.get("about:blank")
    complaints(browser)
    asked(browser)
    browser.get(report[0].as_uri())
    return browser


def column(page: Chrome, number: int) -> list[str]:
    """The first line of each cell of a column of the table of results, as it is seen."""
    return page.execute_script(
        "return [...document.querySelector('table.results').tBodies].flatMap(b => [...b.rows])"
        ".map(row => row.cells[arguments[0]].innerText.split('\\n')[0])",
        number,
    )


def click_head(page: Chrome, words: str) -> int:
    """Click the heading of the table of results that begins so; returns its column."""
    return page.execute_script(
        "const heads = [...document.querySelector('table.results thead').rows].at(-1).cells;"
        "const head = [...heads].find(h => h.innerText.startsWith(arguments[0]));"
        "head.querySelector('button').click(); return head.cellIndex;",
        words,
    )


def test_no_complaint_and_nothing_asked_for_but_the_page(
    page: Chrome, report: tuple[Path, list[Run]]
) -> None:
    page.execute_script("document.querySelector('table.results td a').click()")

    assert page.execute_script("return document.getElementById('detail').open")
    assert complaints(page) == []
    assert asked(page) == {report[0].as_uri()}


def test_the_policy_lets_no_page_reach_out(page: Chrome) -> None:
    page.execute_script("fetch('http://198.51.100.7/').catch(() => {})")

    assert any("Content Security Policy" in line for line in complaints(page))
    assert not [url for url in asked(page) if "198.51.100.7" in url]


def test_a_click_on_a_heading_sorts_by_number_and_keeps_holes_below(page: Chrome) -> None:
    at = click_head(page, "T2I")
    up = column(page, at)
    click_head(page, "T2I")
    down = column(page, at)

    means = ["30.3", "38.3", "40.2"]
    assert [cell[:4] for cell in up[:3]] == means
    assert [cell[:4] for cell in down[:3]] == means[::-1]
    assert [cell[0] for cell in up[3:] + down[3:]] == ["\u2014"] * 4, "depths 2 and 8 lack a seed"


def test_numbers_sort_as_numbers(page: Chrome) -> None:
    at = click_head(page, "</td>")

    assert column(page, at) == ["1", "2", "4", "8", "12"]


def test_every_link_resolves_within_the_page_or_beside_it(
    page: Chrome, report: tuple[Path, list[Run]]
) -> None:
    links: list[str] = page.execute_script(
        "return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
    )
    within = [link for link in links if link.startswith("#")]
    broken: list[str] = page.execute_script(
        "return arguments[0].filter(h => !document.getElementById(h.slice(1)))", within
    )

    assert len(within) > 40
    assert broken == []
    beside = {link for link in links if not link.startswith("#")}
    folder = report[0].parent
    assert [link for link in beside if not (folder / link).is_file()] == []
    figures = {f"figures/{file.name}" for file in (folder / "figures").iterdir()}
    assert figures <= beside, "every file of every figure"
    assert {"table.tex", "table.csv"} <= beside


def test_a_table_is_copied_as_latex(page: Chrome, report: tuple[Path, list[Run]]) -> None:
    page.execute_script(
        "navigator.clipboard.writeText = async (text) => { window.taken = text; };"
        "document.querySelector('button.copy').click()"
    )

    taken: str = page.execute_script("return window.taken")
    written = (report[0].parent / "table.tex").read_text()
    assert taken.partition("\\toprule")[2] == written.partition("\\toprule")[2] != ""


def test_the_first_column_stays_and_the_caption_is_not_scrolled(page: Chrome) -> None:
    view_size(page, NARROW)

    before, after, caption = page.execute_script(
        """const table = document.querySelector('table.results'), box = table.closest('.scroll');
        const left = () => table.tBodies[0].rows[0].cells[0].getBoundingClientRect().left;
        const before = left(); box.scrollLeft = 200;
        const caption = document.querySelector('p.caption');
        return [before, left(), caption.closest('.scroll') === null && box.scrollLeft > 0];"""
    )

    assert before == pytest.approx(after, abs=1)
    assert caption


SCHEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [NARROW, DESK], ids=["400", "1280"])
def test_nothing_is_wider_than_the_page_and_all_text_is_told_from_its_ground(
    page: Chrome, size: tuple[int, int], scheme: str
) -> None:
    prefer(page, scheme)
    view_size(page, size)
    for_all = "document.querySelectorAll('details').forEach(d => { d.open = true; });"

    wide, shown, out = page.execute_script(for_all + WIDER)
    assert wide <= shown
    assert out == []
    ground: str = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == SCHEMES[scheme]
    assert page.execute_script(FAINTEST) >= 4.5, "the contrast of WCAG AA"
    tops: list[int] = page.execute_script(
        "return [...document.querySelectorAll('.figures > figure')].slice(0, 2)"
        ".map(f => Math.round(f.getBoundingClientRect().top))"
    )
    assert (len(set(tops)) == 1) is (size == DESK), "side by side where there is room"


@pytest.mark.parametrize("switches", [0, 3])
def test_twelve_metrics_fit_a_window_of_1280(
    browser: Chrome, tmp_path: Path, switches: int
) -> None:
    """Beside three switches they are wider than it, and so in two parts."""
    names = ["T2I R@1", "I2T R@1", "mean recall", "role", "gender", "skin_tone", "average",
             "grounding (%)", "grounding gap (cosine)", "localisation (%)", "fusion gain (nats)",
             "MLM loss (nats)"]  # fmt: skip
    heads = [("Retrieval (%)", name) for name in names[:3]]
    heads += [("Zero-shot classification acc@1 (%)", name) for name in names[3:7]]
    heads += [("Objectives", f"validation {name}") for name in names[7:]]
    checked = [
        Column((name,), numeric=False, centred=True, notes=("\u2713: 0.5",))
        for name in ("softened mass", "token weight", "MLM weight")[:switches]
    ]
    columns = (Column(("",), numeric=False), *checked, *map(Column, heads))
    star = Inline("" if switches else "*", "superscript")
    shown = [("28.9", "2.5")] * 7 + [("96.6", "0.7"), ("0.2699", "0.0091"), ("68.6", "1.2")]
    shown += [("0.1349", "0.0023"), ("3.870", "0.027")]
    cells = tuple(TableCell(mean, after=(Inline(f"\u00b1{sd}", "subscript"), star))
                  for mean, sd in shown)  # fmt: skip
    checks = [TableCell("\u2713")] * switches
    row = (TableCell("CLIP + token matching"), *checks, *cells)

    parts = parts_at_desk(browser, tmp_path / "wide.html", columns, row)

    assert all(part["wide"] <= part["room"] for part in parts)
    assert len(parts) == 1 + (switches > 0)


def test_differences_that_have_no_room_on_a_line_stand_below_one_another(
    browser: Chrome, tmp_path: Path
) -> None:
    checks = ["softened mass", "token weight", "MLM weight"]
    heads = [("Retrieval (%)", f"\u0394 {name}") for name in ("T2I R@1", "I2T R@1", "mean recall")]
    heads += [("Zero-shot classification acc@1 (%)", f"\u0394 {name}")
              for name in ("role", "gender", "skin_tone", "average")]  # fmt: skip
    columns = (
        Column(("",), numeric=False),
        *(Column((name,), numeric=False, centred=True) for name in checks),
        *map(Column, heads),
    )
    star = Inline("*", "superscript")
    difference = TableCell("+10.5 [\u22126.0, 13.7]", after=(star,))
    row = (TableCell("CLIP + token matching"), *[TableCell("\u2713")] * 3, *[difference] * 7)

    parts = parts_at_desk(browser, tmp_path / "differences.html", columns, row)

    assert all(part["wide"] <= part["room"] for part in parts)
    assert [part["above"] for part in parts] == [["Retrieval (%)"], [heads[-1][0]]]
    assert {part["named"] for part in parts} == {"CLIP + token matching"}


def parts_at_desk(
    browser: Chrome, file: Path, columns: tuple[Column, ...], row: tuple[TableCell, ...]
) -> list[dict[str, Any]]:
    """Room and width of each part of a table of three such rows, its headings and first name."""
    table = Table(columns, (RowGroup((row,) * 3),), caption="Wide.", label="tab:wide")
    file.write_bytes(to_html(Document("Wide", (table,))))
    view_size(browser, DESK)
    browser.get(file.as_uri())
    found: list[dict[str, Any]] = browser.execute_script(
        """return [...document.querySelectorAll('.scroll')].map((box) => ({
          room: box.clientWidth, wide: box.scrollWidth,
          above: [...box.querySelectorAll('th[scope=colgroup]')].map((e) => e.textContent),
          named: box.querySelector('tbody td').textContent,
        }));"""
    )
    return found


#: Widths of the page and its window, and what reaches out though nothing scrolls it.
WIDER = """
const room = document.documentElement.clientWidth;
const out = [...document.querySelectorAll('body *')].filter((e) => {
  const box = e.getBoundingClientRect();
  return !e.closest('.scroll, pre, dialog') && box.width && (box.right > room + 1 || box.left < -1);
});
return [document.documentElement.scrollWidth, room, out.map((e) => e.tagName + '.' + e.className)];
"""


def test_a_number_opens_its_runs_with_configuration_curve_and_provenance(
    page: Chrome, report: tuple[Path, list[Run]]
) -> None:
    keys = [run.key for run in report[1] if run.config.model.text.layers == 1]
    page.execute_script(
        "[...document.querySelectorAll('table.results td.number a')]"
        ".find(a => a.innerText.startsWith('30.3')).click()"
    )

    shown: str = page.execute_script("return document.getElementById('detail').textContent")

    assert "The 3 runs behind this number" in shown
    assert all(f"results/runs/{key}" in shown for key in keys)
    assert "0123456789abcdef0123456789abcdef01234567" in shown, "the commit"
    assert "model.text.width" in shown
    assert page.execute_script("return document.querySelectorAll('#detail svg path.line').length")
    recorded = json.loads(
        (report[0].parent.parent / "results/runs" / keys[0] / "result.json").read_text()
    )
    (evaluation,) = recorded["evaluations"].values()
    assert f"{T2I}{evaluation['metrics'][T2I]['value']}" in shown


def test_a_hole_opens_the_run_that_failed(page: Chrome) -> None:
    page.execute_script("document.querySelector('#missing-results a[href^=\"#run-\"]').click()")

    shown: str = page.execute_script("return document.getElementById('detail').textContent")

    assert "failed" in shown
    assert EVIL in shown
    assert page.execute_script("return window.owned ?? null") is None


def test_names_errors_and_logs_are_shown_and_never_markup(page: Chrome) -> None:
    seen: str = page.execute_script("return document.body.innerText")
    images: list[str] = page.execute_script("return [...document.images].map(i => i.src)")

    assert page.execute_script("return window.owned ?? null") is None
    assert page.execute_script("return document.scripts.length") == 2
    assert all(source.startswith("data:image/svg+xml;base64,") for source in images)
    assert page.execute_script("return [...document.images].every(i => i.naturalWidth > 0)")
    assert page.execute_script("return document.title") == EVIL
    assert page.execute_script("return document.querySelector('h1').textContent") == EVIL
    assert f"ValueError: {EVIL}" in seen
    assert EVIL in column(page, 0)


def test_a_phone_scrolls_tables_and_never_the_page(page: Chrome) -> None:
    view_size(page, PHONE)

    width, shown = page.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )

    assert width <= shown
