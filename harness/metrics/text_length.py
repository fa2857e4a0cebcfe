"""How much of a caption retrieval needs: recall@k with the first tokens alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.metrics.base import IMAGE_RETRIEVAL, KS, LENGTH, WAYS, Metric, Ranking, Value, register
from harness.metrics.recall import Recall, recall_chance, recall_kind

#: Tokens kept of a caption, those of begin and end not counted.
LENGTHS = (2, 4, 8, 16, 32, 64)
_ENOUGH = 0.95


@dataclass(frozen=True)
class Shortened:
    """Outcomes by tokens kept.

    Attributes:
        rankings: (way, tokens) -> outcomes where only the own picture counts; 0: whole captions.
    """

    rankings: Mapping[tuple[str, int], Ranking]


class ShortRecall(Metric):
    """Recall@k with so many tokens of every caption; a shorter caption stays as it is."""

    needs = LENGTH
    shown = False

    def __init__(self, way: str, k: int, tokens: int) -> None:
        whole = Recall(way, k, shared=False)
        self.way, self.k, self.tokens, self.ways = way, k, tokens, (way,)
        self.kind = self.per_item = f"{whole.kind}_{tokens}tokens"
        self.title = f"{whole.title}, {tokens} tokens"
        larger = [recall_kind(way, other) for other in KS if other > k]
        self.at_most = tuple(f"{kind}_{tokens}tokens" for kind in larger[:1])

    def compute(self, found: Shortened) -> Value:
        """The value of `found`."""
        ranking = found.rankings[self.way, self.tokens]
        chance = recall_chance(ranking.pool, ranking.positives.tolist(), self.k)
        return Value.mean(self.kind, ranking.at(self.k), chance)


class EffectiveLength(Metric):
    """Fewest tokens, of those tried, that reach 95 % of T2I R@1 with whole captions."""

    kind = "effective_text_length"
    title = "effective text length"
    needs = LENGTH
    unit = "tokens"
    has_chance = False
    most = None
    ways = (IMAGE_RETRIEVAL,)
    rules = (
        (
            LENGTH,
            f"captions cut to {', '.join(map(str, LENGTHS))} tokens; effective: the fewest that "
            "reach 95 % of T2I R@1 with whole captions",
        ),
    )

    def compute(self, found: Shortened) -> Value:
        """The value of `found`; none where no caption finds its picture, or no length is enough."""
        recall = {
            tokens: float(ranking.at(1).mean())
            for (way, tokens), ranking in found.rankings.items()
            if way == IMAGE_RETRIEVAL
        }
        whole, n = recall.pop(0), len(found.rankings[IMAGE_RETRIEVAL, 0].queries)
        enough = [tokens for tokens in sorted(recall) if recall[tokens] >= _ENOUGH * whole]
        if not whole:
            return Value(None, n, reason="no caption finds its picture")
        if not enough:
            return Value(None, n, reason=f"more than {max(recall)} tokens are needed")
        return Value(float(enough[0]), n)


register(EffectiveLength())
for _tokens in LENGTHS:
    for _way in WAYS:
        for _k in KS:
            register(ShortRecall(_way, _k, _tokens))
