import enum
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest

from harness.config import Data, Train, canonical_json, override
from harness.config.bases import SMALL
from harness.config.searchspace import Choice, Integers, Search, Uniform
from harness.config.sweep import (
    Points,
    Show,
    Sweep,
    declared_by_all,
    expand,
    matches,
    one_at_a_time,
    points,
    product,
    short_names,
    zipped,
)
from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, SweepError
from harness.planning.selection import tuning_sweep

LAYERS, MASS = "model.text.layers", "objective.instance.a_max"


def sweep(pts, seeds=(0,), **show):
    return Sweep(
        base=SMALL, points=pts, seeds=seeds, show=Show(**{"x": LAYERS, "metrics": [], **show})
    )


def test_product_by_hand():
    assert list(product({"a": [1, 2], "b": ["x", "y"]})) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_zipped_goes_in_step_and_refuses_unequal_lengths():
    assert list(zipped({"a": [1, 2], "b": [3, 4]})) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(SweepError, match="differ in length"):
        zipped({"a": [1], "b": [3, 4]})


def test_one_at_a_time_is_the_baseline_and_its_single_changes():
    got = one_at_a_time({"a": 0, "b": 0}, {"a": [0, 1], "b": [2]})
    assert list(got) == [{"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 0, "b": 2}]
    with pytest.raises(SweepError, match="no value for c"):
        one_at_a_time({"a": 0}, {"c": [1]})


def test_algebra_concatenates_crosses_excludes_and_drops_doubles():
    a, b = product({"a": [1, 2]}), product({"b": [3]})
    assert list(a + b) == [{"a": 1}, {"a": 2}, {"b": 3}]
    assert list(a * b) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert list(a.exclude(lambda p: p["a"] == 1)) == [{"a": 2}]
    assert len(a + Points([{"a": 1.0}])) == 2
    assert list(a[:1]) == [{"a": 1}]


def test_expand_gives_every_point_every_seed_and_one_run_a_key():
    runs = expand(sweep(product({LAYERS: [1, 2]}) + points({}), seeds=[0, 7]))
    # the base has 12 layers, so the empty point is a third run
    assert [(r.label, r.seed, r.config.model.text.layers) for r in runs] == [
        ("layers=1", 0, 1),
        ("layers=1", 7, 1),
        ("layers=2", 0, 2),
        ("layers=2", 7, 2),
        ("base", 0, 12),
        ("base", 7, 12),
    ]
    assert len({r.key for r in runs}) == 6
    same = expand(sweep(product({LAYERS: [12]}) + points({})))
    assert len(same) == 1


def test_base_overrides_and_seeds_reach_every_run():
    runs = expand(sweep(product({LAYERS: [1]})), overrides={"train.lr": 0.5}, seeds=[4])
    assert [(r.config.train.lr, r.config.seed) for r in runs] == [(0.5, 4)]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [({LAYERS: 3}, "is an axis of this sweep .* --only"), ({"seed": 3}, "use --seeds")],
)
def test_an_axis_cannot_be_overridden(overrides, line):
    with pytest.raises(SweepError, match=line):
        expand(sweep(product({LAYERS: [1]})), overrides=overrides)


@pytest.mark.parametrize(
    ("made", "error", "line"),
    [
        (lambda: sweep(product({"model.text.depth": [1]})), ConfigError, "unknown field"),
        (lambda: sweep(product({LAYERS: [0]})), ConfigError, "layers = 0"),
        (lambda: sweep(Points([])), SweepError, "no points"),
        (lambda: sweep(product({LAYERS: [1]}), seeds=[]), SweepError, "seeds must be given"),
        (lambda: sweep(product({LAYERS: [1]}), seeds=[1, 1]), SweepError, "each once"),
        (lambda: sweep(product({LAYERS: [1]}), baseline={LAYERS: 9}), SweepError, "baseline"),
        (lambda: sweep(product({LAYERS: [1]}), hue="nope"), ConfigError, "unknown field 'nope'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(made, error, line):
    with pytest.raises(error, match=line):
        expand(made())


def test_a_stage_that_one_depth_lacks_is_refused_with_the_point_named():
    fused = {"objective.mlm.weight": 1.0, "objective.mlm.stages": (1,)}
    line = (
        r"^layers=1: objective\.mlm\.stages = \[1\] names block 1, which a text tower of 1 .*: 0$"
    )
    with pytest.raises(ConfigError, match=line):
        expand(sweep(product({LAYERS: [2, 1]})), overrides=fused)


def test_overrides_need_to_fit_the_points_and_not_the_base_that_they_change():
    runs = expand(
        sweep(product({LAYERS: [14]})),
        overrides={"objective.mlm.weight": 1.0, "objective.mlm.stages": (13,)},
    )
    assert [run.config.objective.mlm.stages for run in runs] == [(13,)]
    with pytest.raises(ConfigError, match=r"^train\.lr = 'fast': a number is wanted$"):
        expand(sweep(product({LAYERS: [14]})), overrides={"train.lr": "fast"})


def test_matches_takes_1_and_1_0_for_one_value():
    assert matches({MASS: 0, LAYERS: 2}, {MASS: 0.0})
    assert not matches({LAYERS: 2}, {MASS: 0.0})


def test_short_names_grow_until_they_differ():
    assert short_names(["a.text.width", "a.image.width", "a.lr"]) == {
        "a.text.width": "text.width",
        "a.image.width": "image.width",
        "a.lr": "lr",
    }


def test_a_sweep_may_declare_nothing():
    show = sweep(product({LAYERS: [1]})).show
    assert show.declared == {"primary": None, "margin": None, "cost": "cost/parameters/inference"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"margin": 2.0}, r"margin = 2\.0 is of the primary metric, and none is declared"),
        ({"primary": "test/mean_recall", "margin": -1}, r"margin = -1: a number from 0 on"),
        ({"primary": "test/mean_recall", "margin": float("nan")}, r"margin = nan: a number"),
        ({"primary": "test/mean_recall", "margin": float("inf")}, r"margin = inf: a number"),
        ({"primary": "test/mean_recall", "margin": "2"}, r"margin = '2': a number"),
        ({"cost": "cost/gmacs/txt"}, r"unknown cost 'cost/gmacs/txt'; nearest: cost/gmacs/text"),
        ({"cost": "test/mean_recall"}, "unknown cost 'test/mean_recall'"),
    ],
)
def test_a_margin_or_cost_that_means_nothing_is_refused_in_one_line(given, line):
    with pytest.raises((SweepError, ConfigError), match=line) as caught:
        sweep(product({LAYERS: [1]}), **given)
    assert "\n" not in str(caught.value)


def test_sweeps_in_one_report_have_a_declaration_only_where_all_have_the_same():
    first = Show(x=LAYERS, metrics=[], primary="test/mean_recall", margin=2.0)
    other = Show(x=MASS, metrics=["*/acc1"], primary="test/mean_recall", margin=2)
    wider = Show(x=LAYERS, metrics=[], primary="test/mean_recall", margin=3.0)
    assert declared_by_all([first, other]) == first.declared
    assert declared_by_all([first, wider])["primary"] is None
    assert declared_by_all([wider])["margin"] == 3.0


def test_soft_label_sweep_has_the_baseline_once_and_no_meaningless_combination():
    runs = expand(load_sweep("ablation_soft_labels"))
    assert len(runs) == (1 + 3 * 3 * 2) * 3
    assert sum(MASS in r.point and r.point[MASS] == 0 for r in runs) == 3


def test_a_point_may_have_a_name_and_a_name_must_have_a_point():
    points = product({"model.text.layers": [1, 12]})
    show = Show("model.text.layers", ["*/acc1"], names={"CLIP": {"model.text.layers": 12.0}})
    runs = expand(Sweep(base=SMALL, points=points, seeds=[0], show=show))
    assert [run.label for run in runs] == ["layers=1", "CLIP"]
    astray = Show("model.text.layers", ["*/acc1"], names={"CLIP": {"model.text.layers": 8}})
    with pytest.raises(SweepError, match=r"'CLIP' names a point .*: {\"model.text.layers\":8}"):
        expand(Sweep(base=SMALL, points=points, seeds=[0], show=astray))


# --------------------------------------------------------------------------- what Python hands over


class Decode(enum.Enum):
    FULL = "full"
    SCALED = "scaled"


class Depth(enum.IntEnum):
    SHALLOW = 1
    DEEP = 2


@pytest.mark.parametrize(
    ("path", "given", "plain"),
    [
        (LAYERS, np.arange(1, 3), [1, 2]),
        (LAYERS, [np.int64(1), np.uint8(2)], [1, 2]),
        (LAYERS, [np.float64(1.0), 2.0], [1, 2]),
        (LAYERS, Depth, [1, 2]),
        ("train.lr", np.array([0.1, 0.25], dtype="float32"), [0.1, 0.25]),
        ("train.lr", [np.float16(0.1), np.float64(0.3)], [0.1, 0.3]),
        ("train.grad_clip", [np.float32(0.5), None], [0.5, None]),
        ("data.flip", [np.bool_(True), np.False_], [True, False]),
        ("data.decode", Decode, ["full", "scaled"]),
        ("data.decode", np.array(["full", "scaled"]), ["full", "scaled"]),
        ("data.path", [Path("a/b"), PurePosixPath("/c")], ["a/b", "/c"]),
        ("data.crop_scale", [np.array([0.5, 1.0]), (np.float32(0.1), 1)], [[0.5, 1], [0.1, 1]]),
        ("evaluate.splits", [(Decode.FULL,), ["test"]], [["full"], ["test"]]),
        ("evaluate.templates", pd.Series([("a {c}",), ("{c}.",)]), [["a {c}"], ["{c}."]]),
    ],
)
def test_values_of_numpy_paths_and_enumerations_are_plain_ones(path, given, plain):
    axis = product({path: given})
    twin = product({path: plain})
    assert canonical_json(list(axis)) == canonical_json(list(twin))
    assert json.loads(json.dumps(list(axis))) == json.loads(json.dumps(list(twin)))
    made = [override(SMALL, point).model_dump(mode="json") for point in axis]
    assert made == [override(SMALL, point).model_dump(mode="json") for point in twin]


def test_the_same_run_whoever_wrote_the_number():
    runs = expand(sweep(product({LAYERS: np.array([1, 2])}), seeds=np.arange(2)))
    twins = expand(sweep(product({LAYERS: [1, 2]}), seeds=[0, 1]))
    assert [(r.key, r.label, r.seed) for r in runs] == [(r.key, r.label, r.seed) for r in twins]
    assert {type(run.seed) for run in runs} == {int}
    expand(sweep(product({LAYERS: [1]})), overrides={"train.lr": np.float32(0.1)})
    assert override(SMALL, {"train.lr": np.float32(0.1)}).train.lr == 0.1


def test_a_configuration_may_be_written_with_numpy_and_paths():
    data = Data(source="folder", path=Path("x"), weights=np.array([1.0, 3.0]))
    assert (data.path, data.weights) == ("x", (1.0, 3.0))
    assert Train(samples=np.int32(7), lr=np.float64(0.1)) == Train(samples=7, lr=0.1)


def test_show_and_search_take_them_too():
    point = {LAYERS: np.int64(2)}
    show = Show(x=LAYERS, metrics=[], baseline=point, names={"two": point})
    assert json.loads(json.dumps([show.baseline, show.names])) == [
        {LAYERS: 2},
        {"two": {LAYERS: 2}},
    ]
    assert [run.label for run in expand(sweep(points({LAYERS: 2}), names={"two": point}))] == [
        "two"
    ]
    assert Uniform(np.float32(0.1), np.float64(1)) == Uniform(0.1, 1.0)
    assert Integers(np.int64(1), np.int8(4)).problem() is None
    assert Choice(*Decode).options == ("full", "scaled")
    assert list(Search({}, "validation/mean_recall", confirm=np.arange(3)).confirm) == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: product({LAYERS: 4}),
            "model.text.layers = 4: a list of values is wanted, such as",
        ),
        (lambda: product({"data.decode": "full"}), "'full': a list of values is wanted"),
        (lambda: product({LAYERS: {1, 2}}), "model.text.layers = {1, 2}: a list"),
        (lambda: product({LAYERS: {1: 2}}), "a list of values is wanted"),
        (lambda: product({LAYERS: np.array(4)}), "model.text.layers = array(4): a list"),
        (lambda: zipped({LAYERS: 3, "train.lr": [1]}), "model.text.layers = 3: a list"),
        (lambda: one_at_a_time({LAYERS: 1}, {LAYERS: 2}), "model.text.layers = 2: a list"),
        (lambda: product({"train.lr": [float("nan")]}), "train.lr = nan is no value that a run"),
        (lambda: product({"train.lr": [np.inf]}), "train.lr = inf is no value"),
        (lambda: points({"train.lr": {1}}), "train.lr = {1} is no value that a run can hold"),
        (lambda: points({"train.lr": object}), "train.lr = <class 'object'> is no value"),
        (lambda: points([{LAYERS: 1}]), "{field: value, ...} is wanted"),
        (lambda: points({1: 2}), "{field: value, ...} is wanted"),
        (lambda: sweep(points({LAYERS: 1}), seeds=3), "seeds = 3: a list of values is wanted"),
        (lambda: sweep(points({LAYERS: 1}), seeds=[0.5]), "whole numbers are wanted, as in range"),
        (lambda: sweep(points({LAYERS: 1}), seeds=["1"]), "seeds = ['1']: whole numbers are wan"),
        (lambda: sweep(points({LAYERS: 1}), seeds=[True]), "seeds = [True]: whole numbers are"),
    ],
)
def test_what_is_no_axis_and_no_value_is_named(make, line):
    with pytest.raises(SweepError) as error:
        make()
    assert line in str(error.value)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("train.lr", [0.12345678, 0.12345679]),
        ("train.lr", [1e-7, 1.0000001e-7]),
        ("data.fingerprint", ["1", "01"]),
        ("data.fingerprint", [None, "None", "null"]),
        ("data.fingerprint", ["a", "a #2", "a, b=1"]),
        ("data.crop_scale", [(0.5, 1.0), (0.5000001, 1.0)]),
    ],
)
def test_labels_differ_where_values_do(path, values):
    labels = [run.label for run in expand(sweep(product({path: values})))]
    assert len(set(labels)) == len(values)


