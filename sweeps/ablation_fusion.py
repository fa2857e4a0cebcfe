"""Where, how and from what should the picture enter masked language modelling?

Each operator through gates that start open: its last map ahead of every block or of the last one,
or the maps of the image tower's stages, from the first to the last as the blocks go.  Beside them
the pooled embedding through attention, and gates that start closed.  Plain masked language
modelling (operator `none`), which knows no picture, is the control.

The verdict is mean recall: the fusion is there in training only, for the sake of what the two
towers learn by it.  Places within two points of the best one are as good.  Whether the picture is
used is `fusion_gain` on validation, in nats.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points, product

_OPERATOR, _STAGES = "objective.mlm.operator", "objective.mlm.stages"
_SOURCE, _GATE = "objective.mlm.source", "objective.mlm.gate_init"
_OPERATORS = ["cross_attention", "add", "concat"]
_ALL = {_STAGES: ["all"], _GATE: [1.0]}

SWEEP = Sweep(
    base=override(
        SMALL, {"model.image.output_stride": 8, "model.text.layers": 2, "objective.mlm.weight": 0.5}
    ),
    points=points({_OPERATOR: "none"})
    + product({_OPERATOR: _OPERATORS, _SOURCE: ["last", "stages"], **_ALL})
    + product({_OPERATOR: _OPERATORS, _SOURCE: ["last"], **_ALL, _STAGES: ["last"]})
    + points(
        {_OPERATOR: "cross_attention", _STAGES: "all", _GATE: 0.0},
        {
            _OPERATOR: "cross_attention",
            _STAGES: "all",
            _GATE: 1.0,
            "objective.mlm.image_embedding": "pooled",
        },
    ),
    seeds=range(3),
    show=Show(
        x=_STAGES,
        hue=_OPERATOR,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={_OPERATOR: "none"},
        labels={_STAGES: "stages", _OPERATOR: "operator", _SOURCE: "source", _GATE: "gate from"},
    ),
)
