"""Which figure a sweep gets, and that every mark of it is a number of the records."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from pypdf import PdfReader
from report_records import I2T, ROLE, T2I, Records, depth_sweep, fill, runs_by, sweep_of

from harness.config.sweep import Run, Sweep, expand
from harness.figures import marks, style
from harness.figures.base import SWEEP, Drawing, Scale, Sheet, scale_of
from harness.figures.names import spread
from harness.figures.trade_off import front, trade_off
from harness.report.external import PublishedResult
from harness.results.collect import collect
from harness.results.findings import find

INSTANCE = "objective.instance."


@pytest.fixture(autouse=True)
def in_house_style() -> Iterator[None]:
    with style.house():
        yield


def drawings(sweep: Sweep, runs: list[Run], records: Records) -> dict[str, Drawing]:
    collection = collect(sweep, runs, records.store)
    drawn = SWEEP.draw(Sheet(collection, find(collection)))
    return {drawing.name: drawing for drawing in drawn}


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.axison]


def means(ax: Axes) -> list[tuple[float, float]]:
    """The marks of the first line of means."""
    line = next(line for line in ax.lines if line.get_marker() == "o")
    xs, ys = line.get_data()
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


# ---- the axis


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 4, 8, 12], "log2"),
        ([1, 2, 3, 4, 5], "linear"),
        ([0.0, 0.1, 0.2, 0.4], "linear"),
        ([64, 112, 224], "log2"),
        (["resnet18", "mobilenetv2_100"], "categorical"),
        ([True, False], "categorical"),
        ([None, 1.0], "categorical"),
        ([8], "linear"),
    ],
)
def test_numbers_stand_where_they_belong(values: Sequence[Any], kind: str) -> None:
    assert scale_of(values).kind == kind


def test_values_are_sorted_and_each_once() -> None:
    assert scale_of([12, 1, 4, 1]).values == (1, 4, 12)
    assert scale_of(["b", "a", "b"]).values == ("b", "a")


def test_positions_and_shifts_by_hand() -> None:
    assert Scale("linear", (0, 10)).at(5, 0.1) == 6.0
    assert Scale("log2", (1, 2, 16)).at(2, 0.25) == 4.0
    assert Scale("categorical", ("b", "a")).at("a", 0.1) == 1.2


# ---- which figures


def test_a_one_axis_sweep_gets_lines_a_trade_off_and_curves(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs)

    assert list(drawings(sweep, runs, records)) == [
        "metric_vs_axis",
        "trade_off",
        "differences",
        "training_curves",
    ]


def test_a_sweep_over_several_axes_gets_dots_by_label(records: Records) -> None:
    sweep = sweep_of(
        {
            INSTANCE + "a_max": [0.1, 0.2],
            INSTANCE + "weighting": ["uniform", "text"],
            INSTANCE + "schedule": ["linear", "cosine"],
        }
    )
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    found = drawings(sweep, runs, records)

    assert set(found) == {"main_effects", "metric_by_point", "training_curves"}
    labels = [tick.get_text() for tick in found["metric_by_point"].figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["0.1, uniform, linear", "0.1, uniform, cosine"]
    assert len(set(labels)) == 8


def test_nothing_on_disk_is_no_figure(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)

    assert drawings(sweep, runs, records) == {}


# ---- what they show


def test_means_stand_at_their_depth_and_a_hole_breaks_the_line(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))

    figure = drawings(sweep, runs, records)["metric_vs_axis"].figure

    titles = [ax.get_title(loc="left") for ax in panels(figure)]
    assert titles == ["T2I R@1 (%)", "difference to 12 layers"]
    marks = means(panels(figure)[0])
    assert [x for x, _ in marks] == [1.0, 2.0, 4.0, 8.0, 12.0]
    assert marks[0][1] == pytest.approx(30.3)
    assert math.isnan(marks[2][1])
    seeds = panels(figure)[0].collections[0].get_offsets()
    assert len(seeds) == 14


def test_chance_is_a_line_where_it_is_near_and_named_where_it_is_far(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    for run in runs:
        records.done(run, t2i=0.008 + 0.001 * run.config.model.text.layers)

    near = panels(drawings(sweep, runs, records)["metric_vs_axis"].figure)[0]

    assert any(list(line.get_ydata()) == [0.5, 0.5] for line in near.lines)
    assert near.get_title(loc="right") == "\u22ef chance 0.5"


def test_far_chance_is_named_and_does_not_flatten_the_data(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    far = panels(drawings(sweep, runs, records)["metric_vs_axis"].figure)[0]

    assert far.get_title(loc="right") == "chance 0.5 \u2193"
    assert far.get_ylim()[0] > 20


def test_bars_are_those_of_the_verdicts(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I], primary=T2I, margin=2.0)
    runs, _ = runs_by(sweep)
    fill(records, runs)
    collection = collect(sweep, runs, records.store)
    sheet = Sheet(collection, find(collection))

    right = panels(SWEEP.draw(sheet)[0].figure)[1]

    made = list(sheet.compared(T2I).values())
    lines = [
        line for line in right.lines if line.get_linestyle() == "-" and line.get_marker() != "o"
    ]
    upright = [line for line in lines if len(set(line.get_xdata())) == 1]
    bars = [sorted(line.get_ydata()) for line in upright]
    assert bars == [pytest.approx([100 * end for end in c.interval[:2]]) for c in made]
    marks = [line for line in right.lines if line.get_marker() == "o"]
    assert [mark.get_xdata()[0] for mark in marks] == [1, 2, 4, 8]
    colours = [mark.get_color() for mark in marks]
    assert colours == [style.WORSE] * 2 + [
        style.WORSE if made[2].decided else style.OPEN,
        style.OPEN,
    ]
    assert [text.get_text() for text in right.texts] == [
        "\u22129.9",
        "\u22124.7",
        "\u22121.9",
        "\u22120.3",
    ]
    assert [patch.get_height() for patch in right.patches] == [2.0], "the margin"


def test_a_hue_gives_a_line_a_value(records: Records) -> None:
    sweep = sweep_of(
        {"model.text.layers": [1, 2, 4], "model.image.backbone": ["resnet18", "resnet34"]},
        hue="model.image.backbone",
        metrics=[T2I],
    )
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    figure = drawings(sweep, runs, records)["metric_vs_axis"].figure

    names = [text.get_text() for text in panels(figure)[0].texts]
    assert names == ["backbone resnet18", "backbone resnet34"]


def test_curves_average_nothing_over_a_run_that_stopped(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))
    records.failed(at(4, 1))

    ax = drawings(sweep, runs, records)["training_curves"].figure.axes[0]

    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [len(line.get_xdata()) for line in dashed] == [10, 4, 10]
    grey = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(ax.lines) + sum(len(c.get_segments()) for c in grey) == 4 + 3


def test_of_many_curves_four_stand_out_by_name(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": list(range(1, 10))}, baseline={"model.text.layers": 5})
    runs = expand(sweep, seeds=[0])
    for run in runs:
        records.done(run, t2i=0.4 if run.config.model.text.layers == 7 else 0.3)

    ax = drawings(sweep, runs, records)["training_curves"].figure.axes[0]

    assert [text.get_text() for text in ax.texts] == ["1", "5", "7", "9"], "ends, baseline, best"
    (grey,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(grey.get_segments()) == 5


def test_curves_are_of_the_contrastive_term_and_of_three_places_at_least(records: Records) -> None:
    sweep = sweep_of({WEIGHT: [0.0, 0.5]}, metrics=[T2I])
    runs = expand(sweep, seeds=[0])
    for run in runs:
        directory = records.done(run, t2i=0.3)
        directory.metrics_file.unlink()
        for step in (1, 2, 3):
            terms = {"instance": 3.0 / step, "token": 7.0}
            line = {"samples_seen": 100 * step, "loss": 10.0, "terms": terms}
            directory.append_metrics(line)

    drawing = drawings(sweep, runs, records)["training_curves"]
    rows = list(csv.DictReader(io.StringIO(drawing.data)))
    assert [float(row["contrastive_loss"]) for row in rows] == [3.0, 1.5, 1.0] * 2
    for run in runs:
        file = records.store.run_dir(run.key).metrics_file
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    assert "training_curves" not in drawings(sweep, runs, records)


def test_the_data_beside_a_figure_is_what_it_draws(records: Records) -> None:
    sweep = depth_sweep(metrics=[I2T])
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))

    drawing = drawings(sweep, runs, records)["metric_vs_axis"]
    rows = list(csv.DictReader(io.StringIO(drawing.data)))

    of_hole = [row for row in rows if row["model.text.layers"] == "4"]
    assert [(row["seed"], float(row["value"])) for row in of_hole] == [("0", 0.39), ("2", 0.393)]
    drawn = [y / 100 for _, y in means(drawing.figure.axes[0]) if not math.isnan(y)]
    assert [float(row["value"]) for row in rows if row["seed"] == "mean"] == pytest.approx(drawn)


def test_the_users_own_settings_change_no_byte() -> None:
    import matplotlib

    def picture() -> bytes:
        with style.house():
            figure, (ax,) = style.panels(1)
            ax.plot([0, 1], [0, 1])
            return style.svg(figure)

    plain = picture()
    with matplotlib.rc_context({"axes.xmargin": 0.3, "font.size": 20}):
        assert picture() == plain


# ---- two axes


WEIGHT = "objective.token.weight"


def two_axes(records: Records, skip: tuple[int, float, int] | None = None) -> dict[str, Drawing]:
    sweep = sweep_of({"model.text.layers": [1, 2, 4], WEIGHT: [0.0, 0.1, 0.5]}, metrics=[T2I])
    runs = expand(sweep)
    for run in runs:
        layers, weight = run.config.model.text.layers, run.config.objective.token.weight
        if (layers, weight, run.seed) != skip:
            records.done(run, t2i=0.3 + 0.01 * layers + 0.1 * weight)
    return drawings(sweep, runs, records)


def test_a_grid_of_two_axes_is_a_heat_map(records: Records) -> None:
    ax = two_axes(records)["metric_by_two_axes"].figure.axes[0]

    (image,) = ax.images
    # rows are weights from the top, columns are layers
    assert image.get_array()[2, 1] == pytest.approx(37.0)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "0.1", "0.5"]
    assert "37.0" in [text.get_text() for text in ax.texts]


def test_a_hole_of_the_map_is_hatched_and_has_no_number(records: Records) -> None:
    ax = two_axes(records, skip=(2, 0.1, 1))["metric_by_two_axes"].figure.axes[0]

    hatched = [patch for patch in ax.patches if patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [(0.5, 0.5)]
    assert len(ax.texts) == 8


# ---- differences


def test_the_forest_fills_what_is_significant(records: Records) -> None:
    sweep = depth_sweep(metrics=[I2T, T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    (ax,) = panels(drawings(sweep, runs, records)["differences"].figure)

    assert ax.get_title(loc="left") == "T2I R@1", "the leading metric has a figure of its own"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1", "2", "4", "8"]
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([-9.9, -4.7, -1.9, -1 / 3])
    filled = [mark.get_markerfacecolor() != "white" for mark in marks]
    assert filled == [True, True, True, False]


def grouped_forest(records: Records) -> Axes:
    """Of two weights against none, at either of two depths."""
    sweep = sweep_of(
        {"model.text.layers": [1, 2], WEIGHT: [0.0, 0.1, 0.5]}, baseline={WEIGHT: 0.0}, hue=WEIGHT
    )
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed, i2t=0.3 + 0.02 * run.seed)
    (ax,) = panels(drawings(sweep, runs, records)["differences"].figure)
    return ax


def test_a_panel_is_as_wide_whichever_of_its_ticks_it_is_measured_by(records: Records) -> None:
    ax = grouped_forest(records)

    widths = set()
    for tick in ax.yaxis.get_major_ticks():
        with mock.patch.object(ax.yaxis, "_update_ticks", return_value=[tick]):
            widths.add(ax.spines["left"].get_window_extent().width)

    assert len(widths) == 1


def test_the_forest_is_grouped_by_the_outer_factor(records: Records) -> None:
    ax = grouped_forest(records)

    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["1 layer", "0.1", "0.5", "2 layers", "0.1", "0.5"]
    bold = [tick.get_fontweight() == "bold" for tick in ax.get_yticklabels()]
    assert bold == [True, False, False] * 2
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [mark.get_ydata()[0] for mark in marks] == [1, 2, 4, 5]


def test_numbers_below_a_panel_never_touch() -> None:
    names = [f"{place}/acc1" for place in "abcd"]
    figure, panels_ = marks.forest(names, ["a point with a long name", "another"], 0.2)
    for ax, _ in panels_:
        ax.plot([-0.00021, 0.00024], [0, 1])

    renderer = style.settle(figure)

    for ax, _ in panels_:
        shown = [label for label in ax.get_xticklabels() if label.get_visible()]
        boxes = [label.get_window_extent(renderer) for label in shown]
        assert len(boxes) > 1
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_a_number_beside_a_mark_has_the_decimals_that_its_error_asks_for() -> None:
    assert marks.number_words(0.0246, 0.01, T2I) == "+2.5"
    assert marks.number_words(-0.00021, 0.0004, "validation/grounding_gap") == "\u22120.0002"
    assert marks.number_words(0.0, None, T2I) == "0.0"


# ---- main effects


def test_main_effects_by_hand(records: Records) -> None:
    sweep = sweep_of(
        {INSTANCE + "a_max": [0.0, 0.2], WEIGHT: [0.0, 0.5]},
        metrics=[T2I],
        baseline={INSTANCE + "a_max": 0.0, WEIGHT: 0.0},
    )
    runs = expand(sweep)
    for run in runs:
        soft = run.config.objective.instance.a_max > 0
        token = run.config.objective.token.weight > 0
        value = 0.3 + 0.05 * soft - 0.1 * token + 0.04 * (soft and token)
        records.done(run, t2i=value + 0.0001 * (run.seed + soft * run.seed))

    drawing = drawings(sweep, runs, records)["main_effects"]

    (ax,) = panels(drawing.figure)
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names[:2] == ["a_max 0 \u2192 0.2", "weight 0 \u2192 0.5"]
    assert names[2:] == ["a_max \u00d7 weight"]
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert marks[0].get_xdata()[0] == pytest.approx(7.0, abs=0.05), "(5 + 9) / 2"
    assert marks[1].get_xdata()[0] == pytest.approx(-8.0, abs=0.05), "(-10 - 6) / 2"
    assert [mark.get_color() for mark in marks[:2]] == [style.BETTER, style.WORSE]


# ---- cost


def test_front_by_hand() -> None:
    points = [(3.0, 0.5), (1.0, 0.3), (2.0, 0.3), (2.0, 0.4), (4.0, 0.45), (1.0, 0.2)]

    assert front(points) == [(1.0, 0.3), (2.0, 0.4), (3.0, 0.5)]


def test_published_models_are_grey_and_never_on_the_front(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)
    collection = collect(sweep, runs, records.store)
    findings = find(collection)
    common = {"dataset": "openmoji", "metric": "acc1", "value": 0.9, "source": "a paper"}
    published = {
        T2I: [
            PublishedResult(method="=Cheap & good", params_m=0.001, **common),
            PublishedResult(method="of unknown size", gmacs=1.0, **common),
        ],
        I2T: [PublishedResult(method="of another metric", params_m=0.001, **common)],
    }

    drawing = trade_off(Sheet(collection, findings, published))

    assert drawing is not None
    rows = list(csv.DictReader(io.StringIO(drawing.data)))
    theirs = [
        (r["name"], float(r["cost_value"]))
        for r in rows
        if r["cost"] == "parameters" and r["source"]
    ]
    assert theirs == [("'=Cheap & good", pytest.approx(0.001))]
    ours = {row["name"]: row["front"] for row in rows if not row["source"]}
    assert ours == {"1": "true", "2": "true", "4": "true", "8": "true", "12": "true"}
    assert "Grey: published models" in drawing.words
    (ax,) = panels(drawing.figure)
    assert ax.get_xscale() == "log"
    assert {text.get_text() for text in ax.texts} == {"1", "2", "4", "8", "12", "=Cheap & good"}


# ---- schedules


def test_schedules_are_drawn_as_logged_and_equal_ones_share_a_line(records: Records) -> None:
    sweep = sweep_of({INSTANCE + "a_max": [0.0, 0.2], WEIGHT: [0.0, 0.5]}, metrics=[T2I])
    runs = expand(sweep, seeds=[0, 1])
    for run in runs:
        directory = records.done(run, t2i=0.3)
        directory.metrics_file.unlink()
        for step in (1, 2, 3):
            mass = run.config.objective.instance.a_max * step / 3
            directory.append_metrics(
                {
                    "samples_seen": 100 * step,
                    "loss": 1.0,
                    "soft_label_mass": mass,
                    "terms": {"instance": 2.0, "token": 3.0},
                    "weighted": {"instance": 2.0, "token": 0.3 * step},
                    "lr": 1e-3,
                }
            )

    found = drawings(sweep, runs, records)["schedules"]

    mass, token = panels(found.figure)
    assert mass.get_title(loc="left") == "softened mass"
    assert [list(line.get_ydata()) for line in mass.lines] == [
        [0.0, 0.0, 0.0],
        pytest.approx([0.2 / 3, 0.4 / 3, 0.2]),
    ]
    assert token.get_title(loc="left") == "weight of token"
    assert [list(line.get_ydata()) for line in token.lines] == [[0.1, 0.2, 0.3]]


# ---- classes


def test_classes_gained_and_lost_stand_by_name(records: Records) -> None:
    sweep = sweep_of(
        {"model.text.layers": [2, 1]}, metrics=[ROLE], baseline={"model.text.layers": 2}
    )
    runs = expand(sweep)
    labels = np.repeat(np.arange(3, dtype=np.int32), 50)
    for run in runs:
        right = np.tile(np.array([1, 0], dtype=np.uint8), 75)
        if run.config.model.text.layers == 1:
            right[labels == 2] = 1  # every pilot is known by the shallower tower
            right[:5] = 0
        records.done(run, t2i=0.3, role=float(right.mean()))
        items = {"test/items/images": np.array([f"{n}" for n in range(150)])}
        items |= {"test/role/items": np.arange(150, dtype=np.int32), "test/role/labels": labels}
        records.outcomes(run, {**items, ROLE: right})

    drawing = drawings(sweep, runs, records)["per_class"]
    rows = list(csv.DictReader(io.StringIO(drawing.data)))

    assert {row["class"]: float(row["difference"]) for row in rows} == pytest.approx(
        {"cook": -0.06, "judge": 0.0, "pilot": 0.5}
    )
    names = [tick.get_text() for tick in drawing.figure.axes[0].get_yticklabels()]
    assert names == ["pilot", "judge", "cook"]


# ---- large sweeps


def test_hundreds_of_points_fit_a_page(records: Records) -> None:
    sweep = sweep_of(
        {"model.text.layers": list(range(1, 9)), WEIGHT: [n / 10 for n in range(8)]},
        metrics=[T2I],
        hue=WEIGHT,
        baseline={WEIGHT: 0.0},
    )
    runs = expand(sweep, seeds=[0])
    for run in runs:
        records.done(run, t2i=0.3)

    for drawing in drawings(sweep, runs, records).values():
        width, height = drawing.figure.get_size_inches()
        assert width <= 5.5, drawing.name
        assert height <= 8.6, drawing.name


# ---- long names


def test_names_of_hundreds_of_letters_leave_room_for_the_figures(records: Records) -> None:
    long = "a name of many words " * 10
    axes = {"model.text.layers": [1, 2, 4], "objective.mlm.weight": [0.0, 0.5]}
    sweep = sweep_of(
        axes,
        baseline={"objective.mlm.weight": 0.0},
        labels={axis: long + axis for axis in axes},
        names={f"{long}{n}": {"model.text.layers": n, "objective.mlm.weight": 0.5}
               for n in (1, 2, 4)},
    )  # fmt: skip
    runs = expand(sweep)
    for run in runs:
        records.done(
            run, t2i=0.3 + 0.01 * run.seed, parameters=run.config.model.text.layers * 10**6
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of a layout that collapsed
        drawn = drawings(sweep, runs, records)
        written = [style.svg(drawing.figure) for drawing in drawn.values()]

    assert len(written) == len(drawn) > 4
    for drawing in drawn.values():
        texts = [artist.get_text() for artist in drawing.figure.findobj(Text)]
        assert max(len(line) for words in texts for line in words.split("\n")) < 120
    assert long in drawn["differences"].data


# ---- how every figure looks

NAMES = "a_b & 50% of #1 <x> $\\mathdefault{1}$ | \u00e9 \u6df1 \u0433"
ALL_RECALLS = [f"test/{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)]
BACKBONES = ["resnet18", "resnet34", "mobilenetv2_100", "swin_nano", "repvit_m0_9"]


def many_kinds(records: Records) -> Iterator[Drawing]:
    """Figures of sweeps of every shape, with specials in names, a hole, many points and metrics."""
    axis = "model.image.backbone"
    by_names = {f"{NAMES} {n}": {"model.text.layers": n} for n in (1, 2)}
    sweeps = [
        depth_sweep(names=by_names, labels={"model.text.layers": NAMES}, primary=T2I, margin=1.0),
        sweep_of({"model.text.layers": [1, 2, 3], WEIGHT: [0.0, 0.5]}, baseline={WEIGHT: 0.0},
                 hue=WEIGHT),
        sweep_of({axis: BACKBONES[:3]}, baseline={axis: "resnet18"}),
        sweep_of({"model.text.layers": list(range(1, 9)), axis: BACKBONES},
                 baseline={axis: "resnet18"}, primary="test/mean_recall",
                 metrics=[*ALL_RECALLS, "test/mean_recall", ROLE]),
    ]  # fmt: skip
    for sweep in sweeps:
        runs = expand(sweep)
        for place, run in enumerate(runs):
            parameters = 10 ** (4 + 3 * place // len(runs)) * (1 + place)
            value = 0.3 + 0.02 * (place % 7) + 0.003 * run.seed * (place % 3)
            if place == 4:
                records.failed(run)
            else:
                records.done(run, t2i=value, i2t=value / 2, parameters=parameters)
        yield from drawings(sweep, runs, records).values()


def test_no_text_is_markup_small_clipped_or_over_another(records: Records) -> None:
    warnings.simplefilter("error")  # matplotlib's, of a letter that its font lacks
    for drawing in many_kinds(records):
        figure = drawing.figure
        renderer = style.settle(figure)
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        seen: list[tuple[str, Any]] = []
        for label in figure.findobj(Text):
            words = label.get_text()
            if not words.strip() or not label.get_visible():
                continue
            assert not words.startswith("$"), (drawing.name, words)
            assert label.get_fontsize() >= style.SMALL, (drawing.name, words)
            box = label.get_window_extent(renderer)
            if not _is_drawn(label, figure):
                continue
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (drawing.name, words)
            over = [w for w, other in seen if box.padded(-1.5).overlaps(other.padded(-1.5))]
            assert not over, (drawing.name, words, over)
            seen.append((words, box))


def _is_drawn(label: Text, figure: Figure) -> bool:
    """Whether a text is no tick outside the range of its axis."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if label in (tick.label1, tick.label2):
                    low, high = sorted(axis.get_view_interval())
                    return low <= tick.get_loc() <= high
    return True


