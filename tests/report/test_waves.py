"""Sweeps in waves: what is due follows from the records, is taken up anywhere, and is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_records import PROTOCOL, Records, metric

import harness
from harness.config import RunConfig, Runtime
from harness.config.sweep import Run, Show, Sweep, product
from harness.config.sweep_files import load_sweep
from harness.errors import HarnessError, SweepError
from harness.launch.check import finisher
from harness.launch.foresight import can_find, upper_cost
from harness.launch.slots import Capacity
from harness.launch.waves import Wave, Waves
from harness.planning.selection import select_by, selection_on_file
from harness.report.check import check, keep_records
from harness.report.folder import build
from harness.stats.power import noncentrality
from harness.store.manifest import read_manifest, write_manifest

FILE = '''"""Is two more than one?"""

from harness.bases import SMALL
from harness.config import override
from harness.data.catalog import SOURCES
from harness.data.dataset import DataSet, Split
from harness.space import Show, Sweep, product


class Tiny(DataSet):
    def read(self, image):
        raise KeyError(image)


@SOURCES.register("of_waves")
def of_waves(data, cache):
    splits = {
        name: Split((name, name + "2"), ((f"a {name}",), ("a",)))
        for name in ("train", "validation", "test")
    }
    return Tiny("of_waves", fingerprint="0" * 64, evaluation_fingerprint="1" * 64, splits=splits)


SWEEP = Sweep(
    base=override(SMALL, {"data.source": "of_waves", "train.batch_size": 2, "train.lr": 0.01}),
    points=product({"model.text.layers": [1, 2, 4]}),
    seeds=[0, 1, 2],
    show=Show(
        x="model.text.layers",
        metrics=["test/mean_recall"],
        primary="test/mean_recall",
        margin=2.0,
        baseline={"model.text.layers": 4},
    ),
)
'''
LRS = [0.001, 0.01, 0.1]
GRID: dict[str, list[Any]] = {"train.lr": LRS, "train.warmup_samples": [0, 100]}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    file = tmp_path / "waves.py"
    file.write_text(FILE)
    return load_sweep(str(file))


def waves(sweep: Sweep, records: Records, **more: Any) -> Waves:
    runtime = Runtime()
    given: dict[str, Any] = {"base": sweep.base, "overrides": {}, **more}
    return Waves(sweep, records.store, runtime, finish=finisher(runtime), **given)


def tune(records: Records, runs: list[Run], score: Callable[[RunConfig], float]) -> None:
    for run in runs:
        value = metric(score(run.config), 100, 0.03)
        records.done(run, t2i=0.3, metrics={"validation/mean_recall": value})


def by_lr(config: RunConfig) -> float:
    """One layer likes the least rate, two the middle one, four the greatest."""
    liked = {1: 0.001, 2: 0.01, 4: 0.1}[config.model.text.layers]
    return 0.5 - 0.1 * abs(np.log10(config.train.lr / liked)) - config.train.warmup_samples / 1e5


def tuned(sweep: Sweep) -> Sweep:
    return replace(sweep, nuisance=GRID, tune_seeds=(100, 101))


def put(records: Records, wave: Wave) -> None:
    write_manifest(records.store, wave.sweep, wave.runs, Runtime(), [])


def done(records: Records, wave: Wave, value: Callable[[Run], float]) -> None:
    """Finish what the wave still lacks."""
    put(records, wave)
    for run in wave.runs:
        if not records.store.run_dir(run.key).result_file.exists():
            layers = run.config.model.text.layers
            records.done(run, t2i=value(run), parameters=100_000 * layers)


# ---- nuisance parameters


def test_the_grid_comes_first_with_equal_trials_and_sees_no_test_split(
    sweep: Sweep, records: Records
) -> None:
    wave = waves(tuned(sweep), records).now()

    assert len(wave.runs) == 3 * 6 * 2
    assert {run.seed for run in wave.runs} == {100, 101}
    assert {run.config.evaluate.splits for run in wave.runs} == {("validation",)}
    assert (wave.sweep.name, len(wave.later)) == ("waves_tuning", 9)


def test_every_point_runs_with_its_own_choice_and_fresh_seeds(
    sweep: Sweep, records: Records
) -> None:
    made = waves(tuned(sweep), records)
    tune(records, list(made.now().runs), by_lr)

    wave = made.now()

    chosen = {r.config.model.text.layers: r.config.train.lr for r in wave.runs}
    assert chosen == {1: 0.001, 2: 0.01, 4: 0.1}
    assert {r.config.train.warmup_samples for r in wave.runs} == {0}
    assert {r.seed for r in wave.runs} == {0, 1, 2}
    assert {r.config.evaluate.splits for r in wave.runs} == {("test",)}
    assert [dict(r.point) for r in wave.runs[:1]] == [{"model.text.layers": 1}]
    assert waves(tuned(sweep), records).now().runs == wave.runs  # and by any other command


def test_nothing_is_chosen_before_the_whole_grid_is_done(sweep: Sweep, records: Records) -> None:
    made = waves(tuned(sweep), records)
    first = made.now()
    tune(records, list(first.runs)[:-1], by_lr)
    records.interrupted(first.runs[-1])

    assert [run.key for run in made.now().runs] == [run.key for run in first.runs]


@pytest.mark.usefixtures("no_figures")
def test_the_report_of_a_tuned_sweep_carries_its_grid(
    sweep: Sweep, records: Records, tmp_path: Path
) -> None:
    made, folder = waves(tuned(sweep), records), tmp_path / "report"
    put(records, made.now())
    tune(records, list(made.now().runs), by_lr)
    done(records, made.now(), lambda run: 0.3 + 0.01 * run.seed)
    last = made.now()

    build(last.sweep, last.runs, records.store, folder)
    keep_records(records.store, ["waves"], folder)

    page = (folder / "report.md").read_text()
    assert " | 0.001 | 0 | 50.0 | " in page
    assert "Chosen at the edge of the grid: 3 points" in page
    assert check(folder, tmp_path / "nowhere") == []


def test_of_equals_the_first_is_chosen(sweep: Sweep, records: Records) -> None:
    made = waves(tuned(sweep), records)
    tune(records, list(made.now().runs), lambda config: 0.25)

    assert {r.config.train.lr for r in made.now().runs} == {LRS[0]}


def test_a_combination_that_diverged_is_not_chosen(sweep: Sweep, records: Records) -> None:
    made = waves(tuned(sweep), records)
    runs = list(made.now().runs)
    for run in runs:
        if run.config.train.lr == 0.1 and run.seed == 101:
            records.failed(run)
        else:
            tune(records, [run], by_lr)

    rates = {r.config.model.text.layers: r.config.train.lr for r in made.now().runs}

    assert rates == {1: 0.001, 2: 0.01, 4: 0.01}


def test_a_point_without_any_combination_left_is_told_in_a_line(
    sweep: Sweep, records: Records
) -> None:
    made = waves(tuned(sweep), records)
    for run in made.now().runs:
        if run.config.model.text.layers == 2:
            records.failed(run)
        else:
            tune(records, [run], by_lr)

    with pytest.raises(HarnessError, match=r"'model.text.layers': 2.*failed \(diverged\)") as told:
        made.now()
    assert told.value.exit_code == 3


def test_the_records_alone_tell_what_was_chosen_its_worth_and_its_edge(
    sweep: Sweep, records: Records
) -> None:
    made = waves(tuned(sweep), records)
    put(records, made.now())
    tune(records, list(made.now().runs), by_lr)
    done(records, made.now(), lambda run: 0.3 + 0.01 * run.seed)
    back = read_manifest(records.store, "waves")

    found = selection_on_file(back.sweep, records.store)

    assert back.sweep.nuisance == {path: tuple(values) for path, values in GRID.items()}
    assert found is not None
    one, two, four = found.choices.values()
    assert (one.edges, two.edges) == (
        ("train.lr", "train.warmup_samples"),
        ("train.warmup_samples",),
    )
    assert four.best is not None
    assert four.reference is None  # the base's warm-up is not in the grid
    assert f"results/runs/{made.now().runs[0].key}/result.json" not in found.inputs
    assert len([name for name in found.inputs if name.endswith("result.json")]) == 36


# ---- seeds until decided


def until(sweep: Sweep) -> Sweep:
    return replace(sweep, looks=[3, 8])


def test_looks_follow_from_the_records_until_all_is_decided(sweep: Sweep, records: Records) -> None:
    rng = np.random.default_rng(1)
    noise = {(layers, seed): 0.015 * rng.normal() for layers in (1, 2, 4) for seed in range(9)}

    def value(run: Run) -> float:
        layers = run.config.model.text.layers
        return {1: 0.2, 2: 0.38, 4: 0.4}[layers] + noise[layers, run.seed]

    made, sizes = waves(until(sweep), records), []
    for _ in range(3):
        wave = made.now()
        sizes.append(len(wave.runs))
        done(records, wave, value)

    assert sizes[0] == 9
    assert sizes[1] > 9
    seeds = {
        label: [r.seed for r in wave.runs if r.label == label]
        for label in dict.fromkeys(r.label for r in wave.runs)
    }
    assert len(seeds["layers=1"]) == 3  # decided at the first look
    assert len(seeds["layers=2"]) == len(seeds["layers=4"]) > 3
    assert sizes[-1] == sizes[-2]


def test_a_wave_that_is_not_over_stays(sweep: Sweep, records: Records) -> None:
    made = waves(until(sweep), records)
    first = made.now()
    for run in first.runs[:-1]:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    assert made.now().runs == first.runs


def test_the_report_has_a_line_a_look_and_gives_the_same_bytes_from_the_records(
    sweep: Sweep, records: Records, tmp_path: Path
) -> None:
    made = waves(until(sweep), records)
    rng = np.random.default_rng(3)
    for _ in range(3):
        done(records, made.now(), lambda run: 0.3 + 0.03 * rng.normal())
    last, folder = made.now(), tmp_path / "report"
    put(records, last)

    build(last.sweep, last.runs, records.store, folder)
    page = (folder / "report.md").read_text()
    back = read_manifest(records.store, "waves")
    build(back.sweep, back.runs, records.store, tmp_path / "again")
    keep_records(records.store, ["waves"], folder)

    assert check(folder, tmp_path / "nowhere") == []
    assert "Looks" in page
    assert "| look | seeds" in page
    assert (tmp_path / "again" / "report.md").read_text() == page


def test_before_the_first_look_is_complete_the_page_judges_nothing(
    sweep: Sweep, records: Records, tmp_path: Path
) -> None:
    wave = waves(until(sweep), records).now()
    put(records, wave)
    for run in wave.runs[:-1]:
        records.done(run, t2i=0.2 + 0.1 * (run.label == "layers=1") + 0.001 * run.seed)

    result = build(wave.sweep, wave.runs, records.store, tmp_path / "report")

    page = (tmp_path / "report" / "report.md").read_text()
    assert not result.complete
    assert "The next look is not complete: nothing of it is judged." in page
    assert "better than" not in page


@pytest.mark.usefixtures("no_figures")
def test_looks_declared_after_a_verdict_say_so_with_the_joint_bound(
    sweep: Sweep, records: Records, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    done(records, waves(sweep, records).now(), lambda run: 0.3 + 0.03 * rng.normal())
    made = waves(until(sweep), records)
    put(records, made.now())
    last = made.now()

    build(last.sweep, last.runs, records.store, tmp_path / "report")

    assert "may have been printed" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("most", "counts"),
    [(16, (3, 5, 8, 12, 16)), (4, (3, 4)), (5, (3, 5)), (17, (3, 5, 8, 12, 17))],
)
def test_looks_that_are_not_given_have_half_as_many_seeds_again(
    most: int, counts: tuple[int, ...], sweep: Sweep
) -> None:
    assert replace(sweep, until=most).look_counts == counts


# ---- bad input


BAD: list[tuple[Mapping[str, Any], str]] = [
    ({"nuisance": {"model.text.layers": [1, 2]}}, "is an axis of the points and a nuisance"),
    ({"nuisance": {"train.learning_rate": [1, 2]}}, "here it is train.lr"),
    ({"nuisance": {"train.lr": []}}, "values are wanted"),
    ({"nuisance": {"train.lr": [0.1, 0.1]}}, "each once"),
    ({"nuisance": {"train.lr": 0.1}}, "a list of values is wanted"),
    ({"nuisance": {"train.lr": [0.1]}}, "nothing to choose"),
    ({"nuisance": {"seed": [1, 2]}}, "seed is no nuisance parameter"),
    ({"nuisance": {"evaluate.templates": [["a {c}"], None]}}, "no nuisance parameter"),
    ({"nuisance": GRID, "tune_on": "test/mean_recall"}, "a metric of the validation split"),
    ({"nuisance": GRID, "tune_seeds": (2,)}, r"the report has seeds \[2\] too"),
    ({"nuisance": GRID, "tune_seeds": ()}, "must be given"),
    ({"until": 3}, "more than the 3 seeds"),
    ({"until": "many"}, "whole numbers of seeds"),
    ({"until": 8, "looks": [3, 8, 5]}, "each above the last"),
    ({"until": 8, "looks": [3, 5]}, "is not the last of them"),
    ({"looks": [4, 8]}, "the first look has the sweep's own 3 seeds"),
    ({"until": 8, "seeds": [0]}, "at least 2 seeds"),
    ({"until": 8, "show": Show(x="model.text.layers", metrics=[])}, "declares both"),
]


@pytest.mark.parametrize(("given", "line"), BAD)
def test_what_means_nothing_is_one_line(given: Mapping[str, Any], line: str, sweep: Sweep) -> None:
    with pytest.raises(HarnessError, match=line):
        replace(sweep, **given)


def test_an_override_of_a_nuisance_parameter_is_refused(sweep: Sweep, records: Records) -> None:
    with pytest.raises(SweepError, match=r"train\.lr is a nuisance parameter"):
        waves(tuned(sweep), records, overrides={"train.lr": 0.5}).now()


def test_data_without_a_validation_split_cannot_be_tuned_on(
    tmp_path: Path, records: Records
) -> None:
    file = tmp_path / "without.py"
    file.write_text(FILE.replace('"validation", ', "").replace("of_waves", "without"))
    without = load_sweep(str(file))

    with pytest.raises(HarnessError, match="validation"):
        waves(tuned(without), records).now()


def test_more_seeds_than_the_most_cannot_have_run(sweep: Sweep, records: Records) -> None:
    done(records, waves(replace(sweep, seeds=range(5)), records).now(), lambda run: 0.3)

    with pytest.raises(SweepError, match="5 seeds of layers=1 have run already"):
        waves(replace(sweep, until=4), records).check_seeds()


def test_a_sweep_without_waves_is_one_and_as_it_was(sweep: Sweep, records: Records) -> None:
    made = waves(sweep, records)

    assert made.is_one
    assert len(made.now().runs) == 9
    assert made.now().title == ""
    assert product({"train.lr": LRS}) is not None
    assert select_by(sweep, [], records.store).waiting == ()
    assert PROTOCOL["splits"]


# ---- what the plan says


def test_the_plan_says_what_the_seeds_find_from_earlier_runs(
    sweep: Sweep, records: Records
) -> None:
    made = waves(sweep, records)
    wave = made.now()
    assert [*can_find(sweep, wave.runs, records.store)] == [
        "no earlier run here tells the variance of mean recall: what can be found is not known"
    ]
    rng = np.random.default_rng(0)
    done(records, wave, lambda run: 0.3 + 0.01 * rng.normal())
    values = {
        (run.label, run.seed): records.store.run_dir(run.key).finished()["evaluations"][
            run.config.evaluation_key
        ]["metrics"]["test/mean_recall"]["value"]
        for run in wave.runs
    }
    table = np.array(list(values.values())).reshape(3, 3)
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    square = (residual**2).sum() / 4

    found, margin = can_find(sweep, wave.runs, records.store)

    # two comparisons and a slope; noncentral t by scipy, checked in test_verdicts
    least = noncentrality(4, 0.05 / 3) * np.sqrt(2 * square / 3)
    assert found.startswith(f"3 seeds find a difference of {100 * least:.1f} points in mean recall")
    assert "by the runs of waves, 4 degrees of freedom" in found
    assert margin.startswith("a difference of the margin, 2 points, needs about ")


def test_the_upper_cost_counts_the_grid_and_every_look(sweep: Sweep, records: Records) -> None:
    made = waves(replace(tuned(sweep), looks=[3, 8]), records)
    capacity = Capacity(2, "")

    (line,) = upper_cost(made.now(), records.store, capacity)

    assert line.startswith("upper cost: 60 runs in all waves, of which 36 now; at most about ")
    assert [*upper_cost(waves(sweep, records).now(), records.store, capacity)] == []


def test_the_plan_with_earlier_runs_is_made_without_torch_and_pandas() -> None:
    code = (
        "import sys\n"
        "from harness.commands.sweep import main\n"
        "root = 'reports/example/components/records'\n"
        "main(['ablation_components', '--dry-run', '--root', root])\n"
        "print(sorted({'torch', 'pandas', 'seaborn', 'optuna', 'submitit'} & set(sys.modules)))"
    )
    where = Path(harness.__file__).parents[1]
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()

    assert any(line.startswith("plan: 3 seeds find a difference of ") for line in told)
    assert told[-1] == "[]"
