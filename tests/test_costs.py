"""Estimated multiply-accumulates against numbers worked out by hand."""

from __future__ import annotations

import pytest

from harness.config import ImageTower, Model, RunConfig, TextTower, override
from harness.errors import ConfigError
from harness.planning.costs import gpu_pace, is_known_backbone, training_gmacs


def config(backbone: str, size: int, layers: int = 1, context_length: int = 77) -> RunConfig:
    text = TextTower(layers=layers, width=128, heads=4, context_length=context_length)
    image = ImageTower(backbone=backbone, size=size)
    return RunConfig(model=Model(image=image, text=text, embed_dim=64))


def test_a_step_is_three_forward_passes_of_both_towers() -> None:
    # One text block: 16 tokens x (12 x 128^2 + 2 x 16 x 128) = 3,211,264; projection 128 x 64.
    forward = 1.814 + (3_211_264 + 8_192) / 1e9
    assert training_gmacs(config("resnet18", 224), 10) == pytest.approx(3 * 10 * forward)


def test_masked_language_modelling_takes_a_second_pass_through_the_text() -> None:
    plain = config("resnet18", 224)
    masked = override(plain, {"objective.mlm.weight": 0.5})
    text = 3 * (3_211_264 + 8_192) / 1e9
    assert training_gmacs(masked, 1) - training_gmacs(plain, 1) == pytest.approx(text)


def test_further_views_take_a_pass_of_the_image_tower_each() -> None:
    plain = config("resnet18", 224)
    seen = override(plain, {"objective.views.weight": 1.0})
    assert training_gmacs(seen, 1) - training_gmacs(plain, 1) == pytest.approx(3 * 2 * 1.814)
    one = override(seen, {"objective.views.count": 1})
    assert training_gmacs(one, 1) - training_gmacs(plain, 1) == pytest.approx(3 * 1.814)


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


def test_on_gpus_the_slower_of_towers_and_decoding_counts() -> None:
    # 8 GPUs of 156,000 GMACs/s at a fifth: 249,600 GMACs/s; a core decodes 500 pictures/s.
    run = config("resnet18", 224)
    towers = 1_000_000 * 3 * (1.814 + 0.003219456) / 249_600
    assert gpu_pace("a100", 8, 1_000).seconds(run, 1_000_000) == pytest.approx(towers)
    assert gpu_pace("a100", 8, 64).seconds(run, 1_000_000) == pytest.approx(1_000_000 / 32_000)


def test_a_gpu_that_is_not_listed_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown GPU 'a1000'; nearest: a100"):
        gpu_pace("a1000", 1, 1)
