"""Is one-to-one matching of words and patches better than letting words share patches?

`many_to_one` with negatives in the batch is FILIP's text-to-image side; SPARC argues for sharing
patches, with negatives within the pair.  CLIP's loss alone is the baseline.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points, product

SWEEP = Sweep(
    base=override(
        SMALL,
        {"model.image.output_stride": 8, "model.text.layers": 4, "objective.token.keep": 0.75},
    ),
    points=points({"objective.token.weight": 0.0})
    + product(
        {
            "objective.token.weight": [0.5],
            "objective.token.matching": ["one_to_one", "many_to_one", "top_k", "sinkhorn"],
            "objective.token.negatives": ["within_pair", "none"],
        }
    )
    + points(
        {
            "objective.token.weight": 0.5,
            "objective.token.matching": "many_to_one",
            "objective.token.negatives": "in_batch",
        }
    ),
    seeds=range(3),
    show=Show(
        x="objective.token.matching",
        hue="objective.token.negatives",
        metrics=HEADLINE,
        baseline={"objective.token.weight": 0.0},
        labels={"objective.token.matching": "matching", "objective.token.negatives": "negatives"},
    ),
)
