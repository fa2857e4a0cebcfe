"""Which lightweight image encoder is worth its parameters?

The first three are LightCLIP's families; the rest are mobile towers of the years since.

The verdict is mean recall, which asks most of what an image encoder sees.  A smaller encoder is
worth having if it loses no more than two points to the best.
"""

from harness.bases import SMALL
from harness.config import override
from harness.metrics import HEADLINE
from harness.space import Show, Sweep, product

SWEEP = Sweep(
    base=override(SMALL, {"model.text.layers": 4}),
    points=product(
        {
            "model.image.backbone": [
                "resnet18",
                "mobilenetv2_100",
                "swin_nano",
                "mobilenetv4_conv_small",
                "repvit_m0_9",
                "test_resnet",
            ]
        }
    ),
    seeds=range(3),
    show=Show(
        x="model.image.backbone",
        metrics=HEADLINE,
        primary="test/mean_recall",
        margin=2.0,
        baseline={"model.image.backbone": "resnet18"},
        labels={"model.image.backbone": "image encoder"},
    ),
)
