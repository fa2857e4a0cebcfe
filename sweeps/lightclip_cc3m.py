"""What does each part of LightCLIP bring at the scale of CC3M, and at what text depth?

The whole method in our reading against CLIP, against itself without or with another form of each
part, at other text depths with and without masked language modelling, and with other image towers.

    python -m harness.sweep lightclip_cc3m --executor slurm --profile eight-gpus \
        data.path=/data/cc3m runtime.workers=7

The verdict is mean recall on the held-out captions, which come with the data where zero-shot sets
need not be at hand.  A part that brings less than one point is not worth carrying.

`data.path` holds webdataset shards (*.tar), and others to test on in a folder `test`.  Each run
sees 30 x 2.8 M pairs at 224 pixels: 0.2 to 0.8 EMACs, about 45 minutes on eight A100 with 64 cores
if those decode 500 pictures a second each, which is the bottleneck.  Plan with `--dry-run`.
"""

from harness.bases import CC3M, LIGHTCLIP
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, points

_SOFT, _TOKEN, _MLM = "objective.instance", "objective.token", "objective.mlm"
_LAYERS, _BACKBONE = "model.text.layers", "model.image.backbone"
_CLIP = {f"{_SOFT}.a_max": 0.0, f"{_TOKEN}.weight": 0.0, f"{_MLM}.weight": 0.0}

_WAYS = {f"{_SOFT}.weighting": "similarity", f"{_TOKEN}.matching": "one_to_one"}
#: With the default of each way that a point tries another of, so that all are compared with it.
_WHOLE = {**LIGHTCLIP, **_WAYS, f"{_MLM}.stages": "all"}

_POINTS = {
    "LightCLIP": _WHOLE,
    "CLIP": {**_CLIP, _LAYERS: 12},
    "CLIP, 4 layers": {**_CLIP, _LAYERS: 4},
    "LightCLIP - soft labels": {**_WHOLE, f"{_SOFT}.a_max": 0.0},
    "uniform softening": {**_WHOLE, f"{_SOFT}.weighting": "uniform"},
    "LightCLIP - token matching": {**_WHOLE, f"{_TOKEN}.weight": 0.0},
    "words share patches": {**_WHOLE, f"{_TOKEN}.matching": "many_to_one"},
    "sinkhorn": {**_WHOLE, f"{_TOKEN}.matching": "sinkhorn"},
    "LightCLIP - MLM": {**_WHOLE, f"{_MLM}.weight": 0.0},
    "plain MLM": {**_WHOLE, f"{_MLM}.operator": "none"},
    "fusion in the last block": {**_WHOLE, f"{_MLM}.stages": "last"},
    "1 layer": {**_WHOLE, _LAYERS: 1},
    "1 layer - MLM": {**_WHOLE, _LAYERS: 1, f"{_MLM}.weight": 0.0},
    "12 layers": {**_WHOLE, _LAYERS: 12},
    "12 layers - MLM": {**_WHOLE, _LAYERS: 12, f"{_MLM}.weight": 0.0},
    "MobileNetV2": {**_WHOLE, _BACKBONE: "mobilenetv2_100"},
    "CLIP, MobileNetV2": {**_CLIP, _LAYERS: 12, _BACKBONE: "mobilenetv2_100"},
    "Swin-Nano": {**_WHOLE, _BACKBONE: "swin_nano"},
    "CLIP, Swin-Nano": {**_CLIP, _LAYERS: 12, _BACKBONE: "swin_nano"},
}

SWEEP = Sweep(
    base=CC3M,
    points=points(*_POINTS.values()),
    seeds=range(3),
    show=Show(
        x=_LAYERS,
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=1.0,
        baseline=_WHOLE,
        labels={_LAYERS: "text layers", _BACKBONE: "image encoder"},
        names=_POINTS,
    ),
)
