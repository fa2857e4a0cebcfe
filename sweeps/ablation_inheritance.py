"""Does a shallow text tower gain from starting with blocks of a finished, deeper one?

As TinyCLIP inherits weights: the first blocks of a 12-layer tower, or blocks spread evenly over it,
against the same depth from scratch.  The 12-layer runs are trained first.  A child has its parent's
budget on top of its own, so the gain is not free.

The verdict is mean recall with a margin of two points, as in `ablation_text_depth`: less would not
be worth the parent's training.
"""

from harness.bases import LONGER, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, LONGER),
    points=product(
        {"model.text.layers": [2, 4], "model.text.init": [None, "first of 12", "even of 12"]}
    ),
    seeds=range(3),
    show=Show(
        x="model.text.layers",
        hue="model.text.init",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"model.text.init": None},
        labels={"model.text.layers": "text layers", "model.text.init": "text starts from"},
    ),
)
