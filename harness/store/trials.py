"""What a search has tried: a file a trial, written before its run starts and when it has ended.

    <root>/results/searches/<name>/
        search.json          what is searched and for what; another definition is refused
        trials/000012.json   number, run, point, why it was tried; once over, how it ended
        journal.log          the optimiser's own record, which the other files can replace
        lease.json           the controller that writes here now

With the runs' own directories these are the whole truth.  Knows no optimiser; any machine that
sees the directory can read it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness import metrics
from harness.config import RunConfig
from harness.errors import RecordError, SweepError, whole
from harness.files import dump_json, one_name, read_json, read_jsonl, write_json
from harness.store import first_stage
from harness.store.record import SCHEMA, RunDir, Store, of_this_schema
from harness.store.state import State, Status

#: Failure classes that say something of the point itself: it cannot be trained.
TELLING = frozenset({"diverged", "invariant"})
#: Reason of a stop request by which a search prunes; `RunDir.request_stop`.
PRUNED = "pruned"
_DEFINITION = "search.json"


class Outcome(StrEnum):
    """How a trial stands."""

    OPEN = "open"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    REPEAT = "repeat"


class Origin(StrEnum):
    """Why a point was tried."""

    SAMPLER = "sampler"
    POINT = "point"
    """One of the sweep's own."""
    FREE = "free"
    """Its run was finished, or evaluated at most, before the search came to it."""


@dataclass(frozen=True)
class Trial:
    """One line of the ledger."""

    number: int
    """Also its number in the study."""
    key: str
    point: Mapping[str, Any]
    origin: Origin
    outcome: Outcome = Outcome.OPEN
    values: tuple[float, ...] | None = None
    """Of the objectives, in their order; of complete trials alone."""
    failure: str | None = None
    why: str | None = None
    """One line, of failed trials and repeats."""
    samples_seen: int = 0
    seconds: float = 0.0
    """Of training, in which nothing is counted of a run that was finished before."""

    @property
    def counts(self) -> bool:
        """Whether it is one of the trials that the search was to make."""
        return self.origin is not Origin.FREE and self.outcome is not Outcome.REPEAT

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.outcome is not Outcome.OPEN


