import pytest

from harness.config.bases import SMALL
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
    line = r"^layers=1: stages = \[1\] names block 1, which a text tower of 1 layers lacks; .*: 0$"
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
