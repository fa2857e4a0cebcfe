"""Self-supervision of the image tower beside the captions (SLIP, Mu et al., 2022).

Section 3 of arXiv 2112.12750: two further views of each picture, cropped and distorted as SimCLR's,
pass through the image tower and a projection head, and each is to find the other among all views of
the batch (SimCLR, Chen et al., 2020, equation 1).  The views are cut by the loader, as functions of
the run's seed, the epoch and the sample, as the one is that meets the caption.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from harness.config import TERMS, Float, Int, RunConfig
from harness.objectives.instance import own_places
from harness.objectives.terms import BatchPlace, RampedTerm, StepTensors

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from harness.data.transforms import Look
    from harness.models.tokens import PatchLayout
    from harness.models.training import Pass
    from harness.models.two_tower import TwoTower


class Views(NamedTuple):
    """Further views of a process's pictures, uint8 (N, V, S, S, 3)."""

    pictures: Tensor

    def to(self, device: torch.device) -> Views:
        """On a device."""
        from harness.device import upload

        return Views(upload(self.pictures, device))

    def rows(self, first: int, last: int) -> Views:
        """Of the pairs `first` to `last` alone."""
        return Views(self.pictures[first:last])


class Projected(NamedTuple):
    """Unit-norm projections (N, d) of the two views of each picture."""

    first: Tensor
    second: Tensor


@TERMS.register("views")
class ViewsLoss(RampedTerm):
    """SLIP's second objective; it stands beside the instance term, at weight 1 in the paper."""

    added: ClassVar[float] = 8

    count: Literal[1, 2] = 2
    """Further views of a picture: 2 that find each other (SLIP), or 1 that finds the one which
    meets the caption, at one pass of the image tower less."""
    least_area: Annotated[Float, Field(gt=0, le=1)] = 0.08
    """Of a view, as a share of the picture; half of the views are mirrored."""
    tau: Annotated[Float, Field(gt=0)] = 0.1
    """Temperature of the cosines."""
    hidden: Annotated[Int, Field(ge=2)] = 4096
    """Width of the two hidden layers of the projection head."""
    dim: Annotated[Int, Field(ge=2)] = 256
    """Dimension that the head projects to."""

    @property
    def further_views(self) -> int:
        """See Term."""
        return self.count

    def make_views(self, look: Look, rng: np.random.Generator) -> list[np.ndarray]:
        """See Term."""
        from harness.data.transforms import distort

        return [distort(look((self.least_area, 1.0), True, rng), rng) for _ in range(self.count)]

    def inputs(self, tokens: Tensor, place: BatchPlace) -> Views | None:
        """See Term: the views, in training."""
        return None if place.views is None else Views(place.views)

    def module(self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None) -> nn.Module:
        """See Term: the projection head, three layers with BatchNorm between (section 3.2)."""
        from torch import nn

        width = towers.image.projection.in_features
        layers: list[nn.Module] = []
        for inside in (width, self.hidden):
            norm = nn.BatchNorm1d(self.hidden)
            layers += [nn.Linear(inside, self.hidden), norm, nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Linear(self.hidden, self.dim))

    def outputs(self, seen: Pass, module: Any, inputs: Views | None) -> Projected | None:
        """See Term: a pass of the image tower for each view."""
        from torch.nn import functional as F

        from harness.data.transforms import normalise

        if inputs is None:
            return None
        tower = seen.towers.image
        pooled = [tower.pool(seen.features)] if self.count == 1 else []
        for view in inputs.pictures.unbind(1):
            pixels = normalise(view, seen.towers.config.image)
            pooled.append(tower.pool(tower.features(pixels)))
        return Projected(*(F.normalize(module(one).float(), dim=-1) for one in pooled))

    def loss(self, step: StepTensors, outputs: Projected, module: object) -> Tensor:
        """See Term: a process's views among those of all."""
        of_all = (step.gather(outputs.first), step.gather(outputs.second))
        return views_loss(*outputs, self.tau, batch=of_all, place=step.first)


def views_loss(
    first: Tensor, second: Tensor, tau: float, *, batch: tuple[Tensor, Tensor], place: int = 0
) -> Tensor:
    """SimCLR's NT-Xent: each view against its partner and all other views but itself; a scalar.

    Args:
        first, second: unit-norm (N, d), two views of each picture.
        tau: temperature.
        batch: those of all M pictures, both (M, d).
        place: of picture 0 in the batch.
    """
    import torch
    from torch.nn import functional as F

    firsts, seconds = batch
    targets = torch.arange(place, place + len(first), device=first.device)
    losses = []
    for own, same, other in ((first, firsts, seconds), (second, seconds, firsts)):
        alike = own @ same.T
        itself = own_places(alike, place)
        logits = torch.cat([own @ other.T, alike.masked_fill(itself, -math.inf)], dim=1)
        losses.append(F.cross_entropy(logits / tau, targets))
    return (losses[0] + losses[1]) / 2
