"""Backbone names are known without torch, and are the ones timm knows."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
from timm.models import is_model

from harness.models.names import BACKBONES, backbone_names, is_timm_model


def test_every_model_of_timm_is_a_name() -> None:
    assert set(timm.list_models()) - backbone_names() == set()


def test_every_name_is_a_model_of_timm_or_our_own() -> None:
    assert {name for name in backbone_names() if not is_model(name)} == set(BACKBONES)
    assert "swin_nano" in BACKBONES


def test_deprecated_names_are_names() -> None:
    assert "tv_densenet121" in backbone_names()


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "tv_densenet121", "no_tower"])
def test_timm_is_asked_for_a_name_with_its_tag(name: str) -> None:
    assert is_timm_model(name) == is_model(name) == (name != "no_tower")


def test_what_a_sweep_file_registers_is_a_name() -> None:
    BACKBONES.register("only_in_this_test")(lambda size: None)  # type: ignore[arg-type,return-value]
    assert "only_in_this_test" in backbone_names()


def test_names_are_read_without_torch_or_timm() -> None:
    code = (
        "import sys; from harness.models.names import backbone_names; n = len(backbone_names());"
        "print(n > 1000, {'torch', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True set()\n"
