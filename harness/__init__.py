"""Ablate and benchmark lightweight CLIP models: LightCLIP's objectives and a sweep harness."""

__version__ = "0.1.0"
