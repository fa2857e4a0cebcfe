"""Does masked language modelling buy back what a shortened text encoder loses?

The depths of `ablation_text_depth`, each with and without masked language modelling, into which the
picture enters through open gates (`GROUNDED`).

The verdict is mean recall with a margin of two points, as in `ablation_text_depth`, whose loss is
what is to be bought back.
"""

from harness.bases import GROUNDED, LONGER, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, {**LONGER, **GROUNDED, "model.image.output_stride": 8}),
    points=product({"model.text.layers": [1, 2, 4, 8, 12], "objective.mlm.weight": [0.0, 0.5]}),
    seeds=range(3),
    show=Show(
        x="model.text.layers",
        hue="objective.mlm.weight",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"objective.mlm.weight": 0.0},
        labels={"model.text.layers": "text layers", "objective.mlm.weight": "MLM weight"},
    ),
)
