"""What a sweep came to, on file: `results/sweeps/<name>.json`.

Written whenever a sweep is launched or reported, so that a report, a view of what is running and a
job on another machine know its runs from the records alone: without the sweep file, the data or
torch.  One manifest a name, that of the latest command.  Holds no state: that is in the run
directories.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.config import (
    RunConfig,
    Runtime,
    canonical_json,
    field_paths,
    override,
    unregistered_terms,
    validate,
)
from harness.config.sweep import Point, Points, Run, Show, Sweep, SweepFile
from harness.config.sweep_files import load_recorded
from harness.config.values import at_path
from harness.errors import NOT_WHOLE, RecordError, SweepError, one_line, refuse_long, unknown
from harness.files import drop_leftovers, read_json, write_json
from harness.metrics import display
from harness.store.record import Store, of_this_schema
from harness.store.shapes import ManifestShape, shaped

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
    trees = Trees()
    base = trees.of(runs[0].config)
    beside = {parent.key: parent for run in runs for parent in run.parents}
    own = {run.key for run in runs}
    before = _on_file(store, sweep.name)
    drop_leftovers(store.manifests)
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
            **_waves(sweep),
            "declared": _declarations(before, sweep, store, own),
            "base": base,
            "runs": [_entry(run, base, trees) for run in runs],
            "parents": [_entry(run, base, trees) for key, run in beside.items() if key not in own],
        },
    )


def _waves(sweep: Sweep) -> dict[str, Any]:
    """What the sweep has besides its points and seeds; nothing for one that has no more."""
    waves: dict[str, Any] = {}
    if sweep.nuisance:
        grid = [[path, [*values]] for path, values in sweep.nuisance.items()]
        tree = sweep.base.model_dump(mode="json")
        own = {path: at_path(tree, path) for path in sweep.nuisance}
        waves = {"nuisance": grid, "tune_on": sweep.tune_on, "tune_seeds": [*sweep.tune_seeds]}
        waves["base"] = own
    if sweep.look_counts:
        waves |= {"seeds": [*sweep.seeds], "looks": [*sweep.look_counts]}
    return {"waves": waves} if waves else {}


def _on_file(store: Store, name: str) -> dict[str, Any] | None:
    """What is there now; None where it cannot be read, since it is about to be renewed."""
    try:
        return read_json(store.manifest_file(name))
    except RecordError:
        return None


def refuse_other_file(store: Store, sweep: Sweep) -> None:
    """SweepError where the name of `sweep` is on file for another sweep file that is still there.

    A copy of the same content is the same, and so is what a job runs of a snapshot.
    """
    tree, source = _on_file(store, sweep.name), sweep.source
    before = None if tree is None else tree.get("source")
    if before is None or source is None or before["sha256"] == source.sha256:
        return
    here, other = Path(source.path), Path(before["path"])
    code = (store.root / "results" / "code").resolve()
    if code in here.parents or code in other.parents or not other.is_file():
        return
    if not other.samefile(here):
        raise SweepError(
            f"{sweep.name!r} is on file in {store.root} for {other}, and this is {here}: "
            "--name NAME gives it, and its report, a name of its own"
        )


def _plain(show: dict[str, Any]) -> dict[str, Any]:
    names = [[name, dict(point)] for name, point in show["names"].items()]  # in the table's order
    return {
        **show,
        "metrics": list(show["metrics"]),
        "labels": dict(show["labels"]),
        "names": names,
    }


def _entry(run: Run, base: Mapping[str, Any], trees: Trees) -> dict[str, Any]:
    return {
        "key": run.key,
        "label": run.label,
        "seed": run.seed,
        "point": [[path, value] for path, value in run.point.items()],  # its order is the table's
        "set": differences(base, trees.of(run.config)),
        "parents": [parent.key for parent in run.parents],
    }


class Trees:
    """Configurations as they are written; a section that several share is made a tree once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, Any]] = {}

    def of(self, config: RunConfig) -> dict[str, Any]:
        """As `model_dump(mode="json")`."""
        return {name: self._of(value) for name, value in config}

    def _of(self, value: Any) -> Any:
        if not isinstance(value, BaseModel):
            return value
        if id(value) not in self._known:  # and it stays, so that nothing else gets its address
            self._known[id(value)] = value, value.model_dump(mode="json")
        return self._known[id(value)][1]


