"""Door for sweep files, by the name they have always typed: see harness.config.sweep."""

from harness.config.sweep import Point, Points, Show, Sweep, one_at_a_time, points, product, zipped

__all__ = ["Point", "Points", "Show", "Sweep", "one_at_a_time", "points", "product", "zipped"]
