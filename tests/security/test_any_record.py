"""Any JSON in place of any record, or of a value in one: a row or a line, never a traceback."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from harness.commands import export, report, status
from harness.errors import HarnessError, whole
from harness.files import read_json, write_json
from harness.monitor.web.server import _json
from harness.monitor.web.view import Board
from harness.planning.plan import Rerun, make_plan
from harness.report.content import Parts, write_content
from harness.report.external import load
from harness.report.published import beside_ours, evaluated_here
from harness.report.tables import build_tables
from harness.results.collect import collect
from harness.results.findings import find
from harness.store.checksums import digest_of
from harness.store.manifest import Manifest, read_manifest
from harness.store.record import Store
from harness.store.state import State

EXAMPLE = Path(__file__).parents[2] / "reports" / "example" / "components" / "records"
NAME = "ablation_components"
ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1e300, 10**30, "", "x", "\x1b[2J", "../..", [], [[]], {}, {"": {}},
    ["x", 1], {"value": "x"}, [[None] * 3], "nan", -(10**18),
]  # fmt: skip
ANY = st.sampled_from(ODD) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four runs of the example: three as they were, one that failed."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(EXAMPLE / "results", root / "results")
    store = Store(root)
    tree = read_json(store.manifest_file(NAME)) or {}
    tree["runs"] = tree["runs"][:4]
    write_json(store.manifest_file(NAME), tree)
    kept = {entry["key"] for entry in tree["runs"]}
    for folder in store.runs.iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)
    failed = store.run_dir(tree["runs"][3]["key"])
    failed.result_file.unlink()
    failed.write_status(State.FAILED, failure="bug", error="x", attempt=1)
    failed.add_end("bug", "x")
    for entry in tree["runs"][:3]:
        store.run_dir(entry["key"]).write_result(store.run_dir(entry["key"]).finished())
    return store


def runs_shown(store: Store) -> None:
    """As the report command does, without figures and paper."""
    manifest = read_manifest(store, NAME)
    with whole(NAME):
        show_runs(store, manifest)


def show_runs(store: Store, manifest: Manifest) -> None:
    collection = collect(manifest.sweep, manifest.runs, store)
    findings = find(collection)
    tables = build_tables(collection, findings)
    beside = beside_ours(collection, findings.cells, load(store.root / "x"), evaluated_here(store))
    write_content(collection, findings, Parts(tables, (), beside, ()))


def board(store: Store) -> None:
    """As its pages ask, of which a record that is not whole ends none."""
    view = Board(store)
    answered(view.overview)
    for ask in (view.sweep, lambda name: view.sweep_curves(name, "loss")):
        answered(partial(ask, NAME))
    for folder in sorted(store.runs.iterdir()):
        for ask in (view.run, view.run_curves, lambda key: view.run_log(key, None)):
            answered(partial(ask, folder.name))


def answered(ask: Callable[[], Any]) -> None:
    response = _json(lambda request: ask())(Request({"type": "http", "headers": []}))
    assert response.status_code in {200, 404}
    json.loads(response.body)


def plan(store: Store) -> None:
    for how in (Rerun.MISSING, Rerun.STALE):
        make_plan(list(read_manifest(store, NAME).runs), store, how)


def commands(store: Store) -> None:
    root = ["--root", str(store.root)]
    for main, words in (
        (status.main, []),
        (status.main, [NAME]),
        *((status.main, ["--logs", folder.name]) for folder in store.runs.iterdir()),
        *((export.main, [f.name, "--out", str(store.root / "out")]) for f in store.runs.iterdir()),
        (report.main, ["nothing"]),
    ):
        assert main([*words, *root]) in {0, 2, 3}


DOORS: list[Callable[[Store], None]] = [runs_shown, board, plan, commands]


def entered(door: Callable[[Store], None], store: Store) -> None:
    with suppress(HarnessError):
        door(store)


def places(tree: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every value of a tree, by the way to it; of long lists and objects the first few."""
    found = [before]
    items = list(tree.items()) if isinstance(tree, dict) else []
    items += list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items[:12]:
        found += places(value, (*before, key))
    return found


def put(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    made = copy.deepcopy(tree)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return made


def records(store: Store) -> list[Path]:
    return sorted(file for file in store.root.rglob("*.json") if file.stat().st_size)


def damage(file: Path, data: st.DataObject) -> None:
    """Put any JSON somewhere in a record, with a digest that is right."""
    tree = json.loads(file.read_text())
    place = data.draw(st.sampled_from(places(tree)))
    made = put(tree, place, data.draw(ANY))
    if isinstance(made, dict) and "digest" in made:
        made["digest"] = digest_of(made)
    file.write_bytes(json.dumps(made).encode("utf-8", "backslashreplace"))


def try_all(example: Store, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(records(example)))
    before = file.read_bytes()
    try:
        damage(file, data)
        for door in DOORS:
            entered(door, example)
    finally:
        file.write_bytes(before)
        for lock in example.root.rglob("*.lock"):
            lock.unlink()


@settings(
    max_examples=12, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.data())
def test_any_value_in_any_record_is_a_row_or_a_line(example: Store, data: st.DataObject) -> None:
    try_all(example, data)


@pytest.mark.thorough
@settings(
    max_examples=1500, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.data())
def test_thousands_of_values_in_any_record(example: Store, data: st.DataObject) -> None:
    try_all(example, data)


# --------------------------------------------------------------------------- no file at all

PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda file: os.mkfifo(file),
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a folder": lambda file: file.mkdir(),
    "nested without end": lambda file: file.write_bytes(b'{"schema":' * 100_000),
    "zero bytes": lambda file: file.write_bytes(b"\0" * 100),
}


@pytest.mark.parametrize(
    "what",
    [
        "a pipe",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in PLACES if name != "a pipe"),
    ],
)
def test_what_is_no_record_holds_up_no_door(example: Store, what: str) -> None:
    run = min(example.runs.iterdir())
    for file in [*(f for f in sorted(run.rglob("*")) if f.is_file()), example.manifest_file(NAME)]:
        before = file.read_bytes()
        file.unlink()
        PLACES[what](file)
        try:
            for door in DOORS:
                with within(60):
                    entered(door, example)
        finally:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
            file.write_bytes(before)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """AssertionError where it takes longer."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"not over in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
