"""Expected calibration error of zero-shot classification, as it is and after one temperature."""

from __future__ import annotations

from harness.metrics.base import CALIBRATION, CLASSIFICATION, Classified, Metric, Value, register

_BINS = 15


class CalibrationError(Metric):
    """Gap between confidence and accuracy, averaged over examples (Guo et al. 2017, section 2).

    Examples fall into 15 equally wide bins of confidence, the softmax of the best score at the
    model's own temperature; each bin's gap weighs as many examples as it has.
    """

    kind = "ece"
    title = "ECE"
    confidence = "confidence"
    needs = CLASSIFICATION
    has_chance = False
    higher_is_better = False
    rules = (("ece", f"expected calibration error over {_BINS} bins of equal width"),)

    def compute(self, found: Classified) -> Value:
        """The value of `found`."""
        import numpy as np

        places = np.clip(np.ceil(found.confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
        gaps = np.bincount(places, found.top(1) - found.confidence, minlength=_BINS)
        error = float(np.abs(gaps).sum()) / len(places)
        return Value(error, len(places), items={self.confidence: found.confidence})


class FittedCalibrationError(CalibrationError):
    """The same after temperature scaling (section 4.2): one temperature for the model's own.

    It is the one with which the labels of the split `validation` are likeliest.
    """

    kind = "ece_fitted"
    title = "ECE, temperature fitted"
    confidence = "confidence_fitted"
    needs = CALIBRATION
    beside = (CalibrationError.kind,)
    rules = (("ece_fitted", "the same with the temperature of least loss on validation"),)


register(CalibrationError())
register(FittedCalibrationError())