def test_every_format_is_fit_for_its_use(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I], labels={"model.text.layers": "depth & <width>"})
    runs, _ = runs_by(sweep)
    fill(records, runs)
    figure = drawings(sweep, runs, records)["metric_vs_axis"].figure

    files = style.figure_files(figure)

    (page,) = PdfReader(io.BytesIO(files["pdf"])).pages
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    inner = [f["/DescendantFonts"][0].get_object() if "/DescendantFonts" in f else f for f in fonts]
    assert {font["/Subtype"] for font in inner} == {"/CIDFontType2"} or {
        font["/Subtype"] for font in inner
    } == {"/TrueType"}, "type 42"
    assert all("/FontFile2" in f["/FontDescriptor"].get_object() for f in inner), "embedded"
    assert float(page.mediabox.width) == pytest.approx(72 * 5.5)
    assert "depth & <width>" in page.extract_text()
    picture = files["svg"].decode()
    assert ">depth &amp; &lt;width&gt;</text>" in picture, "text is text"
    assert "prefers-color-scheme: dark" in picture
    assert files["png"].startswith(b"\x89PNG")


def test_names_at_line_ends_stand_apart() -> None:
    assert spread([1.0, 20.0, 2.0], 8.0, 0.0, 30.0) == [1.0, 20.0, 9.0]
    assert spread([29.0, 30.0], 8.0, 0.0, 30.0) == [22.0, 30.0]
    assert spread([], 8.0, 0.0, 30.0) == []
