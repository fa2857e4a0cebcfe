"""How the tasks of an array begin, by what their scripts note."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from sending import ABC, send

from harness.launch.profiles import Profile
from harness.launch.slurm.launching import launch_death, note_begin
from harness.launch.slurm.orders import (
    JobOrder,
)
from harness.launch.slurm.submissions import Submission
from harness.planning.plan import Step

Plan = Callable[..., list[Step]]


class TestLaunch:
    """What the script of a task notes in the shell, where no Python of ours may run."""

    @pytest.fixture
    def play(self, steps: Plan, order: JobOrder, slurm: FakeSlurm) -> Callable[..., Submission]:
        """`play(setup, tasks)`: these tasks of four begun with such a setup line."""

        def begin(setup: str, tasks: int = 1, **environment: str) -> Submission:
            chosen = replace(order, profile=Profile(setup=(setup,)))
            done, _ = send(steps({**ABC, "d": "done"}), chosen)
            assert done.submission is not None
            text = slurm.script(101).replace(sys.executable, "python-that-is-not-there")
            for index in range(tasks):
                names = {"SLURM_ARRAY_TASK_ID": str(index), "SLURMD_NODENAME": "n1"}
                log = done.submission.log(0, index)
                with log.open("w") as out:
                    subprocess.run(
                        ["bash", "-c", text],
                        env={**os.environ, **names, **environment},
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        check=False,
                    )
            return done.submission

        return begin

    def test_a_setup_that_leaves_the_shell(self, play: Callable[..., Submission]) -> None:
        submission = play("echo no such module >&2; exit 7")
        death = launch_death(submission, 0, 0)
        assert death is not None
        assert death.error == "its job died before it began (exit code 7): no such module"
        assert (death.node, submission.held()) == ("n1", None)

    def test_a_node_without_the_interpreter(self, play: Callable[..., Submission]) -> None:
        death = launch_death(play("true"), 0, 0)
        assert death is not None
        assert death.error.startswith("its job died before it began (exit code 1): ")
        assert "python-that-is-not-there: command not found" in death.error

    def test_a_log_that_leads_out_of_the_submission_is_not_quoted(
        self, play: Callable[..., Submission], tmp_path: Path
    ) -> None:
        submission = play("exit 7")
        (tmp_path / "secret").write_text("a stranger linked this\n")
        submission.log(0, 0).unlink()
        submission.log(0, 0).symlink_to(tmp_path / "secret")
        death = launch_death(submission, 0, 0)
        assert death is not None
        assert death.error == "its job died before it began (exit code 7): without a word"

    def test_three_such_deaths_hold_the_sweep_back(self, play: Callable[..., Submission]) -> None:
        submission = play("exit 7", tasks=4)
        assert str(submission.held()).startswith("the first 3 jobs died before their runs began")
        assert launch_death(submission, 0, 3) is None  # it was not tried

    def test_a_start_that_got_further_is_no_such_death(
        self, play: Callable[..., Submission]
    ) -> None:
        submission = play("exit 7")
        note_begin(submission, 0, 0, 1)
        assert launch_death(submission, 0, 0) is None
