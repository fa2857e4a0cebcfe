"""Macro F1 of zero-shot classification."""

from __future__ import annotations

from harness.metrics.base import CLASSIFICATION, Classified, Metric, Value, register


class MacroF1(Metric):
    """F1 of each class that is a label or a prediction of some example, averaged.

    A class that is never predicted rightly has F1 0 (scikit-learn's `average="macro"`).
    """

    kind = "macro_f1"
    title = "macro F1"
    needs = CLASSIFICATION
    has_chance = False
    rules = (
        (
            "macro_f1",
            "mean F1 of the classes that are labelled or predicted; of equally scored classes the "
            "first is predicted",
        ),
    )

    def compute(self, found: Classified) -> Value:
        """The value of `found`."""
        import numpy as np

        labelled = np.bincount(found.labels, minlength=found.classes)
        predicted = np.bincount(found.predictions, minlength=found.classes)
        right = np.bincount(
            found.labels[found.labels == found.predictions], minlength=found.classes
        )
        counts = labelled + predicted
        f1 = 2 * right[counts > 0] / counts[counts > 0]
        items = {"predictions": found.predictions}
        return Value(float(f1.mean()), len(found.labels), items=items)


register(MacroF1())
