"""Whose the jobs are under a root that several users share."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm
from sending import ABC, send

from harness.errors import one_line, user_name
from harness.launch.executors.slurm import words
from harness.launch.slurm.orders import (
    JobOrder,
)
from harness.launch.slurm.places import look
from harness.launch.slurm.recall import cancel
from harness.launch.slurm.submissions import Submission
from harness.planning.plan import Step
from harness.store.manifest import Manifest
from harness.store.record import Store

Plan = Callable[..., list[Step]]


class TestOthers:
    """Jobs of another user under the same root, who is user 1 here."""

    @pytest.fixture
    def theirs(self, steps: Plan, order: JobOrder, slurm: FakeSlurm) -> Submission:
        done, _ = send(steps(ABC), order)
        assert done.submission is not None
        _give_away(done.submission)
        return done.submission

    def test_what_they_have_in_the_queue_is_theirs(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, theirs: Submission
    ) -> None:
        done, _ = send(steps(ABC), order)
        assert done.arrays == {}
        assert {place.owner for place in done.places.values()} == {1}
        assert f"--user={os.getuid()},1" in slurm.asked("squeue")[-1]
        assert "3 of them are jobs of daemon, whose runs they stay" in words(done, order)

    def test_a_submission_of_theirs_is_not_closed_and_what_left_its_queue_is_anybodys(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, theirs: Submission
    ) -> None:
        slurm.queue.unlink()
        done, _ = send(steps(ABC), order)
        assert len(done.keys) == 3
        assert theirs.open

    def test_where_the_jobs_of_others_are_not_shown_nothing_of_theirs_is_gone(
        self, steps: Plan, order: JobOrder, slurm: FakeSlurm, theirs: Submission
    ) -> None:
        slurm.queue.unlink()
        slurm.says("scontrol", "PrivateData             = accounts,jobs\n", to="config")
        done, _ = send(steps(ABC), order)
        assert (len(done.keys), len(done.places)) == (0, 3)

    def test_what_they_have_closed_to_others_is_told_with_the_remedy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
        told = one_line(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a/b")))
        owner = user_name(tmp_path.stat().st_uid)
        assert f"Permission denied: '{tmp_path}/a/b'; {tmp_path} belongs to {owner}: a root" in told
        assert told.endswith("set-group-ID on its folders, and umask 002 for all of them")

    def test_they_are_not_called_off(
        self, order: JobOrder, store: Store, steps: Plan, slurm: FakeSlurm, theirs: Submission
    ) -> None:
        runs = [step.run for step in steps(ABC)]
        manifest = Manifest(SimpleNamespace(name="ablation"), runs, {}, "")  # type: ignore[arg-type]
        done = cancel(manifest, [], store, partial(look, store), print, everything=True)
        assert (done.lines[1], done.exit_code) == (
            "3 runs are jobs of daemon, whom alone the scheduler obeys: ask",
            3,
        )
        assert slurm.asked("scancel") == []
        assert not any(store.run_dir(run.key).stop_requested() for run in runs)


def _give_away(submission: Submission) -> None:
    intent = submission.read()
    submission.write(replace(intent, by={**intent.by, "uid": 1}))
