"""Zero-shot classification by hand, and against CLIP_benchmark."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.data.classnames import prompts
from harness.errors import InvariantError
from harness.evaluate.scoring.zeroshot import classifier, classify
from harness.metrics import MEAN_PER_CLASS_RECALL, METRICS
from tests.evaluate.benchmark_cases import Given

PER_CLASS = METRICS.get(MEAN_PER_CLASS_RECALL)


def test_prompts_go_class_by_class() -> None:
    found = prompts(["cat", "{dog}"], ["a {c}.", "{c} {c}"])
    assert found == ["a cat.", "cat cat", "a {dog}.", "{dog} {dog}"]


def test_each_prompt_weighs_the_same_whatever_its_length() -> None:
    # Prompts (3, 0) and (0, 1): the mean of their directions, not of the vectors.
    weights = classifier(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), classes=1)
    assert weights.flatten().tolist() == pytest.approx([0.5**0.5, 0.5**0.5])


def test_per_class_recall_is_over_the_classes_that_occur() -> None:
    weights = torch.eye(3)
    image = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    outcome = classify(image, weights, torch.tensor([0, 0, 0, 1]))
    assert outcome.top(1).tolist() == [1.0, 1.0, 0.0, 1.0]
    assert outcome.top(1).mean() == 0.75
    # Class 0: 2 of 3; class 1: 1 of 1; class 2 never occurs.
    assert PER_CLASS.compute(outcome).value == pytest.approx((2 / 3 + 1) / 2)


def test_two_classes_of_one_prompt_share_the_hit() -> None:
    weights = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    outcome = classify(torch.tensor([[1.0, 0]]), weights, torch.tensor([1]))
    assert outcome.top(1).tolist() == [0.5]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(InvariantError, match=r"all in 0\.\.2 wanted"):
        classify(torch.eye(3)[:1], torch.eye(3), torch.tensor([label]))


class _Labelled(torch.utils.data.Dataset[Any]):
    def __init__(self, labels: Tensor, classes: int) -> None:
        self.labels, self.classes = labels, list(range(classes))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([place]), self.labels[place]


@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("classes", [5, 7, 12])
def test_equals_clip_benchmark(classes: int) -> None:
    from clip_benchmark.metrics import zeroshot_classification

    templates = ["{c} 0", "{c} 1", "{c} 2"]
    names = [str(c) for c in range(classes)]
    generator = torch.Generator().manual_seed(classes)
    # Not normalised, so that the order of normalising and averaging shows.
    text = torch.randn(classes * 3, 8, generator=generator) * 3
    labels = torch.randint(classes - 1, (60,), generator=generator)
    image = F.normalize(text[labels * 3] + 4 * torch.randn(60, 8, generator=generator), dim=-1)

    def places(texts: list[str]) -> Tensor:
        return torch.tensor([3 * int(t.split()[0]) + int(t.split()[1]) for t in texts])

    theirs = zeroshot_classification.evaluate(
        Given(image, text),
        torch.utils.data.DataLoader(_Labelled(labels, classes), batch_size=16),
        places,
        names,
        templates,
        "cpu",
        amp=False,
    )
    embedded = Given(image, text).encode_text(places(prompts(names, templates)))
    outcome = classify(image, classifier(embedded, classes), labels)
    ours = {
        "acc1": float(outcome.top(1).mean()),
        "acc5": float(outcome.top(5).mean()),
        "mean_per_class_recall": PER_CLASS.compute(outcome).value,
    }
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert 0.1 < ours["acc1"] < 1.0
