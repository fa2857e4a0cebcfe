"""What people call from Python, `harness.api`: the runs of a sweep as a table, reports, launches.

The same as the commands, with values in place of words; what a command tells in one line is raised
as HarnessError here.  Importing this imports neither torch nor pandas.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from harness.commands.report import build_named, check_on_file
from harness.commands.shared import HOLES
from harness.commands.sweep import keywords, parse, run_command
from harness.config.sweep_files import load_sweep
from harness.config.values import plain
from harness.errors import ConfigError, InterruptedRun, nearest, unknown
from harness.files import real_path
from harness.store.deployed import read_sittings
from harness.store.manifest import read_manifest
from harness.store.record import Store

if TYPE_CHECKING:
    import pandas as pd


P = ParamSpec("P")
R = TypeVar("R")


def _taught(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with ConfigError that names the nearest for a keyword that it lacks."""

    @wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        _refuse_unknown(function, named, _named(function))
        return function(*args, **named)

    return called


def _named(function: Callable[..., object]) -> list[str]:
    """What may be given by name, further options aside."""
    found = inspect.signature(function).parameters.values()
    return [each.name for each in found if each.kind is not inspect.Parameter.VAR_KEYWORD]


def _refuse_unknown(
    function: Callable[..., object], given: Mapping[str, object], allowed: Sequence[str]
) -> None:
    for name, value in given.items():
        if name not in allowed:
            line = unknown("keyword", name, dict.fromkeys(allowed), show=len(allowed))
            near = [f"; write {near}={value!r}" for near in nearest(name, allowed, most=1)]
            raise ConfigError(f"{function.__name__}(): {line}{''.join(near)}")


@_taught
def load(name: str, root: str | PathLike[str] = ".", *, deployed: bool = False) -> pd.DataFrame:
    """The runs of a sweep or search, a row each, finished or not.

    Columns: `label` and `seed`; each axis by its dotted field; every metric and cost by name
    (`test/mean_recall`, `cost/parameters/inference`) in the unit of the records: fractions, counts,
    milliseconds; `training_seconds`, `evaluation_seconds`, `samples_per_second`; `state`, `reason`
    (why there is no number) and `key` (the run's directory is results/runs/KEY).  What is missing
    is NaN.

    Args:
        name: as it was launched; `ablation_text_depth` for sweeps/ablation_text_depth.py.
        root: the folder that holds results/.
        deployed: each run in every form it was evaluated in, a row a form: a column `form` after
            the axes (`as trained`, `onnx`, `onnx-int8`), the numbers of that form, and its costs
            by the sitting that measured most of them, where that was quiet.

    Raises:
        RecordError: there is no such sweep, or a record cannot be read; the line names the nearest.
        ConfigError: `deployed`, and no run was evaluated in a form that ships.
    """
    from harness.results.collect import collect
    from harness.results.deployed import deployed as in_forms
    from harness.results.deployed import newest_with_most
    from harness.results.run_table import run_table

    store = _store(root)
    check_on_file(store, [name])
    manifest = read_manifest(store, name)
    collection = collect(manifest.sweep, manifest.runs, store)
    if not deployed:
        return run_table(collection)
    forms = in_forms(collection, newest_with_most(collection, read_sittings(store)[0]))
    if forms is None:
        raise ConfigError(
            f'{name}: no run was evaluated in a deployed form; evaluate.deploy=["onnx", '
            '"onnx-int8"] does so, and retrains nothing'
        )
    return run_table(forms)


@_taught
def report(
    name: str, root: str | PathLike[str] = ".", *, out: str | PathLike[str] | None = None
) -> Path:
    """Write the report of a sweep or search from its records; the folder it is in.

    Args:
        name, root: as of `load`.
        out: the folder; None: reports/NAME below `root`.

    Raises:
        HarnessError: there is no such sweep, or a record cannot be read.
    """
    store = _store(root)
    check_on_file(store, [name])
    folder = store.root / "reports" / name if out is None else Path(out)
    build_named(store, name, folder)
    return folder


def run(
    sweep: str | PathLike[str],
    overrides: Mapping[str, object] | None = None,
    *,
    root: str | PathLike[str] = ".",
    seeds: Iterable[int] | None = None,
    **options: object,
) -> pd.DataFrame:
    """Launch what is missing of a sweep, report it, and `load` it; called again, it goes on.

    Args:
        sweep: a sweep by name, or its file.
        overrides: field of the base configuration, or `runtime.FIELD` -> value.
        root: the folder that holds results/ and reports/.
        seeds: in place of the sweep's own.
        options: further options of `python -m harness.sweep`, with `_` for `-`: `base="cc3m"`,
            `only="layers=1"`, `slots=2`, `executor="slurm"`; True for one that takes no value.

    Raises:
        HarnessError: the sweep cannot be launched as asked; nothing was started then.
        InterruptedRun: it was stopped; what there is of it is on disk.
    """
    if options.keys() - {*keywords()}:
        load_sweep(str(sweep))  # which may bring an executor, with options of its own
    _refuse_unknown(run, options, [*_named(run), *keywords()])
    words = [str(sweep), *(f"{path}={_word(value)}" for path, value in (overrides or {}).items())]
    words += ["--root", str(root)]
    words += [] if seeds is None else [f"--seeds={_seeds(seeds)}"]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        given = [] if value in (None, False) else [option]
        words += given if value is True else [f"{one}={plain(value)}" for one in given]
    if options.get("dry_run"):
        raise ConfigError("dry_run: a plan is for the command line; run() gives the runs")
    args = parse(words)
    args.words = ["-m", "harness.sweep", *words]
    code = run_command(args)
    if code == InterruptedRun.exit_code:
        raise InterruptedRun("stopped; the same call goes on")
    if code not in {0, HOLES}:
        raise ConfigError(f"{sweep} was not launched; what is wrong stands above")
    return load(args.name or Path(sweep).stem, root)


def _seeds(given: Iterable[int]) -> str:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(
            f"seeds = {given!r}: a list of integers from 0 on is wanted, such as seeds=[0, 1, 2]"
        )
    return ",".join(str(plain(seed)) for seed in given)


def _word(value: object) -> str:
    """A value as `path=value` holds it; text that looks like another value keeps its quotes."""
    return json.dumps(plain(value))


def _store(root: str | PathLike[str]) -> Store:
    return Store(real_path(Path(root)))
