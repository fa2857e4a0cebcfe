"""Runs behind a command such as `ssh HOST`, whose part a small script plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from launch_cases import stand_in_for_ssh, status, trained

from harness.commands import sweep
from harness.config import Runtime
from harness.errors import ConfigError, HarnessError
from harness.files import read_json
from harness.launch.backlog import Backlog
from harness.launch.executor import Assignment, make_executor
from harness.launch.executors.prefix import PrefixExecutor
from harness.planning.plan import Step
from harness.store.record import Store
from harness.store.state import State

Plan = Callable[..., list[Step]]

#: A sweep with an executor of its own, which is all there is to one.
SWEEP = '''"""Does it matter where a run is trained?"""

from harness.bases import SMALL
from harness.config import override
from harness.launch.executor import EXECUTORS, Option
from harness.launch.executors.local import LocalExecutor
from harness.launch.executors.prefix import PrefixSlot
from harness.space import Show, Sweep, points

HOST = Option("--host", "where to train", {{"metavar": "HOST"}})


@EXECUTORS.register("elsewhere")
class Elsewhere(LocalExecutor):
    """A worker on another host."""

    options = (HOST,)

    @classmethod
    def of(cls, work, args):
        return cls(work, slots=[PrefixSlot(1, None, ({ssh!r}, HOST.value(args)))])


SWEEP = Sweep(
    base=override(SMALL, {values!r}),
    points=points({{"model.text.layers": 1}}),
    seeds=[0, 1],
    show=Show(x="model.text.layers", metrics=["test/mean_recall"]),
)
'''


@pytest.fixture
def ssh(tmp_path: Path) -> str:
    return stand_in_for_ssh(tmp_path)


def prefixed(store: Store, *prefixes: str) -> PrefixExecutor:
    words = ["smoke", "--executor", "prefix"]
    args = sweep.parse([*words, *(w for prefix in prefixes for w in ("--prefix", prefix))])
    executor = make_executor(args, Assignment(store, Runtime()))
    assert isinstance(executor, PrefixExecutor)
    return executor


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_real_runs_end_done_by_an_executor_that_is_one_file(
    own: bool, ssh: str, shapes_folder: Path, tmp_path: Path
) -> None:
    values = {
        "model.image.size": 32, "model.text.width": 16, "model.text.heads": 2,
        "model.embed_dim": 8, "model.text.vocabulary": "corpus",
        "data.source": "folder", "data.path": str(shapes_folder),
        "train.batch_size": 8, "train.samples": 16, "train.warmup_samples": 0,
    }  # fmt: skip
    file = tmp_path / "where.py"
    file.write_text(SWEEP.format(values=values, ssh=ssh))
    words = ["elsewhere", "--host", "a"] if own else ["prefix", "--prefix", f"{ssh} a"]
    assert sweep.main([str(file), "--executor", *words, "--root", str(tmp_path)]) == 0
    hosts = (tmp_path / "hosts.txt").read_text().split()
    assert hosts == ["a"]
    assert len(list((tmp_path / "results" / "runs").glob("*/result.json"))) == 2


@pytest.mark.usefixtures("fake_workers")
class TestPrefix:
    def test_each_prefix_is_a_slot_that_has_its_own_threads_and_this_directory(
        self, ssh: str, steps: Plan, store: Store, tmp_path: Path
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        executor = prefixed(store, f"{ssh} one", f"{ssh} two")
        assert executor.capacity(2).slots == 2
        with executor:
            assert executor.preflight([step.run.config for step in planned]) == []
            executor.launch(Backlog(planned, store, print), print)
        assert sorted((tmp_path / "hosts.txt").read_text().split()) == ["one", "two"]
        assert sorted(trained(store)) == ["a seed 0", "b seed 0"]
        attempts = read_json(store.run_dir(planned[0].run.key).path / "provenance.json")
        assert attempts is not None
        assert attempts["attempts"][0]["threads"] == 1

    def test_a_host_that_does_not_answer_is_found_before_anything_starts(
        self, ssh: str, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        gone = "sh -c 'echo no route to host >&2; exit 255'"
        with (
            prefixed(store, f"{ssh} one", gone) as executor,
            pytest.raises(HarnessError, match=r"worker 2 died .* exit code 255: no route to host"),
        ):
            executor.preflight([step.run.config for step in planned])

    def test_what_is_printed_on_the_way_is_no_answer(
        self, ssh: str, steps: Plan, store: Store, tmp_path: Path
    ) -> None:
        motd = tmp_path / "motd"
        motd.write_text(f'#!/bin/sh\necho "Welcome!"\nexec {ssh} "$@"\n')
        motd.chmod(0o755)
        planned = steps({"a": "done"})
        with prefixed(store, f"{motd} one") as executor:
            executor.launch(Backlog(planned, store, print), print)
        assert trained(store) == ["a seed 0"]

    def test_a_run_that_was_killed_over_there_is_tried_once_more(
        self, ssh: str, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "killed 2"})
        with prefixed(store, f"{ssh} one") as executor:
            executor.launch(Backlog(planned, store, print), print)
        seen = status(store, planned[0])
        assert (seen.state, seen.failure, seen.attempt) == (State.FAILED, "killed", 2)


@pytest.mark.parametrize(
    ("prefixes", "line"),
    [
        ([], "--executor prefix wants --prefix COMMAND"),
        (["", "ssh a"], "--executor prefix wants --prefix COMMAND"),
        (["ssh 'a"], "--prefix cannot be read: No closing quotation"),
    ],
)
def test_a_prefix_that_is_none_is_refused(prefixes: list[str], line: str, store: Store) -> None:
    with pytest.raises(ConfigError, match=line):
        prefixed(store, *prefixes)
