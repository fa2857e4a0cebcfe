"""What does each part of LightCLIP bring at the scale of YFCC15M?

The whole method in our reading, CLIP at full and at shortened text depth, and the method without
each of its parts: the few points that are worth their price.

    python -m harness.sweep lightclip_yfcc15m --executor slurm --profile eight-gpus \
        data.path=/data/yfcc15m runtime.workers=7

The verdict is mean recall on the held-out captions, which come with the data where zero-shot sets
need not be at hand.  A part that brings less than one point is not worth carrying.

`data.path` holds webdataset shards (*.tar), and others to test on in a folder `test`.  Each run
sees 32 x 15.4 M pairs at 224 pixels: about 3.5 EMACs, four and a half hours on eight A100 with 64
cores if those decode 500 pictures a second each, which is the bottleneck.  Plan with `--dry-run`.
"""

from harness.bases import LIGHTCLIP, YFCC15M
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points

_SOFT, _TOKEN, _MLM = "objective.instance", "objective.token", "objective.mlm"
_LAYERS = "model.text.layers"
_CLIP = {f"{_SOFT}.a_max": 0.0, f"{_TOKEN}.weight": 0.0, f"{_MLM}.weight": 0.0}

_POINTS = {
    "LightCLIP": LIGHTCLIP,
    "CLIP": {**_CLIP, _LAYERS: 12},
    "CLIP, 4 layers": {**_CLIP, _LAYERS: 4},
    "LightCLIP - soft labels": {**LIGHTCLIP, f"{_SOFT}.a_max": 0.0},
    "LightCLIP - token matching": {**LIGHTCLIP, f"{_TOKEN}.weight": 0.0},
    "LightCLIP - MLM": {**LIGHTCLIP, f"{_MLM}.weight": 0.0},
    "plain MLM": {**LIGHTCLIP, f"{_MLM}.operator": "none"},
}

SWEEP = Sweep(
    base=YFCC15M,
    points=points(*_POINTS.values()),
    seeds=range(3),
    show=Show(
        x=_LAYERS,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=1.0,
        baseline=LIGHTCLIP,
        labels={_LAYERS: "text layers"},
        names=_POINTS,
    ),
)
