"""How shallow can the text encoder be, each depth at its own best learning rate and warm-up?

`ablation_text_depth` gives every depth the same learning rate and warm-up, so a depth may win
because they suit it: at a rate of 4e-3, a warm-up of 6,000 instead of 2,000 samples moves 12 layers
from 38 to 54 % mean recall.  Here each depth chooses both from one grid, on the validation split
and by a seed of its own, and is reported with fresh seeds on the test split.

The verdict is mean recall and a loss of two points counts as none, as in `ablation_text_depth`, so
that the two can be set side by side.
"""

from harness.bases import LONGER, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, LONGER),
    points=product({"model.text.layers": [1, 2, 4, 8, 12]}),
    seeds=range(3),
    nuisance={
        "train.lr": [2.5e-4, 5e-4, 1e-3, 2e-3],
        "train.warmup_samples": [2_000, 6_000],
    },
    tune_on="validation/mean_recall",
    tune_seeds=(100,),
    show=Show(
        x="model.text.layers",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"model.text.layers": 12},
        labels={"model.text.layers": "text layers"},
    ),
)
