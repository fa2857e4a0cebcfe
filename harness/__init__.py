"""Ablate and benchmark lightweight CLIP models: LightCLIP's objectives and a sweep harness."""

from typing import TYPE_CHECKING

from harness.registry import lazy

if TYPE_CHECKING:
    from harness.api import load as load

__version__ = "0.1.0"
__getattr__ = lazy(__name__, load="harness.api")
