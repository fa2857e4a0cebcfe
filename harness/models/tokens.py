"""Patch and word tokens of the two towers in one space; used in training alone.

Owns where a backbone keeps its patches and which positions of a text are words.  Knows nothing of
matching or losses, and nothing here is part of the model at inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.text import word_mask
from harness.errors import ConfigError

Format = Literal["NCHW", "NHWC", "NLC"]


class Tokens(NamedTuple):
    """Tokens of a batch of pairs: unit-norm patches (N, P, d), words (N, L, d), mask (N, L)."""

    patches: Tensor
    words: Tensor
    mask: Tensor


class DrawnTokens(NamedTuple):
    """The same with each pair's place (N,) in an order of the global batch."""

    patches: Tensor
    words: Tensor
    mask: Tensor
    places: Tensor


class Matching(NamedTuple):
    """Which words (N, L, d) go with which patches of their own pairs, as it is being found.

    Attributes:
        similarity: (N, L, P).
        weights: gives them, (N, L, P), once they are known.
    """

    words: Tensor
    similarity: Tensor
    weights: Callable[[], Tensor]


@dataclass(frozen=True)
class PatchLayout:
    """Where the patches are in what a backbone's `forward_features` gives for square pictures.

    Attributes:
        format: order of the axes, in timm's letters.
        prefix: tokens before the patches (class, distillation, registers), of `NLC` alone.
        grid: patches along each side; patch p is in row p // grid and column p % grid.
        channels: width of a patch.
        stage_channels: width of the map of each stage; empty where no term looks at them.
    """

    format: Format
    prefix: int
    grid: int
    channels: int
    stage_channels: tuple[int, ...] = ()

    def patches(self, features: Tensor) -> Tensor:
        """What `forward_features` gave, as (N, P, C) with the patches row by row."""
        if self.format == "NCHW":
            return features.flatten(2).mT
        if self.format == "NHWC":
            return features.flatten(1, 2)
        return features[:, self.prefix :]


def patch_layout(backbone: nn.Module, name: str, size: int) -> PatchLayout:
    """The layout of a timm backbone, seen from one empty picture of `size` pixels.

    timm's backbones have `num_features` channels; those that put them last in a map say so in
    `output_fmt`, and the number of tokens before the patches is `num_prefix_tokens` or the length
    of a class token.  What remains must be a square, as the pictures are.

    Raises:
        ConfigError: no map or tokens come out, or fewer than two patches to choose from.
    """
    features = _of_empty_picture(backbone, size, backbone.forward_features)  # type: ignore[arg-type]
    layout = _layout(backbone, features) if isinstance(features, Tensor) else None
    if layout is None:
        raise ConfigError(
            f"model.image.backbone {name!r} gives {_shape(features)} and so no patches for "
            "token-level objectives; a map (N, C, H, W), a map (N, H, W, C) or tokens (N, L, C) "
            "is wanted, such as those of resnet18, mobilenetv2_100, mobilenetv4_conv_small, "
            "swin_nano, vit_tiny_patch16_224"
        )
    if layout.grid < 2:
        raise ConfigError(
            f"model.image.backbone {name!r} gives a single patch for {size}-pixel pictures, and "
            "matching needs at least 2 x 2; a larger model.image.size gives more"
        )
    return layout


def stage_maps(backbone: nn.Module, pixels: Tensor, grid: int) -> tuple[Tensor, list[Tensor]]:
    """What `forward_features` gives, and the maps (N, C, grid, grid) of the stages before it."""
    features, maps = backbone.forward_intermediates(pixels)  # type: ignore[operator]
    return features, [_pooled(one, grid) for one in maps]


