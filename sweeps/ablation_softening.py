"""Should softened labels rise, fall, follow the pair, or leave the positive at 1?

Rising is how we read "progressively"; beside it a mass that falls from the start, one that rises
and falls, one that is larger the less a pair matches, and negatives softened with the positive left
at 1 (as PyramidCLIP is written).  `a_max` 0 is CLIP's loss.  `ablation_soft_labels` compares
weightings and how the mass rises.

The verdict is mean recall: softening says that other pairs of the batch match a little too, which
shows at every rank and not in first place alone.  A gain below two points would not be worth it.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points

_SECTION = "objective.instance"
_MASS = f"{_SECTION}.a_max"
_POINTS = {
    "CLIP": {_MASS: 0.0},
    "rising": {_MASS: 0.2},
    "falling": {_MASS: 0.2, f"{_SECTION}.schedule": "constant", f"{_SECTION}.anneal": "linear"},
    "rising and falling": {
        _MASS: 0.2,
        f"{_SECTION}.anneal": "linear",
        f"{_SECTION}.anneal_start": 0.5,
    },
    "per sample": {_MASS: 0.2, f"{_SECTION}.per_sample": True},
    "positive at 1": {_MASS: 0.2, f"{_SECTION}.normalise": False},
}

SWEEP = Sweep(
    base=override(SMALL, {"model.text.layers": 2}),
    points=points(*_POINTS.values()),
    seeds=range(3),
    show=Show(
        x=_MASS,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={_MASS: 0.0},
        labels={_MASS: "largest softened mass"},
        names=_POINTS,
    ),
)
