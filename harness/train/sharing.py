"""An evaluation whose pictures and texts are embedded by all processes of a run, batch by batch.

The first process evaluates as if it were alone; the others wait for what it asks to be embedded.
Batches are those of one process and go round by rank, so that the numbers have the same bits.
Waiting for a batch is an exchange, and bounded like every other; waiting while the first process
computes something by itself is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import torch

from harness.config import Evaluate, Runtime
from harness.data.account import Problem
from harness.data.dataset import DataSet
from harness.errors import DataError, HarnessError, one_line
from harness.evaluate.benchmarks import opened
from harness.evaluate.embed import EmbeddedBatch, Work, work_asked
from harness.evaluate.model import Encoders
from harness.train.checkpoint import from_bytes, to_bytes
from harness.train.distributed import ProcessGroup

_WHAT = "an evaluation"


class Sharing:
    """A `Share` of the first process of a group, whose others are in `help_to_evaluate`.

    Attributes:
        broken: whether it ended in the midst of an exchange, so that nobody can be told more.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.broken = False

    def __call__(self, asked: Mapping[str, Any], work: Work) -> list[EmbeddedBatch]:
        """All batches of `work`; by this process alone where another one lacks the data."""
        if self._group.size == 1:
            return list(work(0, 1))
        self.broken = True
        _hear(self._group, lambda: to_bytes(_plain(asked)))
        able = not self._group.all_reduce_stop(False, ())[0]
        found, failed = _in_turns(self._group, work) if able else ([], None)
        self.broken = False
        if failed is not None:
            raise failed
        return found if able else list(work(0, 1))

    def end(self) -> None:
        """Let the others go."""
        if self._group.size > 1 and not self.broken:
            self.broken = True
            _hear(self._group, lambda: to_bytes({}))


@contextmanager
def shared_evaluation(group: ProcessGroup) -> Iterator[Sharing]:
    """The evaluation of the first process, at whose end, good or bad, the others go on."""
    sharing = Sharing(group)
    try:
        yield sharing
    finally:
        sharing.end()


def help_to_evaluate(
    group: ProcessGroup, model: Encoders, data: DataSet, evaluate: Evaluate, runtime: Runtime
) -> None:
    """Embed what the first process asks for, until its evaluation is over.

    Args:
        model, data: what it has too.

    Raises:
        RankLost: another process is gone.
    """
    with torch.random.fork_rng(devices=[]):  # as around the evaluation itself
        while asked := _hear(group, bytes):
            source: DataSet | None = data
            if "set" in asked and "tokens" not in asked:
                source = opened(asked["set"], asked["fingerprint"], evaluate, runtime)
            if group.all_reduce_stop(source is None, ())[0] or source is None:
                continue
            _in_turns(group, work_asked(asked, model, source, evaluate, runtime))


def _hear(group: ProcessGroup, told: Callable[[], bytes]) -> dict[str, Any]:
    """What the first process tells the others, once it does; nothing to itself."""
    group.wait_for_first(_WHAT)
    heard = group.broadcast(told)
    return {} if heard is None else from_bytes(heard)


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {**asked, **({"images": list(asked["images"])} if "images" in asked else {})}


def _in_turns(group: ProcessGroup, work: Work) -> tuple[list[EmbeddedBatch], HarnessError | None]:
    """Embed this process's batches; those of all in their order, and what stood in the way."""
    found: list[EmbeddedBatch] = []
    with closing(work(group.rank, group.size)) as own:
        while True:
            told, failed = _next(own)
            of_all = [from_bytes(each) for each in group.bytes_of_all(told) if each]
            reasons = [each["failed"] for each in of_all if "failed" in each]
            if reasons:
                return found, failed or DataError(reasons[0])
            found += [_batch(each) for each in of_all] if group.rank == 0 else []
            if len(of_all) < group.size:
                return found, None


def _next(own: Iterator[EmbeddedBatch]) -> tuple[bytes, HarnessError | None]:
    """The next batch, or why there is none, as all are told; nothing after the last."""
    try:
        batch = next(own, None)
    except HarnessError as error:
        return to_bytes({"failed": one_line(error)}), error
    return b"" if batch is None else to_bytes(_told(batch)), None


def _told(batch: EmbeddedBatch) -> dict[str, Any]:
    problems = [(problem.where, problem.reason) for problem in batch.problems]
    return {**batch._asdict(), "places": list(batch.places), "problems": problems}


def _batch(told: Mapping[str, Any]) -> EmbeddedBatch:
    problems = [Problem(*pair) for pair in told["problems"]]
    return EmbeddedBatch(told["embeddings"], told["places"], problems)
