"""What a term of the loss is, and the one place where terms are weighted and summed.

A term is a class registered in one file, of this folder or a sweep file: its settings (the section
of `objective` that has its name), what it draws for a batch, the modules that train for it beside
the towers, what it looks at in a pass, its loss and what it logs.  The training knows no term by
name.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self

from pydantic import Field

from harness.config import (
    TERMS,
    Float,
    Int,
    Objective,
    RunConfig,
    Schedule,
    Strict,
    validate,
)
from harness.errors import ConfigError
from harness.objectives.schedules import ramp
from harness.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from harness.data.transforms import Look
    from harness.models.tokens import PatchLayout
    from harness.models.training import Pass
    from harness.models.two_tower import TwoTower
    from harness.objectives.taught import TaughtPairs

__all__ = ["TERMS"]


class BatchInputs(Protocol):
    """What a term draws for a batch of pairs."""

    def to(self, device: torch.device) -> Self:
        """On a device."""

    def rows(self, first: int, last: int) -> Self:
        """For the pairs `first` to `last` alone."""


@dataclass(frozen=True)
class BatchPlace:
    """A process's pairs of a step, and what a term may draw for them.

    Attributes:
        seed, step: of the run.
        first: place of the first pair in the global batch.
        size: pairs of the global batch.
        context_length, vocab_size: of the text tower.
        taught: what teachers make of the pairs, where a term wants it.
        views: what `make_views` of the term made of the process's pictures, uint8
            (N, V, S, S, 3); None where it makes none, and in evaluation.
    """

    seed: int
    step: int
    first: int
    size: int
    context_length: int
    vocab_size: int
    taught: TaughtPairs | None = None
    views: Tensor | None = None

    def generator(self, name: str) -> torch.Generator:
        """Draws of `name` alone, the same on every process: nobody else's are moved by them."""
        import torch

        return torch.Generator().manual_seed(derive_seed(self.seed, name, self.step))


