"""How do LightCLIP's objectives fare against those of its rivals, each at its own learning rate?

CLIP, label smoothing, SoftCLIP, SigLIP, FILIP, SPARC, DeCLIP's nearest text, SLIP's further views,
and LightCLIP's three terms alone and together: one pair of towers, one budget, the same seeds.
Each chooses its learning rate from one grid, on the validation split and by a seed of its own.

What a paper puts in the place of CLIP's loss stands in its place (SigLIP, SoftCLIP); what it adds
to it, or what leaves the pooled embeddings without a loss (FILIP), stands beside it, at the paper's
weights where they are known.  The queue and the projection head are as small as the towers.

The verdict is mean recall, which every one of these papers claims to raise; a gain below two points
would not pay for a term.
"""

from harness.bases import GROUNDED, SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Point, Show, Sweep, points

_CLIP, _SOFT = "objective.instance.weight", "objective.instance.a_max"
_TOKEN, _MLM = "objective.token.weight", "objective.mlm.weight"
_SMOOTH = {"objective.instance.weighting": "uniform", "objective.instance.schedule": "constant"}
_TERMS = {
    _TOKEN: "token matching",
    _MLM: "MLM",
    "objective.self_similarity.weight": "self-similarity",
    "objective.sigmoid.weight": "sigmoid",
    "objective.late.weight": "late",
    "objective.grouped.weight": "grouped",
    "objective.nearest.weight": "nearest",
    "objective.views.weight": "views",
}


METHODS: dict[str, Point] = {
    "CLIP": {_CLIP: 1.0, _SOFT: 0.0},
    "label smoothing": {_SOFT: 0.1, **_SMOOTH},
    "SoftCLIP": {_CLIP: 0.0, "objective.self_similarity.weight": 1.0},
    "SigLIP": {_CLIP: 0.0, "objective.sigmoid.weight": 1.0},
    "FILIP + CLIP": {"objective.late.weight": 1.0},
    "SPARC": {_CLIP: 0.5, "objective.grouped.weight": 1.0},
    "DeCLIP's nearest text": {_CLIP: 0.8, "objective.nearest.weight": 0.2},
    "SLIP": {"objective.views.weight": 1.0},
    "LightCLIP's soft labels": {_SOFT: 0.1},
    "LightCLIP's token matching": {_TOKEN: 0.5},
    "LightCLIP's MLM": {_MLM: 0.5},
    "LightCLIP": {_SOFT: 0.1, _TOKEN: 0.5, _MLM: 0.5},
}

SWEEP = Sweep(
    base=override(
        SMALL,
        {
            **GROUNDED,
            "model.image.output_stride": 8,
            "model.text.layers": 2,
            "objective.nearest.size": 1_024,
            "objective.views.hidden": 256,
            "objective.views.dim": 128,
        },
    ),
    points=points(*METHODS.values()),
    seeds=range(3),
    nuisance={"train.lr": [1e-3, 2e-3, 4e-3]},
    tune_on="validation/mean_recall",
    tune_seeds=(100,),
    show=Show(
        x=_SOFT,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline=METHODS["CLIP"],
        labels={_CLIP: "CLIP", _SOFT: "soft labels", **_TERMS},
        names=METHODS,
    ),
)
