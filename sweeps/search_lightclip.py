"""Which weights, softening and learning rate suit LightCLIP's objectives at a given budget?

Every trial is a run of the whole budget; successive halving stops most of them early.  Selected on
the validation split; the best configuration and the base are then compared with fresh seeds.

The verdict on the best configuration is mean recall on the test split, as it was selected by mean
recall on the other.  A gain below two points would not pay for a search.
"""

from harness.bases import GROUNDED, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.searchspace import Asha, Choice, Search, Uniform
from harness.space import Show, Sweep

SWEEP = Sweep(
    base=override(SMALL, {**GROUNDED, "model.image.output_stride": 8, "model.text.layers": 4}),
    search=Search(
        space={
            "train.lr": Uniform(3e-4, 1e-2, log=True),
            "objective.instance.a_max": Uniform(0.0, 0.5),
            "objective.instance.schedule": Choice("linear", "cosine", "constant"),
            "objective.token.weight": Uniform(0.0, 1.0),
            "objective.mlm.weight": Uniform(0.0, 1.0),
        },
        objectives="validation/mean_recall",
        trials=40,
        pruner=Asha(first=4_500, reduction=2),
    ),
    show=Show(
        x="train.lr",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        labels={
            "train.lr": "learning rate",
            "objective.instance.a_max": "softened mass",
            "objective.instance.schedule": "softening",
            "objective.token.weight": "token weight",
            "objective.mlm.weight": "MLM weight",
        },
    ),
)
