"""What the terms that imitate teachers have in common: the teachers' embeddings of a batch.

Knows nothing of where they come from, of models or of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from harness.config import RunConfig
from harness.config.inheritance import TEACHER_FORMS
from harness.config.parents import not_filled_in
from harness.errors import ConfigError
from harness.objectives.terms import BatchPlace, RampedTerm, StepTensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from harness.models.tokens import PatchLayout
    from harness.models.training import Pass
    from harness.models.two_tower import TwoTower


class OneTeacher(NamedTuple):
    """What one teacher makes of some pairs.

    Attributes:
        image, text: its unit-norm embeddings (N, D).
        scale: (N,), exp(logit_scale) that it was trained with, for each pair.
    """

    image: Tensor
    text: Tensor
    scale: Tensor


class TaughtPairs(tuple["Tensor", ...]):
    """What each teacher makes of some pairs: the tensors of `OneTeacher`, teacher after teacher."""

    __slots__ = ()

    @classmethod
    def _make(cls, tensors: Iterable[Tensor]) -> Self:
        return cls(tensors)

    @property
    def teachers(self) -> Iterator[OneTeacher]:
        """One after the other."""
        for first in range(0, len(self), len(OneTeacher._fields)):
            yield OneTeacher(*self[first : first + len(OneTeacher._fields)])

    def to(self, device: torch.device) -> TaughtPairs:
        """On a device."""
        from harness.device import upload

        return TaughtPairs(upload(tensor, device) for tensor in self)

    def rows(self, first: int, last: int) -> TaughtPairs:
        """Of the pairs `first` to `last` alone."""
        return TaughtPairs(tensor[first:last] for tensor in self)


class TaughtTerm(RampedTerm):
    """A term that looks at teachers' embeddings of the pairs.

    Where a teacher's embeddings are wider or narrower than the run's own, these are projected to
    its width first, without a bias; the projections train for the term alone.
    """

    needs_teacher: ClassVar[bool] = True
    projects: ClassVar[bool] = True
    """Whether it compares embeddings with those of a teacher."""

    def check(self, config: RunConfig) -> None:
        """See Term: there is a teacher."""
        if not config.teacher.models:
            name = next(n for n, term in config.objective.terms.items() if term == self)
            raise ConfigError(
                f"objective.{name}.weight = {self.weight:g} without teacher.models; allowed are "
                f"{TEACHER_FORMS}"
            )

    def module(
        self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None
    ) -> nn.Module | None:
        """See Term: a projection of each tower for each teacher of another width."""
        from torch import nn

        own, widths = config.model.embed_dim, widths_of(config)
        made = {
            f"{tower}_{place}": nn.Linear(own, width, bias=False)
            for place, width in enumerate(widths)
            for tower in ("image", "text")
            if self.projects and width != own
        }
        return nn.ModuleDict(made) if made else None

    def inputs(self, tokens: Tensor, place: BatchPlace) -> TaughtPairs | None:
        """See Term: what the teachers make of the pairs."""
        return place.taught

    def outputs(self, seen: Pass, module: Any, inputs: Any) -> tuple[Tensor, ...] | None:
        """See Term: the same, which no pass moves."""
        return None if inputs is None else TaughtPairs(inputs)

    @staticmethod
    def mean_over_teachers(
        step: StepTensors,
        taught: TaughtPairs,
        module: Any,
        of_one: Callable[[Tensor, Tensor, OneTeacher], Tensor],
    ) -> Tensor:
        """Mean of `of_one` of the run's embeddings (N, D), in a teacher's width, and that one's."""
        from torch.nn import functional as F

        found: list[Tensor] = []
        for place, teacher in enumerate(taught.teachers):
            image, text = step.image, step.text
            if module is not None and f"image_{place}" in module:
                image = F.normalize(module[f"image_{place}"](image), dim=-1)
                text = F.normalize(module[f"text_{place}"](text), dim=-1)
            found.append(of_one(image, text, teacher))
        return sum(found[1:], found[0]) / len(found)


def widths_of(config: RunConfig) -> Sequence[int]:
    """Of the teachers' embeddings; ConfigError where they were never filled in."""
    if config.teacher.widths is None:
        raise not_filled_in("teacher.models", list(config.teacher.models), "teacher.widths")
    return config.teacher.widths
