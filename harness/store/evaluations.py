"""Evaluations of models outside of a sweep, kept as a sweep's are.

    <root>/results/evaluations/<key>/
        result.json       which model, and an entry an evaluation, of the schema of a run's result
        outcomes/         per-example results; benchmarks/ holds each data set's part by itself

The key of a run's evaluation is the run's, and its parts are in the run's own directory, where a
sweep finds them; any other model's key is that of its weights, architecture, tokenizer and
transform.  Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.files import read_json
from harness.store.record import RunDir, Store, current_result, write_result_file

RESULT = "result.json"


@dataclass(frozen=True)
class EvaluationDir:
    """What is kept of one model."""

    path: Path
    run: RunDir | None = None

    @property
    def key(self) -> str:
        """The model's key: the directory's name."""
        return self.path.name

    @property
    def outcomes(self) -> Path:
        """Per-example results of whole evaluations."""
        return self.path / "outcomes"

    @property
    def parts(self) -> Path:
        """Where the parts of single data sets are kept."""
        return self.outcomes if self.run is None else self.run.outcomes

    def result(self) -> dict[str, Any] | None:
        """The record; None before it is written; RecordError if it is another model's."""
        file = self.path / RESULT
        result = read_json(file)
        if result is None:
            return None
        if result.get("key") != self.key:
            raise RecordError(f"{file} is of key {result.get('key')!r}, not {self.key}")
        return current_result(result, file, ("model", "evaluations"))

    def add(self, model: Mapping[str, Any], evaluation_key: str, entry: Mapping[str, Any]) -> None:
        """Write one evaluation beside those there are."""
        before = self.result() or {"evaluations": {}}
        evaluations = {**before["evaluations"], evaluation_key: dict(entry)}
        tree = {"key": self.key, "model": dict(model), "evaluations": evaluations}
        write_result_file(self.path / RESULT, tree)


def evaluations_root(store: Store) -> Path:
    """The folder of all evaluations below a root."""
    return store.root / "results" / "evaluations"


def read_evaluations(store: Store) -> Iterator[dict[str, Any]]:
    """Every record below a root, by key; RecordError for one that cannot be read."""
    for file in sorted(evaluations_root(store).glob(f"*/{RESULT}")):
        result = EvaluationDir(file.parent).result()
        if result is not None:
            yield result