def _alone(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class StepTensors:
    """What the terms of one step may look at: a process's own pairs, and those of the others.

    A term is the mean, over processes with N pairs each, of what it gives on them.

    Attributes:
        image, text: unit-norm embeddings (N, D).
        logit_scale: log of the temperature's inverse, a scalar.
        progress: samples_seen / total_samples before the step, in [0, 1).
        of_terms: name of a term -> its `outputs`.
        modules: name of a term -> its `module`.
        towers: both, for a term that shares their weights.
        gather: rows (N, ...) of this process to those of the global batch, in its order and with
            gradient; the same rows where a process is alone.
        first: place of this process's first pair in the global batch.
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    progress: float
    of_terms: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, Any] = field(default_factory=dict)
    towers: TwoTower | None = None
    gather: Callable[[Tensor], Tensor] = _alone
    first: int = 0


class Term(Strict, ABC):
    """A term of the loss: its settings, and what is to be done for it; with weight 0 nothing is."""

    added: ClassVar[float] = math.inf
    """Place among the terms of the harness, by when they came; terms are summed in this order."""
    in_every_key: ClassVar[bool] = False
    """Whether a run's key tells of the term when it is off; true of what the first keys told of."""
    module_name: ClassVar[str | None] = None
    """What the module is called in a checkpoint; None: by the term's name."""
    drawn_as: ClassVar[str | None] = None
    """What its initial weights are drawn for; None: the term's name."""
    text_passes: ClassVar[int] = 0
    """Passes of the text tower that the term takes beside the contrastive one."""
    needs_teacher: ClassVar[bool] = False
    """Whether it looks at the embeddings of `teacher`."""

    weight: Annotated[Float, Field(ge=0)] = 0.0
    """What the term is multiplied by in the sum; 0 leaves it out."""

    def idle(self) -> set[str]:
        """All but the weight, where that is 0."""
        return set() if self.weight else set(type(self).model_fields) - {"weight"}

    def check(self, config: RunConfig) -> None:
        """Raise ConfigError if the term cannot be had in the run of `config`."""

    def weight_at(self, progress: float) -> float:
        """Weight at `progress` = samples_seen / total_samples."""
        return self.weight

    @property
    def needs_patches(self) -> bool:
        """Whether it looks at the image tower's patches."""
        return False

    @property
    def needs_stages(self) -> bool:
        """Whether it looks at the maps of the image tower's stages."""
        return False

    @property
    def needs_words(self) -> bool:
        """Whether `outputs` looks at the text tower's state of each word, not of EOT alone."""
        return type(self).outputs is not Term.outputs

    @property
    def waits(self) -> bool:
        """Whether its loss reads numbers of a GPU on the host; such losses are computed last."""
        return False

    @property
    def further_views(self) -> int:
        """How many views of each picture it looks at beside the one that its caption meets."""
        return 0

    def lr_factor_of(self, parameter: str) -> float:
        """What the learning rate is multiplied by for a parameter of its module, by its name."""
        return 1.0

    def make_views(self, look: Look, rng: np.random.Generator) -> list[np.ndarray]:
        """The further views of a picture, uint8 (S, S, 3); functions of what `rng` draws.

        Args:
            look: a crop of the picture, of an area in the range given, perhaps mirrored.
            rng: of the run's seed, the epoch, the sample and the term.
        """
        return []

    def inputs(self, tokens: Tensor, place: BatchPlace) -> BatchInputs | None:
        """What it draws for captions (N, L) of ids, on the CPU; a function of the step."""
        return None

    def module(
        self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None
    ) -> nn.Module | None:
        """What trains for it beside the towers and is no part of the model at inference."""
        return None

    def outputs(self, seen: Pass, module: Any, inputs: Any) -> tuple[Tensor, ...] | None:
        """What the loss needs of a pass besides the embeddings: a NamedTuple of tensors.

        Rows stand in the order of the pairs, so that a batch may pass in parts that are joined.

        Args:
            module: what `module` gave.
            inputs: what `inputs` gave for these pairs; None outside of training.
        """
        return None

    def begin(self, outputs: Any, module: Any) -> None:
        """Begin what `loss` will wait for, while other terms' `outputs` and losses are computed.

        Called with the `outputs` where a batch passes at once; else `loss` does without.
        """

    def probe(self, seen: Pass, module: Any, inputs: Any) -> Tensor | None:
        """What the term's metrics compare between pictures (`metrics.Contrasted`): (N,), a text.

        Computed twice in evaluation, with the texts' own pictures and with others; None where a
        term has no such metric.  Arguments as for `outputs`.
        """
        return None

    def locate(self, seen: Pass, module: Any) -> Tensor | None:
        """How much of each word of text i is put on each patch of picture i, (N, L, P), or None."""
        return None

    @abstractmethod
    def loss(self, step: StepTensors, outputs: Any, module: Any) -> Tensor:
        """The term before its weight, a scalar; see `StepTensors` for several processes."""

    def log(self, progress: float, module: Any) -> dict[str, float]:
        """Name -> number of what a line of the training log shall tell besides the loss."""
        return {}


def _check(name: str, term: object) -> None:
    if not (isinstance(term, type) and issubclass(term, Term)) or inspect.isabstract(term):
        raise ConfigError(
            f"loss term {name!r}: a class is wanted that has harness.objectives.terms.Term as a "
            "base and defines `loss`"
        )
    if not name.isidentifier():
        raise ConfigError(f"loss term {name!r}: a name is wanted such as {term.__name__.lower()}")
    try:
        validate(term, {})
    except ConfigError as error:
        raise ConfigError(f"loss term {name!r}: every setting needs a default; {error}") from None


TERMS.check = _check


class RampedTerm(Term):
    """A term whose weight may grow with the share of the budget that has been seen; 0 is off."""

    weight: Annotated[Float, Field(ge=0)] = 0.0
    """Weight that the ramp ends at."""
    schedule: Schedule = "constant"
    """How the weight grows from `start` to the end of the budget; `constant`: it never changes."""
    start: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget that passes before the weight begins to grow."""
    steps: Annotated[Int, Field(ge=1)] = 4
    """Number of stairs of the `step` schedule."""
    lr_factor: Annotated[Float, Field(gt=0), Field(json_schema_extra={"born": 1})] = 1.0
    """What train.lr is multiplied by for what trains for the term beside the towers."""

    def lr_factor_of(self, parameter: str) -> float:
        """See Term."""
        return self.lr_factor

    def idle(self) -> set[str]:
        """As for every term; the stairs of any schedule but `step`."""
        return super().idle() | (set() if self.schedule == "step" else {"steps"})

    def weight_at(self, progress: float) -> float:
        """See Term: weight * f(p)."""
        return self.weight * ramp(self.schedule, progress, start=self.start, steps=self.steps)


@dataclass(frozen=True)
class Loss:
    """The total and its terms, raw and weighted, each a scalar."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]

    def detached(self) -> Loss:
        """The values without the graph that made them."""
        raw = {name: value.detach() for name, value in self.raw.items()}
        weighted = {name: value.detach() for name, value in self.weighted.items()}
        return Loss(self.total.detach(), raw, weighted)


def compute_loss(step: StepTensors, objective: Objective) -> Loss:
    """Sum over the active terms of weight x term, the one place where they meet."""
    terms = objective.active
    found = {
        name: terms[name].loss(step, step.of_terms.get(name), step.modules.get(name))
        for name in sorted(terms, key=lambda name: terms[name].waits)
    }
    raw = {name: found[name] for name in terms}
    weighted = {name: term.weight_at(step.progress) * raw[name] for name, term in terms.items()}
    return Loss(sum(weighted.values(), step.logit_scale.new_zeros(())), raw, weighted)
