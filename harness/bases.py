"""Door for sweep files, by the name they have always typed: see harness.config.bases."""

from harness.config.bases import BASES, CC3M, GROUNDED, LIGHTCLIP, LONGER, SMALL, YFCC15M, base

__all__ = ["BASES", "CC3M", "GROUNDED", "LIGHTCLIP", "LONGER", "SMALL", "YFCC15M", "base"]
