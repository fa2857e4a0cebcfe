"""Damage to what a run left is named by the report, the export and the check, with its cost."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from harness.commands import export, report
from harness.report.check import check, unchecked
from harness.results.outcomes import DAMAGED, read_scores
from harness.results.records import Reader
from harness.store.checksums import LOGS, OUTCOMES, UNCHECKED, changed_files, is_told, of_logs
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import RunDir, Store

EXAMPLE = Path(__file__).parents[2] / "reports" / "example" / "components"


@pytest.fixture
def store(here: Path) -> Store:
    """Finished runs with every checksum, of a store that has none."""
    shutil.copytree(EXAMPLE / "records" / "results", here / "results")
    made = Store(here)
    for directory in runs(made):
        result = directory.finished()
        assert not is_told(result)
        for key, entry in result["evaluations"].items():
            data = (directory.outcomes / f"{key}.npz").read_bytes()
            entry[OUTCOMES] = hashlib.sha256(data).hexdigest()
        directory.write_result({**result, LOGS: of_logs(directory.metrics_file)})
    return made


def runs(store: Store) -> list[RunDir]:
    return [store.run_dir(file.parent.name) for file in sorted(store.runs.glob("*/result.json"))]


def name_of(store: Store) -> str:
    (name,) = manifest_names(store)
    return name


def test_damage_is_told_with_its_file_and_its_run(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A byte short, a digit changed, a log that is gone, and a run that tells no checksums."""
    first, second, third, fourth, *_ = runs(store)
    (cut,) = first.outcomes.glob("*.npz")
    cut.write_bytes(cut.read_bytes()[:-1])
    text = second.metrics_file.read_text()
    second.metrics_file.write_text(text.replace("1", "2", 1))
    third.metrics_file.unlink()
    result = fourth.finished()
    result.pop(LOGS)
    fourth.write_result(result)
    name = name_of(store)
    report.main([name, "--out", "made"])
    assert f"1 of {len(runs(store))} runs: {UNCHECKED}" in capsys.readouterr().err
    assert unchecked(Path("made"), store.root) == 1
    page = Path("made/report.md").read_text()
    assert f"{DAMAGED}: {cut.name} is not as it was written (runs {first.key}" in page
    assert f"metrics.jsonl of runs {', '.join(sorted((second.key, third.key)))} is not" in page
    words = "is not as it was written: its result tells another checksum"
    named = {f"{cut} {words}", f"{second.metrics_file} {words}"}
    assert set(check(Path("made"), store.root)) == named
    second.metrics_file.write_text(text)
    assert list(changed_files(second.path, second.finished())) == []


def test_outcomes_of_the_right_mean_that_are_others_are_not_used(store: Store) -> None:
    """The check of the mean alone would pass an archive that was written again."""
    first = runs(store)[0]
    (file,) = first.outcomes.glob("*.npz")
    run = next(r for r in read_manifest(store, name_of(store)).runs if r.key == first.key)
    assert read_scores(Reader(store).read(0, run, first), ["test/mean_recall"]).problem is None
    import zipfile

    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"later"
    found = read_scores(Reader(store).read(0, run, first), ["test/mean_recall"])
    assert found.problem == f"{DAMAGED}: {file.name} is not as it was written"


def test_an_export_tells_of_damage_beside_the_weights(
    store: Store, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs(store)[0]
    first.metrics_file.write_text("{}\n")
    monkeypatch.setattr(export, "_load", lambda *_: None)
    monkeypatch.setattr(export, "_write_models", lambda *_, onnx: "")
    monkeypatch.setattr(export, "_write_papers", lambda *_, **__: None)
    _, note = export.export(first, here / "out", onnx=False)
    assert note.startswith(f"note: {first.metrics_file} is not as it was written")