def differences(base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted field -> value in `tree`, of those in which it differs from `base`."""
    sections = {name for name, value in tree.items() if value != base[name]}
    told = flat(base, sections)
    return {path: value for path, value in flat(tree, sections).items() if value != told[path]}


def flat(tree: Mapping[str, Any], sections: Container[str]) -> dict[str, Any]:
    """Dotted field -> value, of the fields in these sections of a configuration."""
    steps = _steps(field_paths(RunConfig))
    return {path: reduce(getitem, at, tree) for path, at in steps.items() if at[0] in sections}


@cache
def _steps(paths: tuple[str, ...]) -> dict[str, list[str]]:
    """Path -> its names; fields come with what sweep files register."""
    return {path: path.split(".") for path in paths}


# --------------------------------------------------------------------------- what was declared


def changed_declaration(store: Store, sweep: Sweep) -> str:
    """What `sweep` now declares otherwise than when the first of its runs finished, in a sentence.

    Empty where nothing was changed, or before any run had finished.
    """
    tree = _on_file(store, sweep.name)
    if tree is None:
        return ""
    keys = {entry["key"] for entry in tree["runs"]}
    history = _declarations(tree, sweep, store, keys)
    first, now = history[0]["show"], history[-1]["show"]
    changed = [field for field in _FIELDS if now.get(field) != first.get(field)]
    if not changed:
        return ""
    was = [f"the {_FIELDS[field]} was {_words_of(field, first.get(field))}" for field in changed]
    then = " and ".join(_words_of(field, now.get(field)) for field in changed)
    return f"{' and '.join(was)} when the first run finished; now {then}"


_FIELDS = {
    "primary": "primary metric",
    "margin": "margin",
    "cost": "cost",
    "looks": "number of seeds of each look",
}


def printed_before(store: Store, sweep: Sweep) -> int | None:
    """Seeds of the verdict that may have been printed before the looks were declared.

    None where no run had finished then.
    """
    tree = _on_file(store, sweep.name) if sweep.look_counts else None
    if tree is None:
        return None
    keys = {entry["key"] for entry in tree["runs"]}
    last = _declarations(tree, sweep, store, keys)[-1]
    return int(last["seeds"]) if last["finished"] else None


def _words_of(field: str, value: str | float | Sequence[int] | None) -> str:
    if value is None:
        return "not declared"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float | int) else display(str(value))


def _declarations(
    before: Mapping[str, Any] | None, sweep: Sweep, store: Store, runs: Set[str]
) -> list[dict[str, Any]]:
    """Every declaration since a run of the sweep had finished, the one of `sweep` last.

    Each comes with the number of runs that had finished when it was made.  A manifest of before
    declarations were kept stands for one that declared nothing.
    """
    now, history = sweep.declared, [] if before is None else before.get("declared", _NOT_KEPT)
    if history and history[-1]["show"] == now:
        return list(history)
    known = runs | {entry["key"] for entry in (before or {"runs": []})["runs"]}
    finished = sum(store.run_dir(key).result_file.exists() for key in known)
    entry: dict[str, Any] = {"show": now, "finished": finished}
    if sweep.look_counts and finished:
        had = {run["seed"] for run in (before or {"runs": []})["runs"]}
        entry["seeds"] = len(had) or sweep.look_counts[0]
    return [*(history if finished else []), entry]


_NOT_KEPT = [{"show": Show(x="", metrics=()).declared, "finished": 0}]


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
    tree = read_json(file) if file.parent == store.manifests else None
    if tree is None:
        raise RecordError(unknown("sweep", name, manifest_names(store)))
    of_this_schema(tree, file)
    try:
        return _manifest_of(shaped(tree, ManifestShape, file), file)
    except NOT_WHOLE as error:
        raise RecordError(
            f"{file} is no whole manifest ({one_line(error)}); the sweep's command renews it"
        ) from None


def _manifest_of(tree: Mapping[str, Any], file: Path) -> Manifest:
    if tree["name"] != file.stem:
        raise RecordError(f"{file} is the manifest of sweep {tree['name']!r}")
    source = SweepFile.recorded(tree["source"])
    for term in _terms_wanting(tree):
        wants = f"sweep {tree['name']} has loss term {term!r}, which its file registered"
        load_recorded(source, wants)
    base = validate(RunConfig, tree["base"])
    parents = _runs(tree["parents"], base, source, {}, file.name)
    runs = _runs(tree["runs"], base, source, parents, file.name)
    own = tree.get("waves", {}).get("base", {})
    sweep = Sweep(
        base=override(base, own) if own else base,
        points=Points(run.point for run in runs.values()),
        **_read_waves(tree, dict.fromkeys(run.seed for run in runs.values())),
        show=Show(**{**tree["show"], "names": _names(tree)}),
        name=tree["name"],
        question=tree["question"],
        source=source,
    )
    runtime = validate(Runtime, tree["runtime"])
    return Manifest(sweep, tuple(runs.values()), runtime, tuple(tree["command"]))


def _names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Names of points in their order; where they are on file without one, in that of the runs."""
    names = dict(tree["show"].get("names", {}))
    if isinstance(tree["show"].get("names"), list):
        return names
    of_runs = dict.fromkeys(entry["label"] for entry in tree["runs"])
    return {name: names[name] for name in [*(n for n in of_runs if n in names), *names]}


def _read_waves(tree: Mapping[str, Any], seeds: Iterable[int]) -> dict[str, Any]:
    """Arguments of a Sweep for its seeds and what it has besides."""
    waves = dict(tree.get("waves", {}))
    grid = {"nuisance": dict(waves.pop("nuisance"))} if waves.pop("base", None) else {}
    return {"seeds": tuple(seeds), **waves, **grid}


def _terms_wanting(tree: Mapping[str, Any]) -> list[str]:
    """The terms of the runs' losses that are not registered here."""
    objectives = [tree["base"]["objective"]]
    for entry in (*tree["runs"], *tree["parents"]):
        names = [path.split(".")[1] for path in entry["set"] if path.startswith("objective.")]
        objectives.append(dict.fromkeys(names))
    return list(dict.fromkeys(t for given in objectives for t in unregistered_terms(given)))


def _runs(
    entries: Iterable[Mapping[str, Any]],
    base: RunConfig,
    source: SweepFile | None,
    parents: Mapping[str, Run],
    file: str,
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    above: dict[str, list[str]] = {}
    sections: dict[tuple[str, str], Any] = {}
    for entry in entries:
        config = _config(base, entry["set"], sections)
        point: Point = dict(entry["point"])
        refuse_long("the label", str(entry["label"]))
        run = Run(entry["label"], point, entry["seed"], config, source=source)
        if run.key != entry["key"]:
            raise RecordError(
                f"{file}: the configuration of run {entry['key']} has key {run.key}: "
                "it was edited, or written by another version; the sweep's command renews it"
            )
        runs[run.key] = run
        before = [entry["parent"]] if entry.get("parent") else []  # of an earlier version
        above[entry["key"]] = entry.get("parents", before)
    known = {**parents, **runs}
    return {
        key: replace(run, parents=tuple(known[each] for each in above[key])) if above[key] else run
        for key, run in runs.items()
    }


def _config(
    base: RunConfig, own: Mapping[str, Any], sections: dict[tuple[str, str], Any]
) -> RunConfig:
    """`base` with what a run sets; a section that runs have in common is one object, read once.

    Args:
        sections: those known by now, by their names and by what is set in them.
    """
    told: dict[str, dict[str, Any]] = {}
    for path, value in own.items():
        told.setdefault(path.partition(".")[0], {})[path] = value
    places = {name: (name, canonical_json(values)) for name, values in told.items()}
    if not all(place in sections for place in places.values()):
        config = override(base, own)
        for name, place in places.items():
            sections.setdefault(place, getattr(config, name))
    # That they fit each other is known since they were written: the run's key is checked.
    return base.model_copy(update={name: sections[place] for name, place in places.items()})
