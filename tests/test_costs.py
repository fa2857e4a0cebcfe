"""Estimated multiply-accumulates against numbers worked out by hand."""

from __future__ import annotations

import pytest

from harness.config import ImageTower, Model, RunConfig, TextTower
from harness.costs import is_known_backbone, training_gmacs


def config(backbone: str, size: int, layers: int = 1, context_length: int = 77) -> RunConfig:
    text = TextTower(layers=layers, width=128, heads=4, context_length=context_length)
    image = ImageTower(backbone=backbone, size=size)
    return RunConfig(model=Model(image=image, text=text, embed_dim=64))


def test_a_step_is_three_forward_passes_of_both_towers() -> None:
    # One text block: 16 tokens x (12 x 128^2 + 2 x 16 x 128) = 3,211,264; projection 128 x 64.
    forward = 1.814 + (3_211_264 + 8_192) / 1e9
    assert training_gmacs(config("resnet18", 224), 10) == pytest.approx(3 * 10 * forward)


def test_pictures_cost_by_their_area() -> None:
    whole, half = (training_gmacs(config("resnet18", size), 1) for size in (224, 112))
    text = 3 * 3_219_456 / 1e9
    assert (whole - text) / (half - text) == pytest.approx(4)


def test_a_short_context_bounds_the_tokens() -> None:
    # 8 tokens: 8 x (12 x 128^2 + 2 x 8 x 128) = 1,589,248.
    longer, shorter = (
        training_gmacs(config("resnet18", 224, context_length=n), 1) for n in (77, 8)
    )
    assert longer - shorter == pytest.approx(3 * (3_211_264 - 1_589_248) / 1e9)


def test_an_unlisted_backbone_is_taken_for_one_gmac() -> None:
    assert not is_known_backbone(config("resnet101", 224))
    assert training_gmacs(config("resnet101", 224), 1) == pytest.approx(3 * 1.003219456)
