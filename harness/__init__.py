"""Ablate and benchmark lightweight CLIP models: LightCLIP's objectives and a sweep harness."""

from typing import TYPE_CHECKING

from harness.registry import import_in_parts, lazy

if TYPE_CHECKING:
    from harness.api import load as load

__version__ = "0.1.0"
__getattr__ = lazy(__name__, load="harness.api")
_MEANS = ("IMAGENET_DEFAULT_MEAN", "IMAGENET_INCEPTION_MEAN")
_STDS = ("IMAGENET_DEFAULT_STD", "IMAGENET_INCEPTION_STD")

# A run wants a few classes of these; to import all they have takes longer than torch itself.
import_in_parts(
    {
        "open_clip": {},
        "timm": {"__version__": "timm.version"},
        "timm.data": dict.fromkeys((*_MEANS, *_STDS), "timm.data.constants"),
        "timm.models": {},
        "timm.utils": {},
        "torchvision": {
            "__version__": "torchvision.version",
            "transforms": "torchvision.transforms",
        },
        "torchvision.models": {},
        "torchvision.ops": {},
    }
)
