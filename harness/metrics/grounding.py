"""Whether words are matched to what the picture shows: the own picture against another."""

from __future__ import annotations

from harness.metrics.base import Contrasted, TermMetric, Value, register

TOKEN = "token"


class Grounding(TermMetric):
    """Share of captions whose matched cosine is higher in the own picture than in another.

    A position code that aligns words and patches whatever the picture shows gives 50 %.
    """

    kind = per_item = "grounding"
    title = "grounding"
    needs = TOKEN
    rules = (
        (
            "grounding",
            "share of captions whose mean matched cosine is higher in the own picture than in "
            "another of the split, drawn once for all runs; equal ones count half",
        ),
    )

    def compute(self, found: Contrasted) -> Value:
        """The value of `found`, whose numbers are matched cosines."""
        hits = (found.own > found.other) + 0.5 * (found.own == found.other)
        return Value.mean(self.kind, hits, 0.5)


class GroundingGap(TermMetric):
    """Mean matched cosine in the own picture minus that in another."""

    kind = per_item = "grounding_gap"
    title = "grounding gap"
    needs = TOKEN
    unit = "cosine"
    has_chance = False
    least, most = -2.0, 2.0

    def compute(self, found: Contrasted) -> Value:
        """The value of `found`, whose numbers are matched cosines."""
        gaps = found.own - found.other
        return Value.mean(self.kind, gaps)


class Localisation(TermMetric):
    """Share of words matched to patches of the own picture where another stands beside it."""

    kind = per_item = "localisation"
    title = "localisation"
    needs = TOKEN
    rules = (
        (
            "localisation",
            "share of a caption's words whose patch lies on the own picture, mean over captions; "
            "the middle halves of it and of another picture of the split stand side by side, the "
            "sides taken in turn",
        ),
    )

    def compute(self, found: Contrasted) -> Value:
        """The value of `found`; none of a term that puts no words on patches."""
        if found.located is None:
            return Value(None, 0, reason="the term puts no words on patches (its `locate`)")
        return Value.mean(self.kind, found.located, 0.5)


register(Grounding())
register(GroundingGap())
register(Localisation())
