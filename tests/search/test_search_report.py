"""The report of a search: what it says, what it draws, and what it does not pretend."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from pypdf import PdfReader
from search_cases import BASE, GOAL, LAYERS, LR, Desk, finish, halving, run_of, search

from harness.api import load
from harness.commands.report import main
from harness.config import Runtime
from harness.config.searchspace import Choice, Search
from harness.config.sweep import Show, Sweep
from harness.errors import RecordError
from harness.report.search import build_search
from harness.report.search_data import importances, read_search
from harness.search.command import SearchPlan
from harness.store.manifest import write_manifest
from harness.store.state import State
from harness.store.trials import best_trials
from tests.browser import PHONE, asked, chromium, complaints, view_size

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SEEDS = (101, 102, 103)
EVIL = (
    '</td></script><img src=x onerror="window.owned=1"><script>window.owned=2</script>'
    "#panic() $x$ {{ 7*7 }}"
)


def plan_of(
    wanted: Search, *, label: str = "learning rate", question: str = "Which learning | rate?"
) -> SearchPlan:
    sweep = Sweep(
        base=BASE,
        search=wanted,
        show=Show(x=LR, metrics=["test/mean_recall"], labels={LR: label}),
        name="s",
        question=question,
    )

    def nothing(key: str) -> Any:
        raise RecordError("no parents here")

    return SearchPlan(sweep, wanted, BASE, Runtime(), lambda config: config, nothing)


def searched(tmp_path: Path, wanted: Search, *, most: int = 1_000, **names: str) -> Desk:
    desk = Desk(tmp_path, wanted)
    desk.launch(most=most)
    plan = plan_of(wanted, **names)
    desk.ledger.define(plan.definition(), plan.about())
    plan.put_on_file(desk.ledger, ["x"], desk.store)
    return desk


def confirmed(desk: Desk, values: dict[str, list[float | None]]) -> None:
    """The confirmation, with these values of `test/mean_recall`, one a seed."""
    made = plan_of(desk.search).confirmation(desk.on_disk())
    assert made is not None
    sweep, runs = made
    write_manifest(desk.store, sweep, runs, Runtime(), ["x"])
    for run in runs:
        name = "base" if run.label == "base" else "best"
        value = values[name][SEEDS.index(run.seed)]
        if value is not None:
            finish(desk.store.run_dir(run.key), run.config, 0.5, **{"test/mean_recall": value})


def report(desk: Desk) -> str:
    build_search("s", desk.store, desk.root / "report")
    return (desk.root / "report" / "report.md").read_text()


def rows(desk: Desk, name: str) -> list[dict[str, str]]:
    with (desk.root / "report" / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("no_figures")
def test_the_answer_is_the_difference_with_fresh_seeds(tmp_path: Path) -> None:
    desk = searched(tmp_path, search())
    confirmed(desk, {"base": [0.30, 0.31, 0.32], "best": [0.40, 0.42, 0.41]})
    page = report(desk)
    (best,) = best_trials(list(desk.on_disk()), [GOAL])
    assert page.startswith("# Which learning \\| rate?\n")
    assert f"**Trial {best.number}** was the best of 10 on the validation split" in page
    assert "| complete, best |" in page
    # Differences 10, 11 and 9 points: mean 10, and 4.303 x 1 / sqrt(3) = 2.48 about it.
    assert (
        f"**Trial {best.number}** with fresh seeds: mean recall 41.00 % ± 2.48, "
        "+10.00 % [+7.52, +12.48] against the base: **better**."
    ) in page
    assert "| mean recall | base | 31.00 % ± 2.48 | — | 3 |" in page


@pytest.mark.usefixtures("no_figures")
def test_a_difference_that_may_be_luck_is_called_so(tmp_path: Path) -> None:
    desk = searched(tmp_path, search())
    confirmed(desk, {"base": [0.30, 0.31, 0.32], "best": [0.40, 0.32, 0.28]})
    assert "against the base: **not significant**" in report(desk)


@pytest.mark.usefixtures("no_figures")
def test_nothing_is_averaged_over_a_hole(tmp_path: Path) -> None:
    desk = searched(tmp_path, search())
    confirmed(desk, {"base": [0.30, 0.31, 0.32], "best": [0.40, None, 0.41]})
    page = report(desk)
    assert "Results of 1 run of the confirmation are missing" in page
    assert "**better**" not in page
    assert "| mean recall | base | 31.00 % ± 2.48 | — | 3 |" in page


@pytest.mark.usefixtures("no_figures")
def test_a_search_that_goes_on_says_so(tmp_path: Path) -> None:
    desk = searched(tmp_path, search(), most=3)
    desk.open().take()
    page = report(desk)
    assert "Unfinished trials: 3; the same command resumes them." in page
    assert "The best trial has not been confirmed with fresh seeds yet" in page


def test_a_search_without_a_finished_trial_has_no_best(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=2))

    def diverge(step: Any, directory: Any, trials: Any) -> str:
        error = "loss is NaN | at step 7"
        directory.write_status(State.FAILED, failure="diverged", error=error)
        return "diverged"

    desk.launch(diverge)
    plan = plan_of(desk.search)
    desk.ledger.define(plan.definition(), plan.about())
    page = report(desk)
    assert "No trial was trained to the end, so there is no best one" in page
    assert page.count("failed (diverged: loss is NaN \\| at step 7)") == 2


def test_pruned_trials_are_drawn_as_far_as_they_came(tmp_path: Path) -> None:
    desk = searched(tmp_path, halving(trials=15))
    page = report(desk)
    curves = rows(desk, "figures/curves.csv")
    for trial in desk.on_disk():
        own = [int(row["samples_seen"]) for row in curves if row["trial"] == str(trial.number)]
        assert own[-1] == trial.samples_seen
    assert "rungs at 100, 300, 900 of 1,000 samples" in page
    assert "the schedule of the full budget" in page


def test_every_figure_has_its_data_and_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    desk = searched(tmp_path, halving(trials=15))
    files = build_search("s", desk.store, tmp_path / "one").files
    again = build_search("s", desk.store, tmp_path / "two").files
    names = {file.relative_to(tmp_path / "one").as_posix() for file in files}
    figures = {name.split("/")[1] for name in names if name.startswith("figures/")}
    stems = {"history", "curves", "importance", "parallel_coordinates", "slices", "contour"}
    assert figures == {f"{stem}.{end}" for stem in stems for end in ("pdf", "svg", "png", "csv")}
    pages = {"report.md", "report.html", "report.pdf", "trials.csv", "manifest.json"}
    assert names - {name for name in names if name.startswith("figures/")} == pages
    for one, two in zip(files, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_what_decides_the_objective_is_found_to_be_important(tmp_path: Path) -> None:
    space = {LR: search().space[LR], LAYERS: Choice(1, 2)}  # a hundredth against tenths
    desk = searched(tmp_path, search(space=space, trials=25))
    shares = importances(read_search("s", desk.store))
    assert list(shares) == ["fANOVA", "PED-ANOVA"]
    for found in shares.values():
        assert found[LR] > 0.8 > 0.2 > found[LAYERS]


def test_two_objectives_have_a_trade_off(tmp_path: Path) -> None:
    goals = [GOAL, "cost/parameters/inference"]
    desk = searched(tmp_path, search(objectives=goals, sampler="nsga2", trials=15))
    page = report(desk)
    front = best_trials(list(desk.on_disk()), goals)
    assert f"**{len(front)} trials** are not dominated: none is at least as good" in page
    drawn = [int(r["trial"]) for r in rows(desk, "figures/pareto.csv") if r["not_beaten"] == "True"]
    assert sorted(drawn) == sorted(trial.number for trial in front)


@pytest.mark.usefixtures("no_figures")
def test_free_trials_are_marked(tmp_path: Path) -> None:
    point = {LR: 0.01, LAYERS: 1}
    run = run_of(point)
    desk = Desk(tmp_path, search(trials=3), finished=[point])
    directory = desk.store.run_dir(run.key)
    directory.write_intent(run.config, {"label": "grid"})
    finish(directory, run.config, 0.45)
    desk.launch()
    plan = plan_of(desk.search)
    desk.ledger.define(plan.definition(), plan.about())
    page = report(desk)
    assert "| complete, free" in page
    assert "1 cost nothing" in page


def test_a_search_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"searches/none/search\.json is missing"):
        build_search("none", Desk(tmp_path, search()).store, tmp_path / "report")


# ---- the command


def finished(tmp_path: Path) -> Desk:
    """A search of which some were pruned, with its confirmation."""
    desk = searched(tmp_path, halving(trials=15))
    confirmed(desk, {"base": [0.30, 0.31, 0.32], "best": [0.40, 0.42, 0.41]})
    return desk


def test_the_report_command_makes_the_report_of_a_search_and_checks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = finished(tmp_path)
    folder = tmp_path / "reports" / "s"
    assert main(["s", "--root", str(tmp_path), "--keep-records"]) == 0
    assert "was the best of 15" in (folder / "report.md").read_text()

    assert main(["--check", str(folder), "--root", str(tmp_path)]) == 0
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "results")
    assert main(["--check", str(moved), "--root", str(tmp_path / "nowhere")]) == 0
    assert desk.on_disk().trials == {}

    told = next((moved / "records").rglob("trials/000003.json"))
    told.write_text(told.read_text().replace('"number": 3', '"number":  3'))
    capsys.readouterr()
    assert main(["--check", str(moved), "--root", str(tmp_path)]) == 3
    assert f"{told} is another than the one" in capsys.readouterr().err


def test_the_trials_of_a_search_are_a_table_in_python(tmp_path: Path) -> None:
    desk = finished(tmp_path)
    table = load("s", desk.store.root)
    assert {LR, "seed", "test/mean_recall", "state", "key"} <= set(table.columns)
    assert set(table["key"]) == {trial.key for trial in desk.ledger}
    assert list(table[LR]) == [trial.point[LR] for trial in desk.ledger]
    assert set(table["state"]) >= {"interrupted"}, "what was pruned is a row too"


@pytest.mark.usefixtures("no_figures")
def test_a_search_that_is_not_over_is_a_report_with_holes(tmp_path: Path) -> None:
    desk = searched(tmp_path, search(confirm=()), most=3)
    assert main(["s", "--root", str(tmp_path)]) == 0
    desk.open().take()
    assert main(["s", "--root", str(tmp_path)]) == 3


@pytest.mark.usefixtures("no_figures")
def test_watching_a_search_does_not_wait_for_what_was_pruned(tmp_path: Path) -> None:
    desk = finished(tmp_path)
    assert "pruned" in desk.outcomes()
    assert main(["s", "--root", str(tmp_path), "--watch", "0.1"]) == 0


# ---- names that try to be markup


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_no_name_is_markup_in_any_format(tmp_path: Path) -> None:
    desk = searched(tmp_path, search(), label=EVIL, question=EVIL)
    page = report(desk)
    html = (tmp_path / "report" / "report.html").read_text()
    pages = PdfReader(io.BytesIO((tmp_path / "report" / "report.pdf").read_bytes())).pages
    printed = "".join("".join(p.extract_text() for p in pages).replace("\u200b", "").split())

    for written in (page, html):
        assert "<img src=x" not in written
        assert "<script>window" not in written
    assert printed.count("".join(EVIL.split())) >= 3, "title, table of the best, table of trials"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driven:
        yield driven


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    with mock.patch("os.fsync"), mock.patch("harness.search.source.LOOK_SECONDS", 0.0):
        desk = searched(root, halving(trials=15), label=EVIL, question=EVIL)
        confirmed(desk, {"base": [0.30, 0.31, 0.32], "best": [0.40, 0.42, 0.41]})
        build_search("s", desk.store, root / "report")
    return root / "report" / "report.html"


@pytest.fixture
def page(browser: Chrome, page_file: Path) -> Chrome:
    """The page, freshly opened, with what was logged before forgotten."""
    browser.get("about:blank")
    complaints(browser)
    asked(browser)
    browser.get(page_file.as_uri())
    return browser


def column(page: Chrome, head: str) -> list[str]:
    """The cells of a column of the table of trials, top to bottom."""
    found: list[str] = page.execute_script(
        "const table = document.querySelector('#trials table');"
        "const at = [...table.tHead.rows[0].cells].findIndex(c => c.textContent === arguments[0]);"
        "return [...table.tBodies[0].rows].map(row => row.cells[at].textContent);",
        head,
    )
    return found


def click(page: Chrome, head: str) -> None:
    page.execute_script(
        "[...document.querySelectorAll('#trials th button')]"
        ".find(button => button.textContent.trim() === arguments[0]).click()",
        head,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_browser_trials_are_sorted_by_their_numbers(page: Chrome) -> None:
    click(page, "validation mean recall")
    click(page, "validation mean recall")
    values = column(page, "validation mean recall")
    known = [float(value.split()[0]) for value in values if value != "\u2014"]
    assert known == sorted(known, reverse=True)
    assert 0 < len(known) < 15
    assert values[len(known) :] == ["\u2014"] * (15 - len(known)), "pruned trials stay below"
    assert column(page, "outcome")[0] == "complete, best"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_browser_a_number_opens_the_run_of_its_trial(page: Chrome, page_file: Path) -> None:
    with (page_file.parent / "trials.csv").open() as file:
        key = list(csv.DictReader(file))[7]["run"]
    row = column(page, "trial").index("7")
    page.execute_script(
        "document.querySelectorAll('#trials tbody tr')[arguments[0]].querySelector('a').click()",
        row,
    )
    shown: str = page.execute_script("return document.getElementById('detail').innerText")
    assert f"results/runs/{key}" in shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_browser_the_page_asks_for_nothing_and_runs_no_name(page: Chrome) -> None:
    view_size(page, PHONE)
    shown = page.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth, window.owned ?? null,"
        "[...document.images].every(i => i.naturalWidth > 0 && i.src.startsWith('data:')),"
        "document.querySelector('h1').textContent]"
    )
    assert shown[0] <= shown[1]
    assert shown[2:] == [None, True, EVIL]
    assert complaints(page) == []
    assert asked(page) == {page.current_url}
