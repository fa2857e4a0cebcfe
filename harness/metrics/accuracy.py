"""Accuracy of zero-shot classification, and its mean over classes."""

from __future__ import annotations

from harness.metrics.base import CLASSIFICATION, Classified, Metric, Value, register

#: The fewest classes with which top-5 accuracy says anything.
ACC5_CLASSES = 5
ACC1, ACC5 = "acc1", "acc5"
MEAN_PER_CLASS_RECALL = "mean_per_class_recall"


def accuracy_chance(classes: int, k: int = 1) -> float:
    """Expected top-k accuracy, and per-class recall, of a uniform guess among `classes`."""
    return min(k / classes, 1.0)


class Accuracy(Metric):
    """Share of examples whose class is among the k best-scored."""

    needs = CLASSIFICATION

    def __init__(self, k: int) -> None:
        self.k = k
        self.kind = self.per_item = f"acc{k}"
        self.title = f"acc@{k}"
        self.at_most = (ACC5,) if k == 1 else ()

    def why_not(self, classes: int) -> str | None:
        """Too few classes to be wrong about the five best."""
        if self.k == 1 or classes >= ACC5_CLASSES:
            return None
        return f"{classes} classes, at least {ACC5_CLASSES} are needed"

    def compute(self, found: Classified) -> Value:
        """The value of `found`."""
        reason = self.why_not(found.classes)
        if reason is not None:
            return Value(None, len(found.labels), reason=reason)
        return Value.mean(self.kind, found.top(self.k), accuracy_chance(found.classes, self.k))


class MeanPerClassRecall(Metric):
    """Top-1 recall averaged over the classes that occur among the labels.

    A class without examples has no recall and is left out (scikit-learn's balanced accuracy does
    the same).
    """

    kind = MEAN_PER_CLASS_RECALL
    title = "mean per-class recall"
    needs = CLASSIFICATION
    per_item = ACC1
    per_class = True
    rules = ((MEAN_PER_CLASS_RECALL, "over the classes that occur among the labels"),)

    def compute(self, found: Classified) -> Value:
        """The value of `found`."""
        import numpy as np

        totals = np.bincount(found.labels, minlength=found.classes)
        right = np.bincount(found.labels, found.top(1), minlength=found.classes)
        recalls = right[totals > 0] / totals[totals > 0]
        return Value(float(recalls.mean()), len(found.labels), accuracy_chance(found.classes))


register(Accuracy(1))
register(Accuracy(5))
register(MeanPerClassRecall())
