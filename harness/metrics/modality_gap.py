"""How far pictures lie from captions: the gap between both clouds, and between a pair."""

from __future__ import annotations

from harness.metrics.base import GEOMETRY, IMAGE_RETRIEVAL, Embedded, Metric, Value, register


class ModalityGap(Metric):
    """Distance between the mean picture and the mean caption (Liang et al. 2022, section 2)."""

    kind = "modality_gap"
    title = "modality gap"
    needs = GEOMETRY
    unit = "distance"
    higher_is_better = False
    has_chance = False
    most = 2.0
    rules = (("modality_gap", "Euclidean distance between the mean embeddings"),)

    def compute(self, found: Embedded) -> Value:
        """The value of `found`."""
        import numpy as np

        gap = found.image.mean(0, dtype=np.float64) - found.text.mean(0, dtype=np.float64)
        return Value(float(np.linalg.norm(gap)), len(found.image))


class PairDistance(Metric):
    """Mean squared distance of a caption from its picture (Wang and Isola 2020: alignment)."""

    kind = per_item = "pair_distance"
    title = "alignment"
    needs = GEOMETRY
    unit = "squared distance"
    higher_is_better = False
    has_chance = False
    most = 4.0
    ways = (IMAGE_RETRIEVAL,)
    rules = (("pair_distance", "alignment: mean squared distance of a caption from its picture"),)

    def compute(self, found: Embedded) -> Value:
        """The value of `found`."""
        import numpy as np

        gaps = found.image[found.owners].astype(np.float64) - found.text
        squared = (gaps**2).sum(1)
        return Value.mean(self.kind, squared)


register(ModalityGap())
register(PairDistance())
