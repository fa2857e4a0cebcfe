"""Where and how should the picture enter masked language modelling?

Plain masked language modelling (operator `none`), which knows no stages, is the control.

The verdict is mean recall: the fusion is there in training only, for the sake of what the two
towers learn by it.  Places within two points of the best one are as good.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points, product

SWEEP = Sweep(
    base=override(
        SMALL, {"model.image.output_stride": 8, "model.text.layers": 4, "objective.mlm.weight": 0.5}
    ),
    points=points({"objective.mlm.operator": "none"})
    + product(
        {
            "objective.mlm.operator": ["cross_attention", "add", "concat"],
            "objective.mlm.stages": ["first", "middle", "last", "all"],
        }
    ),
    seeds=range(3),
    show=Show(
        x="objective.mlm.stages",
        hue="objective.mlm.operator",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"objective.mlm.operator": "none"},
        labels={"objective.mlm.stages": "stages", "objective.mlm.operator": "operator"},
    ),
)
