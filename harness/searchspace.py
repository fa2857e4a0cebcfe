"""Door for sweep files, by the name they have always typed: see harness.config.searchspace."""

from harness.config.searchspace import Asha, Choice, Hyperband, Integers, Median, Search, Uniform

__all__ = ["Asha", "Choice", "Hyperband", "Integers", "Median", "Search", "Uniform"]
