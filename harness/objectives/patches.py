"""What the terms that look at patches and words share: their projections into one space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from harness.config import Int, RunConfig
from harness.objectives.terms import RampedTerm

if TYPE_CHECKING:
    from harness.models.tokens import PatchLayout, TokenProjections
    from harness.models.two_tower import TwoTower


class PatchTerm(RampedTerm):
    """A term of patches and words, each linearly projected into one space."""

    dim: Annotated[Int, Field(ge=2)] = 256
    """Dimension of the space that patches and words are projected to (FILIP's)."""

    @property
    def needs_patches(self) -> bool:
        """See Term."""
        return True

    def module(
        self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None
    ) -> TokenProjections:
        """See Term: the projections of both towers' tokens into one space."""
        from harness.models.tokens import TokenProjections

        assert layout is not None
        return TokenProjections(layout, config.model.text.width, self.dim)
