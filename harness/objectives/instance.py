"""Instance-level alignment with progressively softened labels (LightCLIP, abstract).

The abstract says that the labels of negative samples are softened progressively; how is our
reading, hence every choice is a switch: with a(p) the softened mass at progress p, the target of
row i is 1 - a(p) at i and a(p) * w_ij elsewhere, w a distribution over the negatives of the
*global* batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from harness.config import TERMS, Float, Int, RunConfig, Schedule
from harness.errors import ConfigError
from harness.objectives.schedules import ramp
from harness.objectives.terms import StepTensors, Term

if TYPE_CHECKING:
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]

Weighting = Literal["uniform", "similarity", "text", "image"]


@TERMS.register("instance")
class InstanceLoss(Term):
    """Instance-level alignment with progressively softened labels (our reading of LightCLIP)."""

    added: ClassVar[float] = 0
    in_every_key: ClassVar[bool] = True

    weight: Annotated[Float, Field(ge=0)] = 1.0
    """What the term is multiplied by in the sum; 0 leaves it out, and another term must be on.
    Elsewhere: contrastive_weight, clip_weight, itc_weight."""
    a_max: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Largest mass moved from the positive to the negatives; 0 is CLIP's loss.
    Elsewhere: label_smoothing, smoothing, soft_labels, soft_label_mass."""
    weighting: Weighting = "similarity"
    """How the softened mass is shared among the negatives."""
    schedule: Schedule = "linear"
    """How the softened mass grows to `a_max`, from `start` to the end of the budget."""
    start: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget that passes before softening begins."""
    tau: Annotated[Float, Field(gt=0)] = 0.1
    """Temperature of the weighting."""
    steps: Annotated[Int, Field(ge=1)] = 4
    """Number of stairs of the `step` schedule."""
    anneal: Annotated[Schedule | None, Field(json_schema_extra={"born": None})] = None
    """How the softened mass falls to 0 again, from `anneal_start` to the end of the budget; with
    the schedule `constant` it only falls.  null: it does not."""
    anneal_start: Annotated[Float, Field(ge=0, lt=1), Field(json_schema_extra={"born": 0})] = 0.0
    """Share of the budget that passes before the softened mass falls."""
    per_sample: Annotated[bool, Field(json_schema_extra={"born": False})] = False
    """Soften a pair by as much as it does not match: the mass times 1 - its own cosine, which is
    taken as 0 where it is negative and takes no gradient."""
    normalise: Annotated[bool, Field(json_schema_extra={"born": True})] = True
    """Whether the positive gives up the mass; false: it stays at 1 and negatives are added (as
    PyramidCLIP is written)."""

    def idle(self) -> set[str]:
        """Without softening, how to soften; of the rest, what the choices made do not use."""
        if self.weight == 0 or self.a_max == 0:
            return set(type(self).model_fields) - {"weight", *(["a_max"] if self.weight else [])}
        return {
            *(["tau"] if self.weighting == "uniform" else []),
            *(["steps"] if "step" not in (self.schedule, self.anneal) else []),
            *(["anneal_start"] if self.anneal is None else []),
        }

    def check(self, config: RunConfig) -> None:
        """See Term: the mass is not annealed before there is any."""
        if self.a_max and self.anneal == "constant" and self.anneal_start <= self.start:
            raise ConfigError(
                f"objective.instance.anneal = 'constant' ends softening at anneal_start = "
                f"{self.anneal_start:g}, and it begins at start = {self.start:g}: labels would "
                "never be soft; a later anneal_start or another shape is wanted"
            )

    def loss(self, step: StepTensors, outputs: object, module: object) -> Tensor:
        """See Term: a process's pictures with the texts of all, and its texts with the pictures."""
        images, texts = step.gather(step.image), step.gather(step.text)
        return instance_loss(
            step.image,
            step.text,
            step.logit_scale,
            batch=None if images is step.image else (images, texts),
            first=step.first,
            mass=soft_label_mass(self, step.progress),
            weighting=self.weighting,
            tau=self.tau,
            per_sample=self.per_sample,
            normalise=self.normalise,
        )

    def log(self, progress: float, module: object) -> dict[str, float]:
        """See Term: the softened mass."""
        return {"soft_label_mass": soft_label_mass(self, progress)}


def soft_label_mass(config: InstanceLoss, progress: float) -> float:
    """a(p) = a_max * f(p) * (1 - g(p)): the mass moved from the positive to the negatives.

    f is the `schedule` and g, 0 without one, the ramp of `anneal`: a rises by the one and falls by
    the other, and never leaves [0, a_max].
    """
    risen = config.a_max * ramp(config.schedule, progress, start=config.start, steps=config.steps)
    if config.anneal is None:
        return risen
    fallen = ramp(config.anneal, progress, start=config.anneal_start, steps=config.steps)
    return risen * (1.0 - fallen)


