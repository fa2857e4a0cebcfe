"""The board in a real browser: what is on the page, and that it goes on with the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from board_cases import ERROR, EVIL, QUESTION, Root, Served, served

from tests.browser import (
    DESK,
    FAINTEST,
    PHONE,
    chromium,
    complaints,
    hosts_asked,
    prefer,
    view_size,
)

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driven:
        view_size(driven, DESK)
        yield driven


@pytest.fixture
def board(root: Root, browser: Chrome) -> Iterator[Served]:
    complaints(browser)
    hosts_asked(browser)
    with served(root.path) as up:
        yield up
        browser.get("about:blank")


def wait(browser: Chrome, condition: Callable[[Chrome], Any]) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60, poll_frequency=0.1).until(condition)


def text_of(browser: Chrome, selector: str = "main") -> str:
    return str(
        browser.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
    )


def shows(browser: Chrome, *words: str, within: str = "main") -> None:
    """Return when the page shows all of these."""
    wait(browser, lambda page: all(word in text_of(page, within) for word in words))


def points_drawn(browser: Chrome) -> int:
    """Points of the first picture that has been drawn."""
    script = "return Number(document.querySelector('.plot[data-points]')?.dataset.points ?? 0)"
    return int(browser.execute_script(script))


def line_of_the_curve(browser: Chrome) -> str:
    """The path that was drawn for the first curve."""
    script = "return document.querySelector('.scatterlayer path.js-line')?.getAttribute('d') ?? ''"
    return str(browser.execute_script(script))


def test_from_all_sweeps_to_a_curve_that_grows_with_its_file(
    board: Served, root: Root, browser: Chrome
) -> None:
    browser.get(board.at("/"))
    shows(browser, "depth", "1 done", "1 failed (bug 1)", "1 running", "50")
    assert browser.title == "Board"
    browser.find_element("link text", "depth").click()
    shows(browser, "Training curves", "running: train", "failed: bug")
    shows(browser, "Failures by cause", "1 run, bug", ERROR)
    shows(browser, EVIL, "25.0", within=".points tbody tr")
    shows(browser, "No report yet: python -m harness.report depth", within="p.report")
    wait(browser, lambda page: points_drawn(page) == 5)
    before = wait(browser, line_of_the_curve)
    for samples in (600, 700):
        root.grow(samples)
    wait(browser, lambda page: points_drawn(page) == 7)
    wait(browser, lambda page: line_of_the_curve(page) not in {"", before})
    shows(browser, "70%")
    assert complaints(browser) == []
    assert hosts_asked(browser) == {f"127.0.0.1:{board.port}"}


def test_from_a_sweep_to_its_report(board: Served, root: Root, browser: Chrome) -> None:
    report = root.path / "reports" / "depth" / "report.html"
    report.parent.mkdir(parents=True)
    said = "document.body.append(location.origin === window.origin ? 'the same' : 'kept apart');"
    head = "<link rel=icon href='data:,'><title>It</title>"
    report.write_text(f"{head}<body><p>What came of it: <script>{said}</script>")
    browser.get(board.at("/sweep/depth"))
    shows(browser, "Report", within="p.report")
    browser.find_element("link text", "Report").click()
    shows(browser, "What came of it:", "kept apart", within="body")
    assert complaints(browser) == []


def test_a_run_with_its_curves_and_a_log_that_grows(
    board: Served, root: Root, browser: Chrome
) -> None:
    browser.get(board.at(f"/run/{root.going_on.key}"))
    shows(browser, "first line\nred <script>", within="pre.log")
    shows(browser, "500 of 1,000", "50 samples/s", "Loss terms")
    wait(browser, lambda page: points_drawn(page) == 5)
    root.print("epoch two\n")
    root.grow(600)
    shows(browser, "epoch two", within="pre.log")
    wait(browser, lambda page: points_drawn(page) == 6)
    browser.get(board.at(f"/run/{root.done.key}"))
    shows(browser, "Result", "mean recall", "25.0 %", "3 classes")
    browser.get(board.at(f"/run/{root.failed.key}"))
    shows(browser, ERROR, "Traceback")
    assert complaints(browser) == []
    assert hosts_asked(browser) == {f"127.0.0.1:{board.port}"}


def test_names_errors_and_logs_are_never_markup(board: Served, root: Root, browser: Chrome) -> None:
    pages = {
        "/": [QUESTION],
        "/sweep/depth": [QUESTION, EVIL, ERROR],
        f"/run/{root.done.key}": [EVIL],
        f"/run/{root.going_on.key}": ["<script>"],
        f"/run/{root.failed.key}": [ERROR],
        "/sweep/%3Cimg%20src=x%3E": ["<img src=x>"],
    }
    for page, words in pages.items():
        browser.get(board.at(page))
        shows(browser, *words)
        found = browser.execute_script(
            "return document.querySelectorAll('main img, main script, main b').length"
        )
        assert (page, found) == (page, 0)
        assert "taken" not in browser.title.replace(EVIL, "")
    refused = [line for line in complaints(browser) if "%3Cimg" not in line]
    assert refused == []


def test_a_board_that_ended_is_said_and_a_mistaken_address_too(root: Root, browser: Chrome) -> None:
    complaints(browser)
    with served(root.path) as board:
        browser.get(board.at("/run/0123456789ab"))
        shows(browser, "there is no run 0123456789ab")
        browser.get(board.at("/"))
        shows(browser, "live", within="#contact")
    shows(browser, "no answer; last heard", within="#contact")
    browser.get("about:blank")
    complaints(browser)


GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}


@pytest.mark.parametrize("page", ["/", "/sweep/depth", "/run/{key}"])
def test_words_are_told_from_their_ground_on_light_and_dark_screens(
    board: Served, root: Root, browser: Chrome, page: str
) -> None:
    try:
        browser.get(board.at(page.format(key=root.going_on.key)))
        shows(browser, "depth" if page == "/" else "running")
        if page != "/":
            wait(browser, lambda page: points_drawn(page) == 5)
        for scheme, ground in GROUND.items():
            prefer(browser, scheme)
            wait(browser, lambda page, ground=ground: page.execute_script(GROUNDS) == [ground])
            assert browser.execute_script(FAINTEST) >= 4.5, scheme
    finally:
        prefer(browser, "light")


#: The colours behind the page and behind its curves.
GROUNDS = """
const of = (e) => getComputedStyle(e)[e.tagName === 'BODY' ? 'backgroundColor' : 'fill'];
const seen = [document.body, ...document.querySelectorAll('.plot rect.bg')];
return [...new Set(seen.map(of))];
"""


@pytest.mark.parametrize("page", ["/", "/sweep/depth", "/run/{key}"])
def test_a_page_is_no_wider_than_a_telephone(
    board: Served, root: Root, browser: Chrome, page: str
) -> None:
    view_size(browser, PHONE)
    try:
        browser.get(board.at(page.format(key=root.going_on.key)))
        shows(browser, "depth" if page == "/" else "running")
        width = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(width) == 0
    finally:
        view_size(browser, DESK)
