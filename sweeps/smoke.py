"""Does everything work here?  Two tiny runs through every stage, in under a minute.

The verdict is mean recall within two points, so that this part of a report is tried too; with one
seed there is nothing to test.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(
        SMALL,
        {
            "model.image.size": 32,
            "model.text.width": 48,
            "model.embed_dim": 64,
            "train.samples": 2_560,
            "train.warmup_samples": 256,
        },
    ),
    points=product({"model.text.layers": [1, 2]}),
    seeds=[0],
    show=Show(
        x="model.text.layers",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"model.text.layers": 2},
        labels={"model.text.layers": "text layers"},
    ),
)
