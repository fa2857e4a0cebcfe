"""`python -m harness.report`: from manifests and records alone; checked, compared, watched."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import DEPTHS, T2I, Records, depth_sweep, edit_json, fill, sweep_of

from harness.commands.report import main
from harness.config import Runtime, override
from harness.config.sweep import Run, Sweep, expand
from harness.monitor.rebuild import rebuild_as_runs_end
from harness.report.folder import build
from harness.report.result import ReportResult
from harness.store.manifest import read_manifest, write_manifest


def launched(records: Records, sweep: Sweep) -> list[Run]:
    """What a launch leaves: the manifest."""
    runs = expand(sweep)
    write_manifest(records.store, sweep, runs, Runtime(), [sweep.name or ""])
    return runs


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a finished sweep of three depths, made by the command."""
    sweep = sweep_of({"model.text.layers": [1, 4, 12]}, metrics=[T2I],
                     baseline={"model.text.layers": 12})  # fmt: skip
    root = tmp_path_factory.mktemp("depths") / "root"
    with ExitStack() as held:
        records = Records(root, held)
        fill(records, launched(records, sweep))
    assert main(["made_up", "--root", str(root), "--keep-records"]) == 0
    return root


@pytest.fixture
def depths(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(made_once, tmp_path / "depths")


# ---- --check


def test_a_fresh_report_is_what_its_records_give(
    depths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = depths / "reports" / "made_up"

    assert main(["--check", str(folder)]) == 0
    assert "the same records give the same bytes" in capsys.readouterr().out


def test_a_report_with_its_records_is_checked_anywhere(depths: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(depths / "reports" / "made_up", tmp_path / "elsewhere")
    shutil.rmtree(depths)

    assert main(["--check", str(moved), "--root", str(tmp_path)]) == 0


def edit_figure(folder: Path) -> Path:
    file = folder / "figures" / "metric_vs_axis.csv"
    file.write_text(file.read_text() + "1\n")
    return file


def edit_record(folder: Path) -> Path:
    file = next((folder / "records" / "results" / "runs").glob("*/result.json"))
    file.write_bytes(file.read_bytes() + b"\n")
    return file


def lose_pdf(folder: Path) -> Path:
    (folder / "report.pdf").unlink()
    return folder / "report.pdf"


def forge_table(folder: Path) -> Path:
    """Edited, and the manifest with it: only building it again can tell."""
    from hashlib import sha256

    file = folder / "table.csv"
    file.write_text(file.read_text().replace("0.383", "0.483"))
    digest = sha256(file.read_bytes()).hexdigest()
    edit_json(folder / "manifest.json", lambda tree: tree["files"].update({"table.csv": digest}))
    return file


@pytest.mark.parametrize("change", [edit_figure, edit_record, lose_pdf, forge_table])
def test_what_differs_is_named(
    change: Callable[[Path], Path], depths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = depths / "reports" / "made_up"
    changed = change(folder)

    assert main(["--check", str(folder)]) == 3

    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith(str(changed))], told
    assert len(told) == 1


def test_a_folder_without_a_report_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(tmp_path)]) == 2
    assert "holds no report" in capsys.readouterr().err


def test_every_cell_can_be_recomputed_from_the_records_it_names(depths: Path) -> None:
    folder = depths / "reports" / "made_up"
    rows = list(csv.DictReader((folder / "table.csv").open()))
    row = next(r for r in rows if r["label"] == "layers=4" and r["metric"] == T2I)
    runs = folder / "records" / "results" / "runs"
    found = []
    for key in row["keys"].split():
        (evaluation,) = json.loads((runs / key / "result.json").read_text())["evaluations"].values()
        found.append(evaluation["metrics"][T2I]["value"])

    assert sorted(found) == sorted(DEPTHS[4])
    assert float(row["mean"]) == pytest.approx(sum(found) / 3)


# ---- names


def test_an_unknown_name_tells_the_nearest(
    depths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["made_op", "--root", str(depths)]) == 2
    assert "nearest: made_up" in capsys.readouterr().err


def test_holes_have_an_exit_code_of_their_own(records: Records) -> None:
    launched(records, depth_sweep())

    assert main(["--all", "--root", str(records.store.root)]) == 3
    assert (records.store.root / "reports" / "made_up" / "report.html").exists()


def test_several_reports_have_a_folder_each(records: Records, tmp_path: Path) -> None:
    for name in ("deep", "deep_tuning"):
        launched(records, replace(depth_sweep(), name=name))

    assert main(["--all", "--root", str(records.store.root), "--out", str(tmp_path / "out")]) == 3

    told = [tmp_path / "out" / name / "report.html" for name in ("deep", "deep_tuning")]
    assert all(page.exists() for page in told)


# ---- --compare


def values_of(out: Path) -> dict[str, tuple[str, str]]:
    """Label -> the mean and the difference of T2I R@1."""
    rows = csv.DictReader((out / "table.csv").open())
    return {r["label"]: (r["mean"], r["diff"]) for r in rows if r["metric"] == T2I}


@pytest.mark.usefixtures("no_figures")
def test_two_sweeps_side_by_side(records: Records) -> None:
    shallow = replace(sweep_of({"model.text.layers": [1, 2]}, metrics=[T2I]), name="a")
    wide = replace(shallow, base=override(shallow.base, {"model.text.width": 256}), name="b")
    for sweep, more in ((shallow, 0.0), (wide, 0.05)):
        for run in launched(records, sweep):
            records.done(run, t2i=0.3 + more + 0.01 * run.seed * (1 + more))
    root = records.store.root

    assert main(["--compare", "a", "b", "--root", str(root)]) == 0
    found = values_of(root / "reports" / "a-against-b")

    assert set(found) == {
        f"layers={n}, version={version}" for n in (1, 2) for version in ("a", "b")
    }
    assert float(found["layers=2, version=b"][1]) == pytest.approx(0.0505)
    assert main(["--check", str(root / "reports" / "a-against-b"), "--root", str(root)]) == 0


@pytest.fixture
def two_terms(records: Records) -> Path:
    """The root of two finished sweeps that share their baseline."""
    for name, axis in (("masked", "objective.mlm.weight"), ("soft", "objective.instance.a_max")):
        sweep = replace(
            sweep_of({axis: [0.0, 0.1]}, metrics=[T2I], baseline={axis: 0.0}), name=name
        )
        for run in launched(records, sweep):
            more = run.config.objective.mlm.weight + 2 * run.config.objective.instance.a_max
            records.done(run, t2i=0.3 + 0.01 * run.seed + 0.1 * more * (1 + 0.1 * run.seed))
    return records.store.root


@pytest.mark.usefixtures("no_figures")
def test_several_sweeps_in_one_table(two_terms: Path) -> None:
    words = ["masked", "soft", "--together", "terms", "--root", str(two_terms), "--keep-records"]
    folder = two_terms / "reports" / "terms"

    assert main(words) == 0

    tex = (folder / "table.tex").read_text()
    assert tex.index(r"\textit{masked}") < tex.index(r"\textit{soft}")
    assert len(values_of(folder)) == 3  # the baseline that both have stands once
    told = json.loads((folder / "manifest.json").read_text())
    assert told["made"] == {"together": ["masked", "soft"], "name": "terms"}
    assert len({run["key"] for run in told["runs"]}) == len(told["runs"]) == 9


def test_a_report_of_several_sweeps_is_checked_anywhere(two_terms: Path, tmp_path: Path) -> None:
    words = ["masked", "soft", "--together", "terms", "--root", str(two_terms), "--keep-records"]
    assert main(words) == 0
    moved = shutil.copytree(two_terms / "reports" / "terms", tmp_path / "elsewhere")
    shutil.rmtree(two_terms)

    assert main(["--check", str(moved), "--root", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["masked", "--together", "terms"], "several sweeps"),
        (["masked", "soft", "--together", "soft"], "is a sweep"),
        (["masked", "soft", "--together", "../terms"], "no such name"),
        (["masked", "soft", "--together", "terms", "--watch"], "single sweeps"),
    ],
)
def test_what_cannot_be_put_together_is_said(
    two_terms: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--root", str(two_terms)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_two_versions_of_the_code(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]}, metrics=[T2I])
    runs = launched(records, sweep)
    for code, more in (("a" * 12, 0.0), ("b" * 12, 0.1)):
        for run in runs:
            if records.store.run_dir(run.key).path.exists():
                records.store.run_dir(run.key).set_aside()
            records.done(run, t2i=0.3 + more + 0.01 * run.seed * (1 + more), code=code)
    root = records.store.root

    assert main(["--compare", "aaaa", "bbbb", "made_up", "--root", str(root)]) == 0
    found = values_of(root / "reports" / "aaaa-against-bbbb")

    assert float(found["layers=1, version=aaaa"][0]) == pytest.approx(0.31)
    assert float(found["layers=1, version=bbbb"][0]) == pytest.approx(0.411)
    assert float(found["layers=1, version=bbbb"][1]) == pytest.approx(0.101)
    keys = {
        r["keys"] for r in csv.DictReader((root / "reports/aaaa-against-bbbb/table.csv").open())
    }
    assert len(keys) == 4, "a run that was set aside is not taken for the one in its place"


def test_a_version_that_made_nothing_is_an_error(
    depths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--compare", "c0de", "ffff", "--root", str(depths)]) == 2
    assert "'ffff'" in capsys.readouterr().err


# ---- --watch


@pytest.mark.usefixtures("no_figures")
def test_watching_builds_again_when_a_run_ends_and_stops_with_the_last(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]}, metrics=[T2I])
    runs = launched(records, replace(sweep, seeds=(0,)))
    built: list[int] = []
    looks = iter([None, runs[0], None, runs[1]])

    def someone_trains(seconds: float) -> None:
        if (run := next(looks)) is not None:
            records.done(run, t2i=0.3)

    def made(name: str) -> ReportResult:
        manifest = read_manifest(records.store, name)
        out = records.store.root / "reports" / name
        result = build(manifest.sweep, manifest.runs, records.store, out)
        built.append(result.holes)
        return result

    (last,) = rebuild_as_runs_end(records.store, ["made_up"], made, 0.1, sleep=someone_trains)

    assert built == [2, 1, 0]
    assert last.complete
    assert next(looks, "asked no further") == "asked no further"
