"""How should words be matched to patches, and against what?

Matchings (one-to-one, each word its best patch, the entropic plan) by what a matched patch is told
apart from: the pair's other patches, 8 other pictures of the batch, or all of them.
`many_to_one` with the whole batch is FILIP's text-to-image side, with the patches of the pair
SPARC's argument for sharing them.  CLIP's loss alone is the baseline.

The verdict is mean recall: captions here differ in single words, so that what words are matched to
shows in it.  Ways within two points of the best one are as good, and the simplest will do.  Whether
words look at the picture at all is `grounding` on validation: 50 % is chance.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Point, Show, Sweep, points

_WEIGHT, _MATCHING = "objective.token.weight", "objective.token.matching"
_NEGATIVES, _OTHERS = "objective.token.negatives", "objective.token.negatives_per_pair"
_FROM = "objective.token.negatives_from"


def _within(matching: str) -> Point:
    return {_WEIGHT: 0.5, _MATCHING: matching, _NEGATIVES: "within_pair"}


def _across(matching: str, others: int | None, chosen: str = "random") -> Point:
    of_others = {} if others is None else {_OTHERS: others, _FROM: chosen}
    return {_WEIGHT: 0.5, _MATCHING: matching, _NEGATIVES: "in_batch", **of_others}


SWEEP = Sweep(
    base=override(SMALL, {"model.image.output_stride": 8, "model.text.layers": 2}),
    points=points(
        {_WEIGHT: 0.0},
        *(_within(matching) for matching in ("one_to_one", "many_to_one", "sinkhorn")),
        *(_across(matching, 8) for matching in ("one_to_one", "many_to_one", "sinkhorn")),
        _across("one_to_one", 8, "hardest"),
        _across("many_to_one", None),
    ),
    seeds=range(3),
    show=Show(
        x=_MATCHING,
        hue=_NEGATIVES,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={_WEIGHT: 0.0},
        labels={_MATCHING: "matching", _NEGATIVES: "negatives"},
        names={
            "CLIP": {_WEIGHT: 0.0},
            "one-to-one, within the pair": _within("one_to_one"),
            "shared patches, within the pair (SPARC-like)": _within("many_to_one"),
            "sinkhorn, within the pair": _within("sinkhorn"),
            "one-to-one, 8 pictures": _across("one_to_one", 8),
            "shared patches, 8 pictures": _across("many_to_one", 8),
            "sinkhorn, 8 pictures": _across("sinkhorn", 8),
            "one-to-one, 8 hardest pictures": _across("one_to_one", 8, "hardest"),
            "shared patches, whole batch (FILIP-like)": _across("many_to_one", None),
        },
    ),
)
