"""How much weight should token-level alignment get?

The matching is one-to-one, contrasted with 8 other pictures (`GROUNDED`); weight 0 is CLIP's loss.

The verdict is mean recall, which too much weight on words must lower in the end.  Weights within
two points of the best one are as good.
"""

from harness.bases import GROUNDED, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, {**GROUNDED, "model.image.output_stride": 8, "model.text.layers": 4}),
    points=product({"objective.token.weight": [0.0, 0.1, 0.25, 0.5, 1.0]}),
    seeds=range(3),
    show=Show(
        x="objective.token.weight",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"objective.token.weight": 0.0},
        labels={"objective.token.weight": "token weight"},
    ),
)
