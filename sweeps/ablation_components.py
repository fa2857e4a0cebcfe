"""Which of LightCLIP's objectives pays, alone and together?

Softened labels, token matching and masked language modelling, each on and off: CLIP, each added
alone, all, and all without each.  Words are contrasted across pictures and the picture enters the
masked pass through open gates (`GROUNDED`), so that both terms look at it.

The verdict is mean recall, the one number that all three objectives claim to raise: LightCLIP adds
each for a better alignment as a whole.  A gain below two points would not pay for a term.
"""

from harness.bases import GROUNDED, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Point, Show, Sweep, product

_SOFT, _TOKEN, _MLM = "objective.instance.a_max", "objective.token.weight", "objective.mlm.weight"


def _with(soft: float = 0.0, token: float = 0.0, mlm: float = 0.0) -> Point:
    return {_SOFT: soft, _TOKEN: token, _MLM: mlm}


SWEEP = Sweep(
    base=override(SMALL, {**GROUNDED, "model.image.output_stride": 8, "model.text.layers": 4}),
    points=product({_SOFT: [0.0, 0.1], _TOKEN: [0.0, 0.5], _MLM: [0.0, 0.5]}),
    seeds=range(3),
    show=Show(
        x=_SOFT,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline=_with(),
        labels={_SOFT: "softened mass", _TOKEN: "token weight", _MLM: "MLM weight"},
        names={
            "CLIP": _with(),
            "CLIP + soft labels": _with(soft=0.1),
            "CLIP + token matching": _with(token=0.5),
            "CLIP + MLM": _with(mlm=0.5),
            "all": _with(soft=0.1, token=0.5, mlm=0.5),
            "all - soft labels": _with(token=0.5, mlm=0.5),
            "all - token matching": _with(soft=0.1, mlm=0.5),
            "all - MLM": _with(soft=0.1, token=0.5),
        },
    ),
)
