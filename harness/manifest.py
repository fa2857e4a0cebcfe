"""What a sweep came to, on file: `results/sweeps/<name>.json`.

Written whenever a sweep is launched or reported, so that a report, a view of what is running and a
job on another machine know its runs from the records alone: without the sweep file, the data or
torch.  One manifest a name, that of the latest command.  Holds no state: that is in the run
directories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.config import (
    RunConfig,
    Runtime,
    field_paths,
    override,
    validate,
)
from harness.errors import RecordError, unknown
from harness.record import Store, of_this_schema, read_json, write_json
from harness.space import Point, Points, Run, Show, Sweep, SweepFile

SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """A sweep as it was asked for last, its runs resolved."""

    sweep: Sweep
    """Its points and seeds are those of the runs; `show.metrics` are names and no patterns."""
    runs: tuple[Run, ...]
    runtime: Runtime
    command: tuple[str, ...]
    """Words of the command that wrote it."""


def write_manifest(
    store: Store, sweep: Sweep, runs: Sequence[Run], runtime: Runtime, command: Sequence[str]
) -> None:
    """Put on file that `sweep` has `runs`, each as what it changes in the first one's siblings.

    Args:
        sweep: with the metrics of `show` resolved to names.
        command: the words typed.
    """
    base = runs[0].config
    beside = {run.parent.key: run.parent for run in runs if run.parent is not None}
    own = {run.key for run in runs}
    write_json(
        store.manifest_file(sweep.name),
        {
            "schema": SCHEMA,
            "name": sweep.name,
            "question": sweep.question,
            "source": None if sweep.source is None else asdict(sweep.source),
            "command": list(command),
            "runtime": runtime.model_dump(mode="json"),
            "show": _plain(asdict(sweep.show)),
            "base": base.model_dump(mode="json"),
            "runs": [_entry(run, base) for run in runs],
            "parents": [_entry(run, base) for key, run in beside.items() if key not in own],
        },
    )


def _plain(show: dict[str, Any]) -> dict[str, Any]:
    return {**show, "metrics": list(show["metrics"]), "labels": dict(show["labels"])}


def _entry(run: Run, base: RunConfig) -> dict[str, Any]:
    return {
        "key": run.key,
        "label": run.label,
        "seed": run.seed,
        "point": [[path, value] for path, value in run.point.items()],  # its order is the table's
        "set": _differences(base, run.config),
        "parent": None if run.parent is None else run.parent.key,
    }


def _differences(base: RunConfig, config: RunConfig) -> dict[str, Any]:
    """Dotted field -> value in `config`, of the fields in which it differs from `base`."""
    here, there = config.model_dump(mode="json"), base.model_dump(mode="json")
    values = {path: _at(here, path) for path in field_paths(RunConfig)}
    return {path: value for path, value in values.items() if value != _at(there, path)}


def _at(tree: Mapping[str, Any], path: str) -> Any:
    value: Any = tree
    for name in path.split("."):
        value = value[name]
    return value


# --------------------------------------------------------------------------- reading


def manifest_names(store: Store) -> list[str]:
    """The sweeps that are on file, in order."""
    return sorted(file.stem for file in store.manifests.glob("*.json"))


def read_manifest(store: Store, name: str) -> Manifest:
    """The manifest of the sweep `name`.

    Raises:
        RecordError: there is none (the nearest is named), or it was edited by hand.
    """
    file = store.manifest_file(name)
    tree = read_json(file)
    if tree is None:
        raise RecordError(unknown("sweep", name, manifest_names(store)))
    of_this_schema(tree, file)
    base = validate(RunConfig, tree["base"])
    source = None if tree["source"] is None else SweepFile(**tree["source"])
    parents = _runs(tree["parents"], base, source, {}, file.name)
    runs = _runs(tree["runs"], base, source, parents, file.name)
    sweep = Sweep(
        base=base,
        points=Points(run.point for run in runs.values()),
        seeds=tuple(dict.fromkeys(run.seed for run in runs.values())),
        show=Show(**tree["show"]),
        name=tree["name"],
        question=tree["question"],
        source=source,
    )
    runtime = validate(Runtime, tree["runtime"])
    return Manifest(sweep, tuple(runs.values()), runtime, tuple(tree["command"]))


def _runs(
    entries: Iterable[Mapping[str, Any]],
    base: RunConfig,
    source: SweepFile | None,
    parents: Mapping[str, Run],
    file: str,
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    above: dict[str, str] = {}
    for entry in entries:
        config = override(base, entry["set"]) if entry["set"] else base
        if config.run_key != entry["key"]:
            raise RecordError(
                f"{file}: the configuration of run {entry['key']} has key {config.run_key}: "
                "it was edited, or written by another version; the sweep's command renews it"
            )
        point: Point = dict(entry["point"])
        runs[entry["key"]] = Run(entry["label"], point, entry["seed"], config, source=source)
        if entry["parent"] is not None:
            above[entry["key"]] = entry["parent"]
    known = {**parents, **runs}
    return {
        key: replace(run, parent=known[above[key]]) if key in above else run
        for key, run in runs.items()
    }