def test_a_name_that_is_the_label_of_another_point_gives_way():
    made = sweep(product({LAYERS: [1, 2, 4]}), names={"layers=1": {LAYERS: 2}})
    assert [run.label for run in expand(made)] == ["layers=1", "layers=1 #2", "layers=4"]


def test_a_number_that_tells_two_labels_apart_is_free():
    names = {"layers=1 #2": {LAYERS: 4}, "layers=1": {LAYERS: 2}}
    made = sweep(product({LAYERS: [4, 2, 1]}), names=names)
    assert [run.label for run in expand(made)] == ["layers=1 #2", "layers=1", "layers=1 #3"]


def test_common_labels_are_as_short_as_ever():
    runs = expand(sweep(product({"train.lr": [5e-4, 0.1, 1.0], "data.flip": [True]})))
    assert [run.label for run in runs] == [
        "lr=0.0005, flip=True",
        "lr=0.1, flip=True",
        "lr=1, flip=True",
    ]


def test_a_plain_list_is_points_and_anything_else_a_line():
    def sweep(given):
        return Sweep(
            base=SMALL, points=given, seeds=[0], show=Show(x="train.lr", metrics=["*"]), name="x"
        )

    listed = sweep([{"train.lr": 1e-3}, {"train.lr": 2e-3}])
    assert list(listed.points) == [{"train.lr": 1e-3}, {"train.lr": 2e-3}]
    tuned = replace(listed, nuisance={"train.warmup_samples": [0, 640]})
    assert len(list(tuning_sweep(tuned).points)) == 4
    for given in (None, 3, {"train.lr": 1e-3}, "train.lr", [3]):
        with pytest.raises(SweepError, match="is wanted"):
            sweep(given)