def negative_weights(similarity: Tensor, tau: float, first: int = 0) -> Tensor:
    """Softmax of `similarity` (N, M) / tau over j != first + i: rows sum to 1, the own one is 0."""
    from torch.nn import functional as F

    own = own_places(similarity, first)
    return F.softmax((similarity / tau).masked_fill(own, float("-inf")), dim=-1)


def own_places(similarity: Tensor, first: int) -> Tensor:
    """Bool (N, M): whether column j is the pair first + i of row i."""
    import torch

    rows, columns = similarity.shape
    own = torch.arange(first, first + rows, device=similarity.device)
    return own[:, None] == torch.arange(columns, device=similarity.device)


def products(image: Tensor, text: Tensor, batch: Batch | None) -> tuple[Tensor, Tensor]:
    """Pictures (N, D) with the texts of the batch (N, M), and texts with its pictures (N, M)."""
    if batch is None:
        both = image @ text.T
        return both, both.T
    images, texts = batch
    return image @ texts.T, text @ images.T


def soft_targets(
    image: Tensor,
    text: Tensor,
    mass: float,
    weighting: Weighting,
    tau: float,
    *,
    per_sample: bool = False,
    normalise: bool = True,
    batch: Batch | None = None,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Targets of the image-to-text and of the text-to-image direction.

    Args:
        image, text: unit-norm embeddings (N, D), of which the targets are.
        mass: a(p) in [0, 1).
        weighting: `uniform` 1/(N-1); `similarity` the other modality's, per direction; `text` and
            `image` that modality's own (as SoftCLIP takes intra-modal similarity).
        tau: temperature of the weighting.
        per_sample: the mass of pair i times 1 - its own cosine, in [0, 1].
        normalise: the positive has 1 - mass; else 1, and a row sums to 1 + mass.
        batch, first: see `instance_loss`.

    Returns:
        Two (N, M) tensors whose rows sum to 1; row i of the second belongs to text i.  No gradient.
    """
    import torch

    image, text = image.detach().float(), text.detach().float()
    images, texts = (image, text) if batch is None else (t.detach().float() for t in batch)
    if weighting == "uniform":
        flat = torch.zeros(len(image), len(images), device=image.device)
        rows = columns = negative_weights(flat, 1.0, first)
    elif weighting == "similarity":
        found = products(image, text, None if batch is None else (images, texts))
        rows, columns = (negative_weights(similarity, tau, first) for similarity in found)
    else:
        similarity = text @ texts.T if weighting == "text" else image @ images.T
        rows = columns = negative_weights(similarity, tau, first)
    eye = own_places(rows, first).to(torch.get_default_dtype())
    if not per_sample:
        positive = eye * (1.0 - mass if normalise else 1.0)
        return positive + mass * rows, positive + mass * columns
    own = (image * text).sum(dim=-1, keepdim=True).clamp(0.0, 1.0)
    of_pair = mass * (1.0 - own)
    positive = eye * (1.0 - of_pair) if normalise else eye
    return positive + of_pair * rows, positive + of_pair * columns


def instance_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    *,
    mass: float = 0.0,
    weighting: Weighting = "similarity",
    tau: float = 0.1,
    per_sample: bool = False,
    normalise: bool = True,
    batch: Batch | None = None,
    first: int = 0,
) -> Tensor:
    """Symmetric cross-entropy of scaled cosines against softened targets; a scalar.

    With `mass` 0 this is CLIP's loss, in value and in gradient.

    Args:
        image, text: unit-norm embeddings (N, D); pair i is (image i, text i).
        logit_scale: log of the factor on the cosines, a scalar.
        mass, weighting, tau, per_sample, normalise: see `soft_targets`.
        batch: those of all M pairs that are contrasted, gathered with gradient; None: these N.  The
            mean over the processes is then the loss of the batch, and no process has M x M cosines.
        first: place of pair 0 in the batch.
    """
    import torch
    from torch.nn import functional as F

    scale = logit_scale.exp()
    to_texts, to_images = products(scale * image, text if batch is None else scale * text, batch)
    if mass == 0.0:
        rows = columns = torch.arange(first, first + len(image), device=image.device)
    else:
        how = {"per_sample": per_sample, "normalise": normalise}
        rows, columns = soft_targets(
            image, text, mass, weighting, tau, **how, batch=batch, first=first
        )
    return (F.cross_entropy(to_texts, rows) + F.cross_entropy(to_images, columns)) / 2
