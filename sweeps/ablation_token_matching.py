"""Is one-to-one matching of words and patches better than letting words share patches?

`many_to_one` with negatives in the batch is FILIP's text-to-image side; SPARC argues for sharing
patches, with negatives within the pair.  CLIP's loss alone is the baseline.

The verdict is mean recall: captions here differ in single words, so that what words are matched to
shows in it.  Matchings within two points of the best one are as good, and the simplest will do.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Point, Show, Sweep, points, product

_WEIGHT, _MATCHING = "objective.token.weight", "objective.token.matching"
_NEGATIVES = "objective.token.negatives"


def _with(matching: str, negatives: str) -> Point:
    return {_WEIGHT: 0.5, _MATCHING: matching, _NEGATIVES: negatives}


SWEEP = Sweep(
    base=override(
        SMALL,
        {"model.image.output_stride": 8, "model.text.layers": 4, "objective.token.keep": 0.75},
    ),
    points=points({_WEIGHT: 0.0})
    + product(
        {
            _WEIGHT: [0.5],
            _MATCHING: ["one_to_one", "many_to_one", "top_k", "sinkhorn"],
            _NEGATIVES: ["within_pair", "none"],
        }
    )
    + points(_with("many_to_one", "in_batch")),
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
            "one-to-one (LightCLIP's, as we read it)": _with("one_to_one", "within_pair"),
            "SPARC-like": _with("many_to_one", "within_pair"),
            "FILIP-like": _with("many_to_one", "in_batch"),
        },
    ),
)
