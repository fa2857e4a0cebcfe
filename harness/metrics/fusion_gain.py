"""What the picture tells masked language modelling: its loss, and how it rises with another one."""

from __future__ import annotations

from harness.metrics.base import Contrasted, TermMetric, Value, register

MLM = "mlm"


class FusionGain(TermMetric):
    """Loss of the hidden words with another picture minus that with the own one.

    0 where the picture is not looked at, as in plain masked language modelling.
    """

    kind = per_item = "fusion_gain"
    title = "fusion gain"
    needs = MLM
    unit = "nats"
    has_chance = False
    least, most = -float("inf"), None
    rules = (
        (
            "mlm",
            "cross-entropy of a caption's hidden words, mean over them and then over captions; the "
            "term's own share of words is hidden, the same ones in all runs of that share; the "
            "other picture is another of the split, drawn once for all runs",
        ),
    )

    def compute(self, found: Contrasted) -> Value:
        """The value of `found`, whose numbers are losses."""
        gains = found.other - found.own
        return Value.mean(self.kind, gains)


class HiddenWordLoss(TermMetric):
    """Loss of the hidden words with the own picture."""

    kind = per_item = "mlm_loss"
    title = "MLM loss"
    needs = MLM
    unit = "nats"
    higher_is_better = False
    has_chance = False
    most = None
    rules = FusionGain.rules

    def compute(self, found: Contrasted) -> Value:
        """The value of `found`, whose numbers are losses."""
        return Value.mean(self.kind, found.own)


register(FusionGain())
register(HiddenWordLoss())
