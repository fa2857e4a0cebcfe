"""Do progressively softened labels help, and does it matter how they are softened?

`a_max` 0 is CLIP's loss; there weighting and schedule mean nothing, so it stands once.

The verdict is mean recall: softening says that other pairs of the batch match a little too, which
shows at every rank and not in first place alone.  A gain below two points would not be worth it.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points, product

_SECTION = "objective.instance"

SWEEP = Sweep(
    base=override(SMALL, {"model.text.layers": 4}),
    points=points({f"{_SECTION}.a_max": 0.0})
    + product(
        {
            f"{_SECTION}.weighting": ["uniform", "similarity", "text"],
            f"{_SECTION}.schedule": ["constant", "linear", "cosine"],
            f"{_SECTION}.a_max": [0.1, 0.3],
        }
    ),
    seeds=range(3),
    show=Show(
        x=f"{_SECTION}.a_max",
        hue=f"{_SECTION}.weighting",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={f"{_SECTION}.a_max": 0.0},
        labels={f"{_SECTION}.a_max": "largest softened mass"},
    ),
)
