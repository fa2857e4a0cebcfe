"""Masked language modelling with the shortened text tower (LightCLIP, abstract).

The abstract says that masked language modelling makes the most of a shortened text encoder; how is
our reading.  The pass that makes the states, and every weight, is in `harness.models.fusion`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from harness.config import TERMS, Float, RunConfig, integer
from harness.errors import ConfigError, unknown
from harness.objectives.masking import Masked, mask_words, masking_noise
from harness.objectives.terms import BatchPlace, RampedTerm, StepTensors

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.fusion import MaskedPass
    from harness.models.tokens import PatchLayout
    from harness.models.training import Pass
    from harness.models.two_tower import TwoTower

_STAGE_NAMES = ("all", "first", "middle", "last")


def _stages(value: object) -> object:
    if isinstance(value, str):
        if value not in _STAGE_NAMES:
            raise ValueError(unknown("stage", value, _STAGE_NAMES))
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{', '.join(_STAGE_NAMES)} or a list of block indexes is wanted")
    blocks = [integer(item) for item in value]
    if len(set(blocks)) < len(blocks):
        raise ValueError("a block is named twice")
    return tuple(sorted(blocks))  # type: ignore[type-var]


Stages = Annotated[
    Literal["all", "first", "middle", "last"] | tuple[int, ...], BeforeValidator(_stages)
]


class HiddenWords(NamedTuple):
    """States (M, width) at the M hidden words, and the words (M,) that stood there."""

    states: Tensor
    targets: Tensor


@TERMS.register("mlm")
class MlmLoss(RampedTerm):
    """Masked language modelling on the text tower's own blocks, with the picture let in."""

    added: ClassVar[float] = 2
    module_name: ClassVar[str | None] = "masked_pass"
    drawn_as: ClassVar[str | None] = "masked pass"
    text_passes: ClassVar[int] = 1

    mask_ratio: Annotated[Float, Field(gt=0, le=1)] = 0.15
    """Share of a caption's words that are hidden, at least one of them.  Elsewhere: mask_prob,
    mlm_probability, mask_rate."""
    attention: Literal["causal", "bidirectional"] = "bidirectional"
    """Of the masked pass alone; the contrastive pass is causal, as CLIP's."""
    stages: Stages = "all"
    """Blocks ahead of which the picture enters, counted from 0; `middle` is layers // 2."""
    operator: Literal["cross_attention", "add", "concat", "none"] = "cross_attention"
    """How the picture enters; `none` is plain masked language modelling, the control."""
    source: Annotated[Literal["last", "stages"], Field(json_schema_extra={"born": "last"})] = "last"
    """Of the image tower: its last map, or those of its stages, from the first to the last as the
    blocks go, each pooled to the grid of the last one."""
    image_embedding: Annotated[
        Literal["patches", "pooled"], Field(json_schema_extra={"born": "patches"})
    ] = "patches"
    """What `cross_attention` and `concat` let in: patches, or the pooled embedding as one token (of
    `stages`, the mean of a map).  `add` takes the pooled one."""
    gate_init: Annotated[Float | None, Field(json_schema_extra={"born": None})] = None
    """What the gates start from, before the tanh that they pass through, and then of `concat` too:
    0 is closed, 1 lets 76 % in.  null: 0, and `concat` has no gate."""
    gate_lr_factor: Annotated[Float, Field(gt=0), Field(json_schema_extra={"born": 1})] = 1.0
    """What the learning rate is multiplied by for the gates, beside `lr_factor`."""
    head: Literal["tied", "untied"] = "tied"
    """Whether words are scored against the token embedding or a table of the head's own."""

    def idle(self) -> set[str]:
        """As for every ramped term, and the stages where no picture enters."""
        if self.operator == "none":
            picture = {"stages", "source", "image_embedding", "gate_init", "gate_lr_factor"}
            return super().idle() | picture
        unused = {"image_embedding"} if self.operator == "add" else set()
        if self.operator == "concat" and self.gate_init is None:
            unused |= {"gate_lr_factor"}
        return super().idle() | unused

    def blocks(self, layers: int) -> tuple[int, ...]:
        """The blocks of `stages` in a text tower of `layers` blocks, in order.

        Raises ConfigError, naming the blocks there are, for one that is not there.
        """
        if isinstance(self.stages, str):
            named = {"first": (0,), "middle": (layers // 2,), "last": (layers - 1,)}
            return named.get(self.stages, tuple(range(layers)))
        absent = [str(block) for block in self.stages if not 0 <= block < layers]
        if absent:
            raise ConfigError(
                f"stages = {list(self.stages)} names block {', '.join(absent)}, which a text tower "
                f"of {layers} layers lacks; its blocks: {', '.join(map(str, range(layers)))}"
            )
        return self.stages

    def check(self, config: RunConfig) -> None:
        """See Term: the stages must be there."""
        if self.operator != "none":
            self.blocks(config.model.text.layers)

    @property
    def needs_patches(self) -> bool:
        """See Term."""
        of_last = self.operator in {"cross_attention", "concat"} and self.source == "last"
        return self.needs_stages or (of_last and self.image_embedding == "patches")

    @property
    def needs_stages(self) -> bool:
        """See Term."""
        return self.operator != "none" and self.source == "stages"

    @property
    def needs_words(self) -> bool:
        """See Term: it makes a pass of its own."""
        return False

    def lr_factor_of(self, parameter: str) -> float:
        """See Term."""
        gate = parameter.endswith(".gate")
        return self.lr_factor * (self.gate_lr_factor if gate else 1.0)

    def inputs(self, tokens: Tensor, place: BatchPlace) -> Masked:
        """See Term: the captions with words hidden."""
        noise = masking_noise(place.generator("mask"), place.size, place.context_length)
        own = noise[:, place.first : place.first + len(tokens)]
        return mask_words(tokens, own, ratio=self.mask_ratio, vocab_size=place.vocab_size)

    def module(self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None) -> MaskedPass:
        """See Term: the operators that let the picture in, and the head."""
        from harness.models.fusion import MaskedPass

        blocks = 0 if self.operator == "none" else len(self.blocks(config.model.text.layers))
        widths = [config.model.embed_dim]
        if layout is not None and self.needs_stages:
            widths = [layout.stage_channels[i] for i in spread(len(layout.stage_channels), blocks)]
        elif layout is not None and self.needs_patches:
            widths = [layout.channels]
        return MaskedPass(self, config.model.text, towers.tokenizer.vocab_size, *widths)

    def outputs(self, seen: Pass, module: MaskedPass, inputs: Masked | None) -> HiddenWords | None:
        """See Term: a second pass of the text tower."""
        if inputs is None:
            return None
        *masked, targets = inputs
        images = self.images(seen, len(module.stages))
        states = module(seen.towers.text, *masked, *images, own=seen.own)
        return HiddenWords(states, targets)

    def images(self, seen: Pass, blocks: int) -> list[Tensor]:
        """What of the pictures is let in: for all blocks alike, or with `stages` for each."""
        pooled = self.operator == "add" or self.image_embedding == "pooled"
        if self.needs_stages:
            maps = [seen.stages[i].flatten(2).mT for i in spread(len(seen.stages), blocks)]
            maps = [one.mean(dim=1, keepdim=True) for one in maps] if pooled else maps
            return [one.squeeze(1) for one in maps] if self.operator == "add" else maps
        if self.needs_patches and seen.layout is not None:
            return [seen.layout.patches(seen.features)]
        return [seen.image if self.operator in {"add", "none"} else seen.image[:, None]]

    def log(self, progress: float, module: MaskedPass) -> dict[str, float]:
        """See Term: how far the gate ahead of each block is open."""
        return {f"mlm/gate/{block}": opened for block, opened in module.gates().items()}

    def probe(self, seen: Pass, module: MaskedPass, inputs: Masked) -> Tensor:
        """See Term: the mean loss of each text's hidden words, 0 without words."""
        import torch
        from torch.nn import functional as F

        found = self.outputs(seen, module, inputs)
        assert found is not None
        logits = F.linear(found.states.float(), module.table(seen.towers.text).float(), module.bias)
        of_words = F.cross_entropy(logits, found.targets, reduction="none")
        texts = inputs.positions // seen.tokens.shape[1]
        sums = of_words.new_zeros(2, len(seen.tokens))
        sums.index_add_(1, texts, torch.stack([of_words, torch.ones_like(of_words)]))
        return sums[0] / sums[1].clamp(min=1)

    def loss(self, step: StepTensors, outputs: HiddenWords, module: MaskedPass) -> Tensor:
        """See Term."""
        import torch

        assert step.towers is not None
        states, targets = outputs
        count = step.gather(torch.tensor([float(len(targets))])).mean().item()
        return mlm_loss(states, module.table(step.towers.text), module.bias, targets, count)


def spread(stages: int, blocks: int) -> list[int]:
    """The stage for each block: from the first to the last, evenly; of a single block the last."""
    if blocks == 1:
        return [stages - 1]
    return [round(block * (stages - 1) / (blocks - 1)) for block in range(blocks)]


def mlm_loss(
    states: Tensor, table: Tensor, bias: Tensor, targets: Tensor, count: float | None = None
) -> Tensor:
    """Mean cross-entropy over the M chosen words; a scalar in nats, 0 when there are none.

    Logits are made at the chosen places alone and in fp32: (M, V), never (N, L, V).

    Args:
        states: (M, C) at the chosen places, of the masked pass.
        table: (V, C), the token embedding (tied) or a table of its own.
        bias: (V,), one number a word.
        targets: int64 (M,), the words that stood there.
        count: what the sum is divided by in place of M: the mean of M over processes, whose mean
            is then that over all the words of the global batch.
    """
    from torch.nn import functional as F

    count = float(len(targets)) if count is None else count
    logits = F.linear(states.float(), table.float(), bias.float())
    # the mean of nothing is NaN; the sum of nothing is 0 and keeps the graph whole
    return F.cross_entropy(logits, targets, reduction="sum") / (count or 1.0)
