"""Names, directions and chance of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import mean

import pytest

from harness import metrics
from harness.config import ClassFolder, Evaluate, validate
from harness.errors import ConfigError


@dataclass(frozen=True)
class FakeSplit:
    captions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FakeTask:
    name: str
    classnames: tuple[str, ...]
    labels: dict[str, list[int]]


@dataclass(frozen=True)
class FakeData:
    name: str
    splits: dict[str, FakeSplit]
    tasks: tuple[FakeTask, ...] = ()


DATA = FakeData(
    "toys",
    {"test": FakeSplit((("a ball",), ())), "validation": FakeSplit(((), ()))},
    (
        FakeTask("role", tuple("abcdef"), {"test": [0, -1], "validation": [-1, -1]}),
        FakeTask("gender", ("man", "woman"), {"test": [0, 1]}),
    ),
)


def test_known_metrics_are_those_the_data_can_answer() -> None:
    known = metrics.known_metrics(DATA, Evaluate(splits=("test", "validation")))
    quality = [name for name in known if not metrics.is_cost(name)]
    recalls = [
        f"{direction}_retrieval_recall@{k}" for direction in ("image", "text") for k in (1, 5, 10)
    ]
    assert quality == [
        *(f"test/{recall}" for recall in recalls),
        *(f"test/{recall.replace('@', '_shared@')}" for recall in recalls),
        "test/mean_recall",
        "test/mean_recall_shared",
        "test/image_retrieval_mean_rank",
        "test/image_retrieval_median_rank",
        "test/text_retrieval_mean_rank",
        "test/text_retrieval_median_rank",
        "test/role/acc1",
        "test/role/acc5",
        "test/role/mean_per_class_recall",
        "test/role/ece",
        "test/role/macro_f1",
        "test/gender/acc1",
        "test/gender/mean_per_class_recall",
        "test/gender/ece",
        "test/gender/macro_f1",
    ]


def test_class_folder_adds_its_own_names() -> None:
    evaluate = Evaluate(class_folders=(ClassFolder(name="cifar10", path="x.zip"),))
    known = metrics.known_metrics(DATA, evaluate)
    assert "cifar10/acc1" in known
    assert "cifar10/mean_per_class_recall" in known


def test_unknown_split_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown split 'tset'; nearest: test"):
        metrics.known_metrics(DATA, Evaluate(splits=("tset",)))


def test_two_things_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="'test' is the name of two things"):
        validate(Evaluate, {"class_folders": [{"name": "test", "path": "x.zip"}]})


def test_unknown_metric_is_refused_with_the_nearest() -> None:
    known = metrics.known_metrics(DATA, Evaluate())
    names = ["test/role/acc1", "cost/gmacs/image"]
    assert metrics.match_metrics(names, known) == names
    with pytest.raises(
        ConfigError, match="unknown metric 'test/rol/acc1'; nearest: test/role/acc1"
    ):
        metrics.match_metrics(["test/rol/acc1"], known)


def test_a_pattern_stands_for_what_the_data_has_and_its_star_for_no_slash() -> None:
    known = ["test/mean_recall", "test/mean_recall_shared", "test/role/acc1", "cifar10/acc1"]
    assert metrics.match_metrics(["*/mean_recall"], known) == ["test/mean_recall"]
    assert metrics.match_metrics(["*/*/acc1"], known) == ["test/role/acc1"]
    assert metrics.match_metrics(["*/acc1", "test/mean_recall"], known) == [
        "cifar10/acc1",
        "test/mean_recall",
    ]


def test_a_pattern_may_match_nothing_but_all_together_must_match() -> None:
    known = ["test/mean_recall", "cost/gmacs/image"]
    assert metrics.match_metrics(["*/*/acc1", "*/mean_recall"], known) == ["test/mean_recall"]
    with pytest.raises(ConfigError, match=r"matches \*/\*/acc1; it has: test/mean_recall$"):
        metrics.match_metrics(["*/*/acc1"], known)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test/image_retrieval_recall@1", "T2I R@1"),
        ("test/text_retrieval_recall@10", "I2T R@10"),
        ("test/text_retrieval_recall_shared@5", "I2T R@5, shared captions"),
        ("validation/image_retrieval_recall@1", "validation T2I R@1"),
        ("test/mean_recall", "mean recall"),
        ("test/mean_recall_shared", "mean recall, shared captions"),
        ("test/role/acc1", "role acc@1"),
        ("validation/role/mean_per_class_recall", "validation role mean per-class recall"),
        ("cifar10/acc5", "cifar10 acc@5"),
        ("cost/parameters/inference", "parameters"),
        ("something/else", "something/else"),
    ],
)
def test_display(name: str, shown: str) -> None:
    assert metrics.display(name) == shown


def test_every_known_metric_has_a_display_of_its_own() -> None:
    evaluate = Evaluate(class_folders=(ClassFolder(name="cifar10", path="x.zip"),))
    known = metrics.known_metrics(DATA, evaluate)
    shown = [metrics.display(name) for name in known]
    assert len(set(shown)) == len(known)
    assert not set(shown) & set(known)


def test_direction_and_units() -> None:
    assert metrics.higher_is_better("test/role/acc1")
    assert not metrics.higher_is_better("cost/latency_ms/image_batch1")
    assert (metrics.scale("test/mean_recall"), metrics.unit("test/mean_recall")) == (100.0, "%")
    name = "cost/parameters/inference_without_embeddings"
    assert metrics.cost_value({"parameters": {name.split("/")[2]: 2_500_000}}, name) == 2_500_000
    assert (metrics.scale(name), metrics.unit(name)) == (1e-6, "M")


def test_recall_chance_equals_counting_every_draw() -> None:
    # A pool of 6; one query with 2 positives, one with 1: all C(6, 3) = 20 draws counted.
    draws = list(combinations(range(6), 3))
    counted = [mean(any(c < p for c in draw) for draw in draws) for p in (2, 1)]
    assert metrics.recall_chance(6, [2, 1], 3) == pytest.approx(mean(counted))
    assert mean(counted) == pytest.approx((16 / 20 + 10 / 20) / 2)


def test_recall_chance_of_a_pool_smaller_than_k_is_certain() -> None:
    assert metrics.recall_chance(4, [1], 10) == 1.0


def test_accuracy_chance() -> None:
    assert metrics.accuracy_chance(8) == 0.125
    assert metrics.accuracy_chance(8, 5) == 0.625
    assert metrics.accuracy_chance(3, 5) == 1.0
