"""Trials as a source of steps: who is begun, pruned, told and left, whatever the runs do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from search_cases import (
    GOAL,
    LAYERS,
    LR,
    RUNGS,
    Desk,
    finish,
    halving,
    progress,
    run_of,
    run_to_the_end,
    search,
    worth,
)

from harness.config import override
from harness.config.searchspace import Choice, Integers, Uniform
from harness.errors import ConfigError
from harness.files import read_json
from harness.planning.plan import Step
from harness.search import source
from harness.search.source import Trials
from harness.store.lease import Lease
from harness.store.record import RunDir
from harness.store.state import State
from harness.store.trials import Origin, Outcome, best_trials


def test_every_trial_is_a_run_and_every_run_a_trial(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    desk.launch()
    trials = list(desk.on_disk())
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETE] * 10
    assert [trial.key for trial in trials] == desk.ran
    assert len(set(desk.ran)) == 10
    for trial in trials:
        directory = desk.store.run_dir(trial.key)
        assert trial.values == (worth(directory.read_config()),)
        assert trial.seconds == 36.0
    told = desk.told()
    assert [state for state, *_ in told] == ["COMPLETE"] * 10
    assert [values[0] for _, _, values, _ in told] == [t.values[0] for t in trials if t.values]


def test_the_best_is_the_first_of_equals(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=6))
    desk.launch()
    trials = list(desk.on_disk())
    (best,) = best_trials(trials, [GOAL])
    assert best.values == max(trial.values for trial in trials if trial.values)


def test_a_trial_is_on_record_before_it_is_handed_out(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    step = desk.open().take()
    assert step is not None
    (trial,) = desk.on_disk()
    assert (trial.key, trial.outcome, trial.origin) == (
        step.run.key,
        Outcome.OPEN,
        Origin.SAMPLER,
    )
    assert read_json(desk.store.run_dir(trial.key).path / "job.json") is not None


def test_no_more_are_taken_than_there_is_width(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(), width=2)
    trials = desk.open()
    first, second = trials.take(), trials.take()
    assert first is not None
    assert second is not None
    assert trials.take() is None
    assert len(trials) == 8
    trials.ended(first, run_to_the_end(first, desk.store.run_dir(first.run.key), trials))
    assert trials.take() is not None


# --------------------------------------------------------------------------- pruning


def test_who_falls_behind_is_stopped_and_keeps_its_number(tmp_path: Path) -> None:
    desk = Desk(tmp_path, halving(trials=12))
    desk.launch()
    trials = list(desk.on_disk())
    pruned = [trial for trial in trials if trial.outcome is Outcome.PRUNED]
    assert len(trials) == 12
    assert 4 <= len(pruned) <= 11
    assert all(trial.samples_seen in RUNGS and trial.values is None for trial in pruned)
    assert all(trial.seconds == pytest.approx(0.036 * trial.samples_seen) for trial in pruned)
    for trial, (state, _, _, reports) in zip(trials, desk.told(), strict=True):
        wanted = {"complete": "COMPLETE", "pruned": "PRUNED"}[trial.outcome.value]
        assert (state, max(reports)) == (wanted, min(trial.samples_seen, 300))


def test_a_pruned_run_that_died_before_it_could_stop_is_pruned(tmp_path: Path) -> None:
    desk = Desk(tmp_path, halving(trials=1))

    def die(step: Step, directory: RunDir, trials: Trials) -> str:
        directory.request_stop("pruned")
        directory.write_status(State.FAILED, failure="killed", error="SIGKILL", samples_seen=100)
        return "killed"

    desk.launch(die)
    assert desk.outcomes() == ["pruned"]
    assert len(desk.ran) == 1


def test_numbers_that_cannot_be_true_are_nothing_to_go_on_with(tmp_path: Path) -> None:
    desk = Desk(tmp_path, halving(trials=1))

    def collapse(step: Step, directory: RunDir, trials: Trials) -> str | None:
        progress(directory, 100, None)
        trials.look_elsewhere()
        assert directory.stop_requested() == "pruned"
        directory.write_status(State.INTERRUPTED, stopped="pruned", samples_seen=100)
        return "pruned"

    desk.launch(collapse)
    assert desk.outcomes() == ["pruned"]


# --------------------------------------------------------------------------- failures


def failing(failure: str) -> source.Callable[[Step, RunDir, Trials], str]:
    def fail(step: Step, directory: RunDir, trials: Trials) -> str:
        directory.write_status(State.FAILED, failure=failure, error="as told", samples_seen=70)
        return failure

    return fail


def test_a_trial_that_diverges_is_a_fact_without_a_number(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=2))
    desk.launch(failing("diverged"))
    trials = list(desk.on_disk())
    assert [(t.outcome.value, t.failure, t.values) for t in trials] == [
        ("failed", "diverged", None)
    ] * 2
    assert [(state, values) for state, _, values, _ in desk.told()] == [("PRUNED", None)] * 2


def test_the_sampler_stays_away_from_where_runs_diverge(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=40, sampler="tpe"))

    def diverge(step: Step, directory: RunDir, trials: Trials) -> str | None:
        config = step.run.config  # as it does in 58 % of the space
        if config.train.lr > 0.03 or config.model.text.layers > 3:
            return failing("diverged")(step, directory, trials)
        return run_to_the_end(step, directory, trials)

    desk.launch(diverge)
    late = desk.outcomes()[15:]
    assert late.count("failed") <= 12  # of 25; told as failures, they are 19 to 23


def test_a_bug_is_no_fact_about_the_point(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=1))
    desk.launch(failing("bug"))
    assert desk.outcomes() == ["failed"]
    assert desk.told()[0][0] == "FAIL"


def test_a_killed_run_comes_up_once_more_and_is_then_left_to_another_command(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, search(trials=1))
    desk.launch(failing("killed"))
    assert len(desk.ran) == 2
    assert desk.outcomes() == ["open"]
    desk.launch()
    assert desk.outcomes() == ["complete"]
    assert len(desk.ran) == 3
    assert len(set(desk.ran)) == 1


def test_a_cancelled_run_is_not_taken_up_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=1))

    def cancel(step: Step, directory: RunDir, trials: Trials) -> str:
        directory.request_stop("cancelled")
        directory.write_status(State.INTERRUPTED, stopped="cancelled", samples_seen=10)
        return "cancelled"

    desk.launch(cancel)
    (trial,) = desk.on_disk()
    assert (trial.outcome.value, trial.failure) == ("failed", "cancelled")
    assert len(desk.ran) == 1


def test_a_run_that_reports_no_objective_is_a_failure_that_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=1, objectives="validation/acc1"))
    desk.launch()
    (trial,) = desk.on_disk()
    assert (trial.outcome.value, trial.failure) == ("failed", "record")
    assert trial.why is not None
    assert "reports no validation/acc1" in trial.why


def test_points_that_no_run_can_have_are_told_and_end_the_search_when_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impossible(point: source.Point) -> source.Run:
        raise ConfigError("width 3 is not divisible by heads 2")

    monkeypatch.setattr("search_cases.run_of", impossible)
    desk = Desk(tmp_path, search(trials=100))
    trials = desk.launch()
    assert desk.outcomes() == ["failed"] * 20
    assert trials.problem == (
        "20 points in a row cannot be run; the last: width 3 is not divisible by heads 2"
    )


# --------------------------------------------------------------------------- other launchers


def test_a_run_that_another_launcher_has_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.launch.backlog.POLL_SECONDS", 0.0)
    point = {LR: 0.01, LAYERS: 1}
    desk = Desk(tmp_path, search(trials=1), points=[point])
    run = run_of(point)
    directory = desk.store.run_dir(run.key)
    directory.write_intent(run.config, {"label": "grid"})
    with Lease(directory.lease_file):
        trials = desk.open()
        assert trials.take() is None
        assert len(trials) == 1
    finish(directory, run.config, 0.25)
    trials.look_elsewhere()
    assert len(trials) == 0
    assert [trial.values for trial in desk.on_disk()] == [(0.25,)]


def test_a_controller_that_lost_its_search_writes_nothing_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search())
    mine = [True]
    trials = desk.open(mine=lambda: mine[0])
    step = trials.take()
    assert step is not None
    mine[0] = False
    trials.look_elsewhere()
    trials.ended(step, run_to_the_end(step, desk.store.run_dir(step.run.key), trials))
    assert (len(trials), trials.take(), desk.outcomes()) == (0, None, ["open"])
    assert trials.problem == "another controller has taken the search over"


# --------------------------------------------------------------------------- free trials


def test_a_finished_run_in_the_space_is_told_at_once_and_free(tmp_path: Path) -> None:
    points = [{LR: 0.01, LAYERS: 1}, {LR: 0.001, LAYERS: 2}]
    desk = Desk(tmp_path, search(trials=3), finished=points)
    for point in points:
        run = run_of(point)
        directory = desk.store.run_dir(run.key)
        directory.write_intent(run.config, {"label": "grid"})
        finish(directory, run.config, worth(run.config))
    desk.open()
    free = list(desk.on_disk())
    assert [(t.origin, t.outcome.value, t.seconds) for t in free] == [
        (Origin.FREE, "complete", 0.0)
    ] * 2
    assert [state for state, *_ in desk.told()] == ["COMPLETE"] * 2
    desk.launch()
    assert len(desk.ran) == 3
    assert [trial.origin for trial in desk.on_disk()] == [Origin.FREE] * 2 + [Origin.SAMPLER] * 3


def test_a_trained_run_without_the_objective_is_only_evaluated_and_free(tmp_path: Path) -> None:
    point = {LR: 0.01, LAYERS: 1}
    desk = Desk(tmp_path, search(trials=1), finished=[point])
    run = run_of(point)
    directory = desk.store.run_dir(run.key)
    directory.write_intent(run.config, {"label": "grid"})
    finish(directory, override(run.config, {"evaluate.splits": ("test",)}), 0.4)
    step = desk.open().take()
    assert step is not None
    assert (step.run.key, step.action.value) == (run.key, "evaluate")
    assert [trial.origin for trial in desk.on_disk()] == [Origin.FREE]


def test_the_sweeps_own_points_come_first(tmp_path: Path) -> None:
    points = [{LR: 0.01, LAYERS: 6}, {LR: 0.02, LAYERS: 5}]
    desk = Desk(tmp_path, search(trials=3), points=points)
    desk.launch()
    trials = list(desk.on_disk())
    assert [trial.origin.value for trial in trials] == ["point", "point", "sampler"]
    assert [dict(trial.point) for trial in trials[:2]] == points
    desk.launch()
    assert len(desk.ran) == 3


# --------------------------------------------------------------------------- small spaces and ends


def test_a_point_that_was_tried_is_not_run_twice_and_a_used_up_space_ends(tmp_path: Path) -> None:
    small = search(space={LAYERS: Integers(1, 3)}, trials=50)
    desk = Desk(tmp_path, small)
    desk.launch()
    assert sorted(t.point[LAYERS] for t in desk.on_disk() if t.counts) == [1, 2, 3]
    assert len(desk.ran) == len(set(desk.ran)) == 3
    assert set(desk.outcomes()) == {"complete", "repeat"}
    assert any("every point of the space" in line for line in desk.said)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "quasi_random", "random", "nsga2"])
def test_every_sampler_makes_its_trials(tmp_path: Path, sampler: str) -> None:
    space = {LR: Uniform(1e-4, 1e-1, log=True), LAYERS: Choice(1, 2, 4)}
    desk = Desk(tmp_path, search(sampler=sampler, trials=12, space=space))
    desk.launch(most=7)
    desk.launch()
    trials = [trial for trial in desk.on_disk() if trial.counts]
    assert [trial.outcome.value for trial in trials] == ["complete"] * 12
    assert len({trial.key for trial in trials}) == 12


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    goals = [GOAL, "cost/parameters/inference"]
    desk = Desk(tmp_path, search(sampler="nsga2", objectives=goals, trials=15))
    desk.launch()
    trials = list(desk.on_disk())
    front = best_trials(trials, goals)
    values = [trial.values for trial in front if trial.values]
    assert values == sorted(values, reverse=True)
    assert len({cost for _, cost in values}) == len(values) > 1


def test_no_trial_is_begun_after_its_hours(tmp_path: Path) -> None:
    desk = Desk(tmp_path, search(trials=None, gpu_hours=0.035))  # a trial takes 0.01 hours
    desk.launch()
    assert len(desk.ran) == 4


# --------------------------------------------------------------------------- a full disk


def test_a_full_disk_ends_the_asking_and_loses_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, search(trials=5))
    desk.launch(most=2)
    from harness.search.journal import Journal

    def full(self: Journal, logs: list[dict[str, object]]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        trials = desk.open()
        step = trials.take()
        assert step is not None
        patch.setattr(Journal, "append_logs", full)
        trials.ended(step, run_to_the_end(step, desk.store.run_dir(step.run.key), trials))
        assert trials.take() is None
        assert len(trials) == 0
        assert trials.problem is not None
        assert "No space left on device" in trials.problem
    desk.ran.append(step.run.key)
    desk.launch()
    assert desk.outcomes() == ["complete"] * 5
    assert len(desk.ran) == len(set(desk.ran)) == 5
    assert [state for state, *_ in desk.told()] == ["COMPLETE"] * 5


def test_a_stop_that_another_search_asked_for_does_not_bind_this_one(tmp_path: Path) -> None:
    point = {LR: 0.01, LAYERS: 1}
    desk = Desk(tmp_path, search(trials=1), points=[point])
    run = run_of(point)
    directory = desk.store.run_dir(run.key)
    directory.write_intent(run.config, {"label": "another search"})
    directory.write_status(State.INTERRUPTED, stopped="pruned", samples_seen=100)
    directory.request_stop("pruned")
    desk.launch()
    assert (desk.outcomes(), desk.ran) == (["complete"], [run.key])


def test_a_trial_whose_run_was_stopped_between_two_commands_is_settled(tmp_path: Path) -> None:
    desk = Desk(tmp_path, halving(trials=1))
    step = desk.open().take()
    assert step is not None
    directory = desk.store.run_dir(step.run.key)
    progress(directory, 100, 0.01)
    directory.request_stop("pruned")
    directory.write_status(State.INTERRUPTED, stopped="pruned", samples_seen=100)
    desk.launch()
    assert (desk.outcomes(), desk.ran) == (["pruned"], [])
