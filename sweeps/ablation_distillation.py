"""What does a one-layer text tower gain from a finished, deeper model?

Alone; imitating the same run at 12 layers by each term (its affinities as TinyCLIP, its embeddings
and its pairs as CLIP-KD); beginning with its first block; both; and, without it, with LightCLIP's
terms.  The teacher is trained first and is a row of the table.  A run that imitates it, or begins
with it, has the teacher's budget on top of its own, so the gain is not free.

The verdict is mean recall with a margin of two points, as in `ablation_text_depth`: less would not
be worth the teacher's training.
"""

from harness.bases import GROUNDED, LONGER, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Point, Show, Sweep, points

_LAYERS, _INIT = "model.text.layers", "model.text.init"
_WEIGHTS = {f"objective.{name}.weight": 0.0 for name in ("affinity", "feature", "interactive")}
_LIGHT = {
    "objective.instance.a_max": 0.1,
    "objective.token.weight": 0.5,
    "objective.mlm.weight": 0.5,
}
_ALONE: Point = {_LAYERS: 1, **_WEIGHTS, **dict.fromkeys(_LIGHT, 0.0), _INIT: None}
_AFFINITY: Point = {**_ALONE, "objective.affinity.weight": 1.0}
_NAMES: dict[str, Point] = {
    "alone": _ALONE,
    "affinity": _AFFINITY,
    # of 128 dimensions: 2,000 / 128 in the terms of CLIP-KD's code
    "feature": {**_ALONE, "objective.feature.weight": 16.0},
    "interactive": {**_ALONE, "objective.interactive.weight": 1.0},
    "inherited block": {**_ALONE, _INIT: "first of 12"},
    "inherited block, affinity": {**_AFFINITY, _INIT: "first of 12"},
    "LightCLIP's terms": {**_ALONE, **_LIGHT},
    "the teacher": {**_ALONE, _LAYERS: 12},
}

SWEEP = Sweep(
    base=override(
        SMALL,
        {**LONGER, **GROUNDED, "model.image.output_stride": 8, "teacher.models": "12 layers"},
    ),
    points=points(*_NAMES.values()),
    seeds=range(3),
    show=Show(
        x=_LAYERS,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline=_ALONE,
        names=_NAMES,
    ),
)