@dataclass
class Ledger:
    """The files of one search, with their content in memory; written by the holder of its lease."""

    folder: Path
    trials: dict[int, Trial] = field(default_factory=dict)
    _of_key: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, name: str) -> Ledger:
        """What is on disk of the search `name`, be it nothing; RecordError if it cannot be read."""
        ledger = cls(search_folder(store, name))
        for file in sorted((ledger.folder / "trials").glob("*.json")):
            with whole(file):
                ledger._keep(_read_trial(file))
        missing = set(range(len(ledger.trials))) - set(ledger.trials)
        if missing:
            raise RecordError(
                f"{ledger.folder / 'trials'} lacks trial {min(missing)} of {len(ledger.trials)}; "
                "restore it, or move the search's folder away to begin a new study: runs that are "
                "finished are then told to it at once"
            )
        return ledger

    @property
    def definition_file(self) -> Path:
        """What is searched, for what."""
        return self.folder / _DEFINITION

    @property
    def lease_file(self) -> Path:
        """Who writes here now."""
        return self.folder / "lease.json"

    @property
    def journal_file(self) -> Path:
        """The optimiser's own record."""
        return self.folder / "journal.log"

    def of_key(self, key: str) -> Trial | None:
        """The trial whose run is `key`, repeats aside."""
        return self._of_key.get(key)

    def __contains__(self, trial: object) -> bool:
        return trial in self.trials.values()

    def __iter__(self) -> Iterator[Trial]:
        return iter([self.trials[number] for number in sorted(self.trials)])

    def __len__(self) -> int:
        return len(self.trials)

    # ---- writing

    def check(self, definition: Mapping[str, Any]) -> None:
        """SweepError, with a diff, if what was searched here before is something else."""
        tree = read_json(self.definition_file)
        if tree is not None:
            written = of_this_schema(tree, self.definition_file)
            _refuse_old_goals(written, self.definition_file)
            check_same(written["definition"], definition, self.definition_file)

    def define(self, definition: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write down what is searched; SweepError as `check`.

        Args:
            definition: what makes results those of one study.
            about: the rest, which may change from one command to the next.
        """
        self.check(definition)
        tree = {
            "schema": SCHEMA,
            "names": first_stage.NAMES,
            "definition": dict(definition),
            "about": dict(about),
        }
        if read_json(self.definition_file) != tree:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.definition_file, tree)

    def about(self) -> dict[str, Any]:
        """What was searched, as `define` was told; RecordError before anything was."""
        tree = of_this_schema(read_json(self.definition_file), self.definition_file)
        with whole(self.definition_file):
            return {**tree["about"], "objectives": _goals(tree)}

    def write(self, trial: Trial) -> None:
        """Put `trial` on disk, new or changed."""
        folder = self.folder / "trials"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{trial.number:06d}.json", {"schema": SCHEMA, **asdict(trial)})
        self._keep(trial)

    def _keep(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        if trial.key and trial.outcome is not Outcome.REPEAT:
            self._of_key[trial.key] = trial


def search_names(store: Store) -> list[str]:
    """The searches that are on file, in order."""
    found = search_folder(store, "").glob(f"*/{_DEFINITION}")
    return sorted(file.parent.name for file in found)


def is_search(store: Store, name: str) -> bool:
    """Whether `name` is a search that is on file."""
    return (search_folder(store, name) / _DEFINITION).exists()


def search_folder(store: Store, name: str) -> Path:
    """Where the files of the search `name` are or will be."""
    return store.root / "results" / "searches" / (one_name(name) if name else "")


def _read_trial(file: Path) -> Trial:
    tree = of_this_schema(read_json(file), file)
    del tree["schema"]
    try:
        trial = Trial(**tree)
        values = None if trial.values is None else tuple(trial.values)
        outcome, origin = Outcome(trial.outcome), Origin(trial.origin)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{file} is no trial of this version: {error}") from None
    return replace(trial, outcome=outcome, origin=origin, values=values)


def _goals(tree: Mapping[str, Any]) -> list[str]:
    """What was searched for, by the names that metrics have today."""
    goals: list[str] = tree["about"].get("objectives", [])
    return goals if "names" in tree else [first_stage.name_of(goal) for goal in goals]


def _refuse_old_goals(tree: Mapping[str, Any], file: Path) -> None:
    """SweepError if trials on file were told what now has another name."""
    for was, now in zip(tree["about"].get("objectives", []), _goals(tree), strict=True):
        if was != now:
            raise SweepError(
                f"{file} is of a search for {was} as an earlier version had it, by a rule that is "
                f"{now} today; it can be reported and not gone on with. Use another --root or "
                "another name for the sweep file, or move that folder away"
            )


def check_same(written: Mapping[str, Any], definition: Mapping[str, Any], file: Path) -> None:
    """SweepError, with a diff, unless `file` is of the search that is asked for."""
    there, here = _told(written), _told(definition)
    if there != here:
        changed = [path for path in {**there, **here} if there.get(path) != here.get(path)]
        pair = ({p: d[p] for p in changed if p in d} for d in (written, definition))
        raise SweepError(
            f"{file} is of another search: {'; '.join(_diff(*pair))}. Use another "
            "--root or another name for the sweep file, or move that folder away"
        )


def _told(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fields of the base at their defaults: one that was added since is not there."""
    default = RunConfig().model_dump(mode="json")
    return {
        path: value
        for path, value in definition.items()
        if not path.startswith("base.") or value != _at(default, path.removeprefix("base."))
    }


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _diff(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The lines that differ, `-` as it was and `+` as it is now."""
    was, now = (dump_json(tree).decode().splitlines() for tree in (there, here))
    lines = difflib.unified_diff(was, now, n=0, lineterm="")
    return [
        " ".join(line.rstrip(",").split())
        for line in lines
        if line[:1] in "+-" and line[:3] not in {"+++", "---"}
    ]


# --------------------------------------------------------------------------- the best


def best_trials(trials: Collection[Trial], goals: Sequence[str]) -> list[Trial]:
    """The best finished trial, or of several objectives all that none other beats in every one.

    Of equal ones the first; in the order of the first objective, best first.
    """
    signs = [1.0 if metrics.higher_is_better(goal) else -1.0 for goal in goals]
    scores = {
        trial.number: [s * v for s, v in zip(signs, trial.values, strict=True)]
        for trial in trials
        if trial.outcome is Outcome.COMPLETE and trial.values is not None
    }

    def beaten(number: int) -> bool:
        own = scores[number]
        return any(
            all(a >= b for a, b in zip(other, own, strict=True)) and (other != own or n < number)
            for n, other in scores.items()
            if n != number
        )

    best = [trial for trial in trials if trial.number in scores and not beaten(trial.number)]
    return sorted(best, key=lambda trial: -scores[trial.number][0])


# --------------------------------------------------------------------------- what a run says


@dataclass(frozen=True)
class Look:
    """One evaluation of a run while it trained."""

    samples_seen: int
    metrics: Mapping[str, float | None] | None
    """None when the numbers cannot be true."""

    def value_of(self, goal: str) -> float:
        """The objective `goal`; NaN when it cannot be had."""
        value = None if self.metrics is None else self.metrics.get(goal)
        return math.nan if value is None else value


def looks(directory: RunDir) -> list[Look]:
    """The evaluations of a run while it trained, in order; a line that is being written is not."""
    return [
        Look(int(line["samples_seen"]), line["metrics"])
        for line in map(first_stage.progress, read_jsonl(directory.progress_file))
    ]


def objective_values(
    result: Mapping[str, Any], evaluation_key: str, goals: tuple[str, ...]
) -> tuple[float, ...]:
    """What a finished run says of the objectives; RecordError if it lacks one of them."""
    found = []
    reported = result["evaluations"][evaluation_key]["metrics"]
    for goal in goals:
        if metrics.is_cost(goal):
            value = metrics.cost_value(result["cost"], goal)
        else:
            value = reported.get(goal, {}).get("value")
        if value is None:
            raise RecordError(f"run {result['key']} reports no {goal}")
        found.append(float(value))
    return tuple(found)


def is_stopped(directory: RunDir, status: Status) -> bool:
    """Whether somebody asked that the run stop, it is not running, and nobody wants it since.

    That it died before it could obey is no reason to take it up again.
    """
    over = status.state not in {State.RUNNING, State.DONE}
    return over and directory.stop_requested() is not None
