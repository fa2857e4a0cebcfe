"""How many words should masked language modelling hide, and may they look ahead?

Weight 0 is CLIP's loss; the contrastive pass is causal throughout, and the picture enters through
open gates (`GROUNDED`).

The verdict is mean recall: hiding words is a means to a better text encoder, not an end.  Settings
within two points of the best one are as good.
"""

from harness.bases import GROUNDED, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points, product

SWEEP = Sweep(
    base=override(SMALL, {**GROUNDED, "model.image.output_stride": 8, "model.text.layers": 4}),
    points=points({"objective.mlm.weight": 0.0})
    + product(
        {
            "objective.mlm.weight": [0.5],
            "objective.mlm.mask_ratio": [0.15, 0.3, 0.5],
            "objective.mlm.attention": ["bidirectional", "causal"],
        }
    ),
    seeds=range(3),
    show=Show(
        x="objective.mlm.mask_ratio",
        hue="objective.mlm.attention",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"objective.mlm.weight": 0.0},
        labels={"objective.mlm.mask_ratio": "share of words hidden"},
    ),
)
