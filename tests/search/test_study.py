"""The study and its journal: in step with the ledger however either was left behind."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from search_cases import GOAL, LAYERS, LR, Desk, halving, run_to_the_end, search

from harness.config.searchspace import Choice, Hyperband, Integers, Median, Uniform
from harness.errors import RecordError, SweepError
from harness.store.trials import Ledger


def test_any_optuna_loads_the_journal_as_it_is(tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    desk = Desk(tmp_path, halving())
    desk.launch()
    storage = JournalStorage(JournalFileBackend(str(desk.ledger.journal_file)))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.metric_names == [GOAL]
    assert [t.user_attrs["run"] for t in study.trials] == [t.key for t in desk.on_disk()]


def test_the_journal_is_written_without_a_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.storages.journal import JournalFileBackend

    from harness.search.journal import Journal

    def wait(descriptor: int) -> None:
        raise AssertionError("it waited")

    monkeypatch.setattr("os.fsync", wait)
    entries = [{"op_code": 0, "value": 0.1}, {"op_code": 4, "name": "\u00e4\n"}]
    Journal(tmp_path / "journal.log").append_logs(entries[:1])
    Journal(tmp_path / "journal.log").append_logs(entries[1:])
    assert list(JournalFileBackend(str(tmp_path / "journal.log")).read_logs(0)) == entries


@pytest.mark.parametrize(
    "wanted",
    [
        search(),
        halving(trials=14),
        halving(trials=14, pruner=Hyperband(first=100, reduction=3)),
        halving(trials=14, pruner=Median(every=100, startup=3)),
        search(objectives=[GOAL, "cost/parameters/inference"], sampler="nsga2"),
    ],
    ids=["random", "asha", "hyperband", "median", "two objectives"],
)
def test_a_journal_that_was_deleted_is_made_anew_from_the_records(
    tmp_path: Path, wanted: Any
) -> None:
    desk = Desk(tmp_path, wanted)
    desk.launch(most=9)
    desk.open().take()  # and one that is not over
    before = desk.told()
    desk.ledger.journal_file.unlink()
    desk.open()
    assert desk.told() == before
    desk.launch()
    assert sum(trial.counts for trial in desk.on_disk()) == wanted.trials
    assert len(desk.ran) == len(set(desk.ran))


def test_a_promotion_after_the_journal_was_lost_is_judged_as_before(tmp_path: Path) -> None:
    kept, lost = (Desk(tmp_path / name, halving(trials=20)) for name in ("kept", "lost"))
    for desk in (kept, lost):
        desk.launch(most=8)
    lost.ledger.journal_file.unlink()
    for desk in (kept, lost):
        desk.launch()
    # The sampler's draws depend on how many trials there are alone, and so do not differ.
    assert kept.told() == lost.told()


def test_a_line_that_a_killed_controller_did_not_finish_is_cut_off(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=4)
    whole = desk.ledger.journal_file.read_bytes()
    desk.ledger.journal_file.write_bytes(whole + b'{"op_code":4,"worker')
    desk.ledger.journal_file.with_name("journal.log.lock").symlink_to("journal.log")
    desk.launch()
    assert desk.outcomes() == ["complete"] * 10
    assert [state for state, *_ in desk.told()] == ["COMPLETE"] * 10


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8, 0.99])
def test_a_journal_that_lost_its_end_is_made_anew(tmp_path: Path, kept: float) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=6)
    before = desk.told()
    lines = desk.ledger.journal_file.read_bytes().splitlines(keepends=True)
    desk.ledger.journal_file.write_bytes(b"".join(lines[: int(kept * len(lines))]))
    desk.open()
    assert desk.told() == before


def test_what_is_no_journal_is_kept_aside(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=3)
    desk.ledger.journal_file.write_bytes(b"not a journal\n" * 3)
    desk.launch()
    assert desk.outcomes() == ["complete"] * 10
    assert desk.ledger.journal_file.with_name("journal-1.log").read_bytes().startswith(b"not a")


def test_a_trial_that_never_came_into_the_ledger_is_adopted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=3)
    number, point = desk.study.ask()  # and the controller dies
    desk.launch(most=1)
    trial = desk.on_disk().trials[number]
    assert (dict(trial.point), trial.key) == (point, desk.ran[-1])
    desk.launch()
    assert desk.outcomes() == ["complete"] * 10
    assert len(desk.ran) == len(set(desk.ran)) == 10


def test_asking_that_was_cut_off_midway_is_finished(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=3)
    number, _ = desk.study.ask()
    lines = desk.ledger.journal_file.read_bytes().splitlines(keepends=True)
    desk.ledger.journal_file.write_bytes(b"".join(lines[:-1]))  # without its second field
    desk.open()
    assert set(desk.on_disk().trials[number].point) == {LR, LAYERS}


def test_what_the_ledger_knows_and_the_study_was_not_told_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    trials = desk.launch(most=3)
    step = trials.take()
    assert step is not None
    run_to_the_end(step, desk.store.run_dir(step.run.key), trials)
    told = desk.study.tell
    desk.study.tell = lambda trial: None  # type: ignore[method-assign]
    trials.ended(step, None)
    desk.study.tell = told  # type: ignore[method-assign]
    desk.open()
    assert [state for state, *_ in desk.told()] == ["COMPLETE"] * 4


def test_no_command_draws_what_another_drew(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=9))
    for _ in range(3):
        desk.launch(most=3)
    assert len(set(desk.ran)) == 9
    assert "repeat" not in desk.outcomes()


def test_options_that_are_lists_come_back_as_they_were(tmp_path: Path) -> None:
    path = "objective.mlm.stages"
    space = {path: Choice("all", (0, 2), (1,)), LR: Uniform(1e-3, 1e-1)}
    desk = Desk(tmp_path, search(space=space, trials=6))
    desk.open()
    points = [desk.study.ask()[1] for _ in range(6)]
    assert {str(point[path]) for point in points} <= {"all", "(0, 2)", "(1,)"}
    number = desk.study.insert({path: [0, 2], LR: 0.01}, "key")
    assert desk.told()[number][1][path] == "[0,2]"


# --------------------------------------------------------------------------- another search


def test_a_ledger_of_another_search_is_refused_with_a_diff(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=1)
    desk.ledger.define({"space.train.lr": "0.1..1", "objectives": [GOAL]}, {})
    with pytest.raises(SweepError) as caught:
        desk.on_disk().check({"space.train.lr": "0.1..2", "objectives": [GOAL]})
    assert '- "space.train.lr": "0.1..1"; + "space.train.lr": "0.1..2"' in str(caught.value)
    assert "Use another --root" in str(caught.value)


def test_a_field_that_was_added_since_with_its_default_makes_no_other_search(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, search())
    desk.on_disk().define({"base.train.lr": 0.5, "base.train.gone": None}, {})
    added = {"base.train.lr": 0.5, "base.objective.sigmoid.weight": 0.0}
    desk.on_disk().check(added)
    with pytest.raises(SweepError, match=r"sigmoid\.weight"):
        desk.on_disk().check({**added, "base.objective.sigmoid.weight": 1.0})


def test_a_journal_of_another_search_is_refused_with_a_diff(tmp_path: Path) -> None:
    there, here = (
        Desk(tmp_path / "there", search()),
        Desk(tmp_path / "here", search(space={LAYERS: Integers(1, 3)})),
    )
    there.launch(most=2)
    folder = Ledger.of(here.store, "s").folder
    folder.mkdir(parents=True)
    (folder / "journal.log").write_bytes(there.ledger.journal_file.read_bytes())
    with pytest.raises(SweepError) as caught:
        here.open()
    assert '- "model.text.layers": "1..6"' in str(caught.value)
    assert '+ "model.text.layers": "1..3"' in str(caught.value)


def test_a_ledger_with_a_gap_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=3)
    (desk.ledger.folder / "trials" / "000001.json").unlink()
    with pytest.raises(RecordError, match="lacks trial 1 of 2"):
        desk.open()


def test_a_trial_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch(most=1)
    file = desk.ledger.folder / "trials" / "000000.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "outcome": "lost"}))
    with pytest.raises(RecordError, match="is no trial of this version: 'lost' is not a valid"):
        desk.open()


@pytest.mark.slow
def test_the_dashboard_opens_the_journal_as_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path, halving())
    desk.launch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(sys.executable).parent / "optuna-dashboard"), "--host", "127.0.0.1"]
    with subprocess.Popen([*words, "--port", str(port), str(desk.ledger.journal_file)]) as server:
        try:
            (listed,) = asked(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        finally:
            server.terminate()
    assert (listed["study_name"], listed["directions"]) == ("s", ["maximize"])


def asked(url: str) -> Any:
    deadline = time.monotonic() + 280
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
