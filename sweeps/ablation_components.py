"""Which of LightCLIP's objectives pays, alone and together?

Softened labels, token matching and masked language modelling, each on and off: CLIP, each added
alone, all, and all without each.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, {"model.image.output_stride": 8, "model.text.layers": 4}),
    points=product(
        {
            "objective.instance.a_max": [0.0, 0.1],
            "objective.token.weight": [0.0, 0.5],
            "objective.mlm.weight": [0.0, 0.5],
        }
    ),
    seeds=range(3),
    show=Show(
        x="objective.instance.a_max",
        metrics=HEADLINE,
        baseline={
            "objective.instance.a_max": 0.0,
            "objective.token.weight": 0.0,
            "objective.mlm.weight": 0.0,
        },
        labels={
            "objective.instance.a_max": "softened mass",
            "objective.token.weight": "token weight",
            "objective.mlm.weight": "MLM weight",
        },
    ),
)
