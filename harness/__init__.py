"""Ablate and benchmark lightweight CLIP models: LightCLIP's objectives and a sweep harness."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from harness.api import load as load
else:

    def __getattr__(name: str) -> object:
        """`harness.load`, imported when it is asked for."""
        if name != "load":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return importlib.import_module("harness.api").load
