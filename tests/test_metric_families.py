"""Each family of metrics on hand-made answers, and what holds of all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import harness
from harness import metrics
from harness.evaluate.scoring.choice import chances, credits_of
from harness.evaluate.scoring.retrieval import own_relevance, rank_both_ways
from harness.evaluate.scoring.zeroshot import classify
from harness.evaluate.suites.records import ChoiceItem
from harness.metrics import (
    CLASSIFICATION,
    METRICS,
    RETRIEVAL,
    WAYS,
    Classified,
    Contrasted,
    Embedded,
    Retrieved,
)
from harness.metrics.choice import CHOICE, Chosen
from harness.metrics.probe import Probed
from harness.metrics.relevance import RELEVANCE, Related
from harness.metrics.retrieval_rank import mean_rank_chance, median_rank_chance
from harness.metrics.text_length import LENGTHS, Shortened

PACKAGE = Path(harness.__file__).parent


def answers(labels: list[int], predictions: list[int], confidence: list[float]) -> Classified:
    """Untied answers of a task of three classes."""
    right = [[float(a == b)] * 2 for a, b in zip(labels, predictions, strict=True)]
    return Classified(
        np.array(right),
        np.array(predictions, dtype=np.int32),
        np.array(confidence),
        np.array(labels),
        classes=3,
    )


def value_of(kind: str, found: Classified | Retrieved) -> Any:
    return METRICS.get(kind).compute(found)


# --------------------------------------------------------------------------- macro F1


def f1(labels: list[int], predictions: list[int], chosen: int) -> float:
    """From precision and recall, as a textbook has it."""
    both = [(a, b) for a, b in zip(labels, predictions, strict=True)]
    right = both.count((chosen, chosen))
    if not right:
        return 0.0
    precision, recall = right / predictions.count(chosen), right / labels.count(chosen)
    return 2 * precision * recall / (precision + recall)


def test_macro_f1_by_hand() -> None:
    # Class 0: 2 right, 1 missed, 1 too many: F1 2/3.  Class 1: 1 right, 1 too many: 2/3.
    # Class 2: never predicted: 0.
    labels, predictions = [0, 0, 0, 1, 2], [0, 0, 1, 1, 0]
    found = value_of("macro_f1", answers(labels, predictions, [0.5] * 5))
    assert found.value == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert found.n == 5
    assert found.items["predictions"].tolist() == predictions


@pytest.mark.parametrize("seed", range(4))
def test_macro_f1_is_the_mean_of_textbook_f1(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, predictions = (generator.integers(0, 3, 40).tolist() for _ in range(2))
    found = value_of("macro_f1", answers(labels, predictions, [0.5] * 40))
    assert found.value == pytest.approx(fmean(f1(labels, predictions, c) for c in range(3)))


def test_a_class_that_is_neither_label_nor_prediction_is_left_out_of_macro_f1() -> None:
    assert value_of("macro_f1", answers([0, 1], [0, 1], [0.9, 0.9])).value == 1.0


# --------------------------------------------------------------------------- calibration


def test_calibration_error_by_hand() -> None:
    # Two of 0.92, one right: |1 - 1.84| = 0.84.  One of 0.5, wrong: 0.5.  All of 4.
    found = value_of("ece", answers([0, 1, 2, 2], [0, 0, 1, 2], [0.92, 0.92, 0.5, 1.0]))
    assert found.value == pytest.approx((0.84 + 0.5 + 0.0) / 4)
    assert found.items["confidence"].tolist() == [0.92, 0.92, 0.5, 1.0]


def test_calibration_error_bin_by_bin() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(1 / 3, 1, 200)
    right = generator.uniform(size=200) < confidence**2
    labels = [0] * 200
    found = answers(labels, np.where(right, 0, 1).tolist(), confidence.tolist())
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.sum() / 200 * gap
    assert value_of("ece", found).value == pytest.approx(expected)


def test_confidence_is_the_softmax_at_the_models_temperature() -> None:
    image = F.normalize(torch.tensor([[2.0, 1.0], [0.1, 1.0]]), dim=1)
    found = classify(image, torch.eye(2), torch.tensor([0, 1]), logit_scale=3.0)
    expected = (3.0 * image).softmax(dim=1).amax(dim=1)
    assert found.confidence == pytest.approx(expected.tolist(), abs=1e-6)
    assert found.predictions.tolist() == [0, 1]


# --------------------------------------------------------------------------- ranks


def retrieved(image: torch.Tensor, text: torch.Tensor, index: list[int]) -> Retrieved:
    ((down, up),) = rank_both_ways(image, text, [own_relevance(index, len(image))])
    return Retrieved(dict(zip(((way, False) for way in WAYS), (down, up), strict=True)))


def test_ranks_by_hand_with_a_tie() -> None:
    # Captions look along x and y.  Picture 0 is along x, 1 and 2 are the same, along y; caption 1
    # is picture 2's, so it is first or second; caption 0 is picture 1's, behind picture 0 and tied.
    image = torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0]])
    text = torch.tensor([[1.0, 0], [0, 1.0]])
    found = retrieved(image, text, [1, 2])
    ranks = found.ranking(WAYS[0]).ranks.tolist()
    assert ranks == [2.5, 1.5]
    assert value_of("image_retrieval_mean_rank", found).value == 2.0
    assert value_of("image_retrieval_median_rank", found).value == 2.0
    # Picture 1 finds its caption last, picture 2 first; picture 0 has none.
    assert found.ranking(WAYS[1]).ranks.tolist() == [2.0, 1.0]
    assert value_of("text_retrieval_mean_rank", found).value == 1.5
    assert value_of("text_retrieval_mean_rank", found).n == 2


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_places_in_a_sorted_list(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image, text = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (12, 30))
    index = [i % 12 for i in range(30)]
    found = retrieved(image, text, index)
    scores = (text @ image.T).numpy()
    down = [1 + int((row > row[i]).sum()) for row, i in zip(scores, index, strict=True)]
    up = []
    for i, column in enumerate(scores.T):
        best = max(column[[j for j in range(30) if index[j] == i]])
        up.append(1 + int((column > best).sum()))
    for way, ranks in zip(WAYS, (down, up), strict=True):
        mean = value_of(f"{way}_mean_rank", found)
        assert mean.value == pytest.approx(fmean(ranks))
        assert mean.items[f"{way}_rank"].tolist() == ranks
        assert value_of(f"{way}_median_rank", found).value == median(ranks)


def test_chance_of_a_rank_counts_every_order() -> None:
    # Four candidates, two of them positives for one query, one for another.
    orders = list(permutations(range(4)))
    firsts = [[1 + min(order.index(c) for c in range(p)) for order in orders] for p in (2, 1)]
    assert mean_rank_chance(4, [2, 1]) == pytest.approx(fmean(map(fmean, firsts)))
    reached = {
        rank: sum(Fraction(sum(f <= rank for f in first), len(orders)) for first in firsts) / 2
        for rank in range(1, 5)
    }
    assert median_rank_chance(4, [2, 1]) == min(r for r in reached if reached[r] >= Fraction(1, 2))


# --------------------------------------------------------------------------- of all metrics


def outcomes() -> dict[str, Any]:
    """One outcome of each need, by a seeded model."""
    generator = torch.Generator().manual_seed(7)
    image, text = (F.normalize(torch.randn(20, 5, generator=generator), dim=1) for _ in range(2))
    rules = [own_relevance(list(range(20)), 20)] * 2
    pairs = zip((False, True), rank_both_ways(image, text, rules), strict=True)
    found = {(way, s): r for s, pair in pairs for way, r in zip(WAYS, pair, strict=True)}
    labels = torch.randint(6, (20,), generator=generator)
    contrasted = Contrasted(*torch.rand(3, 20, generator=generator).double().numpy())
    item = ChoiceItem(("a", "b"), ("x", "y"))
    scores = torch.randn(20, 2, 2, generator=generator).numpy()
    credits = [credits_of(item, each, each[:1]) for each in scores]
    kinds = credits[0]
    chosen = Chosen(
        {kind: np.array([each[kind] for each in credits]) for kind in kinds},
        {kind: np.array([chances(item)[kind]] * 20) for kind in kinds},
    )
    return {
        RETRIEVAL: Retrieved(found),
        CLASSIFICATION: classify(image, F.normalize(text[:6], dim=1), labels),
        "token": contrasted,
        "mlm": contrasted,
        CHOICE: chosen,
        "length": Shortened({(way, n): found[way, False] for way in WAYS for n in (0, *LENGTHS)}),
        RELEVANCE: related(),
        "geometry": Embedded(image.numpy(), text.numpy(), np.arange(20)),
        "calibration": classify(image, F.normalize(text[:6], dim=1), labels, 3.0),
        "probe": Probed({m.kind: np.arange(20) / 20 for m in metrics.metrics_for("probe")}, 6),
    }


def related() -> Related:
    kinds = [metric.kind for metric in metrics.metrics_for(RELEVANCE)]
    return Related({kind: np.arange(20) / 20 for kind in kinds}, dict.fromkeys(kinds, 0.1))


FACTS: dict[str, Any] = {"queries": dict.fromkeys(WAYS, 20)}
FACTS |= {"captions": 20, "captioned": 20, "images": 20, "items": 20}


@pytest.mark.parametrize("kind", list(METRICS))
def test_a_metric_describes_itself_and_keeps_to_what_it_says(kind: str) -> None:
    metric = METRICS.get(kind)
    found = metric.compute(outcomes()[metric.needs])
    most = metric.most if metric.most is not None else found.value
    assert found.value is not None
    assert metric.least <= found.value <= most
    assert found.n == metric.count(FACTS)
    assert (found.chance is not None) == metric.has_chance
    plain = metric.described().plain()
    assert plain["direction"] in {"higher", "lower"}
    assert all(plain[what] for what in ("title", "unit", "version", "needs"))
    if metric.per_item in found.items and not metric.per_class:
        assert found.items[metric.per_item].mean() == pytest.approx(found.value)


def test_a_lower_error_or_rank_is_the_better_one() -> None:
    lower = {kind for kind in METRICS if not METRICS.get(kind).higher_is_better}
    assert lower == {
        "ece",
        "ece_fitted",
        "mlm_loss",
        "modality_gap",
        "pair_distance",
        "uniformity_image",
        "uniformity_text",
        *(f"{way}_hubness" for way in WAYS),
        *(f"{way}_{m}_rank" for way in WAYS for m in ("mean", "median")),
    }
    assert not metrics.higher_is_better("test/role/ece")
    assert metrics.unit("test/image_retrieval_mean_rank") == "place"


def test_a_metric_that_only_a_record_knows_is_shown_as_it_says() -> None:
    plain = {"title": "odd error", "unit": "ms", "direction": "lower", "version": 3, "needs": ""}
    assert metrics.display("test/role/odd") == "test/role/odd"
    metrics.remember("test/role/odd", plain)
    assert metrics.display("test/role/odd") == "role odd error"
    assert (metrics.unit("test/role/odd"), metrics.scale("test/role/odd")) == ("ms", 1.0)
    assert not metrics.higher_is_better("test/role/odd")


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string in code, docstrings aside."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        of_code = isinstance(node, ast.Constant) and id(node) not in documents
        if of_code and isinstance(node.value, str):
            yield node.value


#: Names of others' files, which happen to be ours too.
FOREIGN = {"report/external.py", "report/external_import.py"}


def test_metrics_are_named_in_their_own_folder_alone() -> None:
    kinds = {kind.partition("@")[0] for kind in METRICS}
    named = {
        file.relative_to(PACKAGE).as_posix(): text
        for file in PACKAGE.rglob("*.py")
        if file.parent.name != "metrics"
        for text in strings(ast.parse(file.read_text(encoding="utf-8")))
        if kinds & {part.partition("@")[0] for part in text.replace(",", " ").split("/")}
    }
    assert set(named) - FOREIGN == set(), named