def _pooled(one: Tensor, grid: int) -> Tensor:
    """A map (N, C, H, W) as (N, C, grid, grid), by means.

    By the adaptive way only where there is no other: on a GPU its gradient is not deterministic.
    A CPU's bits are the same by either where means are of a power of two.
    """
    (height, width), (rows, columns) = one.shape[-2:], [side // grid for side in one.shape[-2:]]
    exact = one.is_cuda or (rows * columns).bit_count() == 1
    if height % grid or width % grid or not exact:
        return F.adaptive_avg_pool2d(one, grid)
    return F.avg_pool2d(one, (rows, columns))


def with_stages(layout: PatchLayout, backbone: nn.Module, name: str, size: int) -> PatchLayout:
    """`layout` with the widths of the stages, seen from one empty picture.

    Raises:
        ConfigError: the backbone has no stages that can be looked at.
    """
    if not hasattr(backbone, "forward_intermediates"):
        raise ConfigError(
            f"objective.mlm.source = 'stages': model.image.backbone {name!r} does not give the "
            "maps of its stages (timm's forward_intermediates); source = 'last' takes its last map"
        )
    maps = _of_empty_picture(backbone, size, lambda one: stage_maps(backbone, one, layout.grid)[1])
    return replace(layout, stage_channels=tuple(one.shape[1] for one in maps))


class TokenProjections(nn.Module):
    """Both towers' tokens, each linearly into one space of `dim` dimensions, at unit norm.

    Args:
        layout: where the backbone keeps its patches.
        text_width: width of the text transformer.
        dim: dimension of the tokens.

    Attributes:
        last: words, patches and mask of the last step, for the log; None before, and where nothing
            is told of them.
        begun: matching of the tokens of the pass before the loss, for the loss.
    """

    last: tuple[Tensor, Tensor, Tensor] | None = None
    begun: Matching | None = None

    def __init__(self, layout: PatchLayout, text_width: int, dim: int) -> None:
        super().__init__()
        self.layout = layout
        self.image = nn.Linear(layout.channels, dim, bias=False)
        self.text = nn.Linear(text_width, dim, bias=False)
        for projection in (self.image, self.text):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def forward(self, features: Tensor, hidden: Tensor, ids: Tensor) -> Tokens:
        """Tokens of a batch of pairs.

        Args:
            features: what the backbone's `forward_features` gave.
            hidden: (N, L, text_width) after the text transformer's last norm.
            ids: (N, L) token ids.
        """
        patches, words, mask = self.projected(features, hidden, ids)
        return Tokens(F.normalize(patches, dim=-1), F.normalize(words, dim=-1), mask)

    def projected(self, features: Tensor, hidden: Tensor, ids: Tensor) -> Tokens:
        """The same without the norm."""
        patches = self.image(self.layout.patches(features))
        return Tokens(patches.float(), self.text(hidden).float(), word_mask(ids))


def _of_empty_picture(backbone: nn.Module, size: int, look: Callable[[Tensor], Any]) -> Any:
    """What `look` finds in one empty picture, leaving statistics and mode as they were."""
    training = backbone.training
    empty = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)
    backbone.eval()
    try:
        # Not inference_mode: some backbones cache tensors of an evaluation for later.
        with torch.no_grad():
            return look(empty)
    finally:
        backbone.train(training)


def _layout(backbone: nn.Module, features: Tensor) -> PatchLayout | None:
    channels: Any = backbone.num_features
    shape = tuple(features.shape)
    if features.ndim == 4:
        last = getattr(backbone, "output_fmt", "NCHW") == "NHWC" or shape[1] != channels
        height, width, depth = shape[1:] if last else (*shape[2:], shape[1])
        fits = depth == channels and height == width
        return PatchLayout("NHWC" if last else "NCHW", 0, height, channels) if fits else None
    if features.ndim == 3 and shape[2] == channels:
        prefix = _prefix_tokens(backbone)
        grid = isqrt(max(0, shape[1] - prefix))
        fits = grid > 0 and grid * grid == shape[1] - prefix
        return PatchLayout("NLC", prefix, grid, channels) if fits else None
    return None


def _prefix_tokens(backbone: nn.Module) -> int:
    declared: Any = getattr(backbone, "num_prefix_tokens", None)
    if declared is not None:
        return int(declared)
    of_class = [p.shape[1] for name, p in backbone.named_parameters() if "cls_token" in name]
    return max(of_class, default=0)


def _shape(features: object) -> str:
    if isinstance(features, Tensor):
        return f"a tensor {('N', *features.shape[1:])}".replace("'", "")
    return f"a {type(features).__name__}"
