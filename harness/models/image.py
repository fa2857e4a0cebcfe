"""Image towers: a timm backbone by name, and a projection into the shared space."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import create_model, get_pretrained_cfg
from torch import Tensor, nn

from harness.config import ImageTower as ImageConfig
from harness.errors import ConfigError, unknown
from harness.models.names import BACKBONES, backbone_names, is_timm_model
from harness.models.pretrained import load_pretrained
from harness.models.tokens import patch_layout, with_stages

#: What the towers ask of a backbone: widths, (N, 3, S, S) to features, and features to (N, width).
TIMM_INTERFACE = ("num_features", "head_hidden_size", "forward_features", "forward_head")


def build_backbone(name: str, size: int, output_stride: int | None = None) -> nn.Module:
    """A headless backbone for square pictures of `size` pixels, randomly initialised.

    `output_stride` dilates a convolutional backbone's last stages to give a finer map.

    Raises:
        ConfigError: the name is not known, or the architecture cannot be built for that size.
    """
    if name in BACKBONES:
        if output_stride is not None:
            raise ConfigError(f"model.image.output_stride: backbone {name!r} cannot be dilated")
        backbone = BACKBONES.get(name)(size)
        if missing := [part for part in TIMM_INTERFACE if not hasattr(backbone, part)]:
            raise ConfigError(
                f"model.image.backbone {name!r} lacks {', '.join(missing)}: a registered backbone "
                f"has timm's {', '.join(TIMM_INTERFACE)}"
            )
        return backbone
    if not is_timm_model(name):
        raise ConfigError(unknown("backbone", name, backbone_names()))
    fixed = get_pretrained_cfg(name, allow_unregistered=True)
    sized: dict[str, Any] = (
        {"img_size": size} if fixed is not None and fixed.fixed_input_size else {}
    )
    if output_stride is not None:
        sized["output_stride"] = output_stride
    try:
        return create_model(name, pretrained=False, num_classes=0, **sized)
    except (AssertionError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"model.image.backbone {name!r} cannot be built for {size}-pixel pictures"
            f"{f' with output_stride {output_stride}' if output_stride else ''}: {error}"
        ) from error


class ImageEncoder(nn.Module):
    """Pictures (N, 3, S, S) to embeddings (N, embed_dim), not normalised.

    The projection stands on what timm's head sees (`head_hidden_size`), which for MobileNetV3/V4
    and EfficientViT is wider than the last feature map.
    """

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone, config.size, config.output_stride)
        width = int(self.backbone.head_hidden_size)  # type: ignore[arg-type]
        self.projection = nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, embed_dim)."""
        return self.embed(self.features(pixels))

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to what the backbone gives before pooling; see `tokens.patch_layout`."""
        features: Tensor = self.backbone.forward_features(pixels)  # type: ignore[operator]
        return features

    def embed(self, features: Tensor) -> Tensor:
        """What `features` gave, pooled and projected: (N, embed_dim)."""
        out: Tensor = self.projection(self.pool(features))
        return out

    def pool(self, features: Tensor) -> Tensor:
        """What `features` gave, pooled by the backbone's head: (N, head_hidden_size)."""
        out: Tensor = self.backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return out


def check_image_tower(
    config: ImageConfig, embed_dim: int, *, patches: bool = False, stages: bool = False
) -> None:
    """Build the tower and send two empty pictures through; ConfigError if it cannot take them.

    Also if its pretrained weights do not fit, and, with `patches`, if it has none for the
    token-level objectives to look at, or with `stages` no maps of stages.
    """
    tower = ImageEncoder(config, embed_dim).eval()
    load_pretrained(tower.backbone, config)
    try:
        with torch.inference_mode():
            tower(torch.zeros(2, 3, config.size, config.size))
    except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError) as error:
        words = " ".join(str(error).split())
        raise ConfigError(
            f"model.image.backbone {config.backbone!r} cannot take {config.size}-pixel pictures: "
            f"{words}"
        ) from error
    if patches:
        layout = patch_layout(tower.backbone, config.backbone, config.size)
        if stages:
            with_stages(layout, tower.backbone, config.backbone, config.size)
