"""Which backbones there are, known without importing torch or timm.

A login node checks a name before anything is queued, so the names are read from timm's sources.
`BACKBONES` is where the harness, or a sweep file, adds an architecture that timm does not have.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.registry import Registry

if TYPE_CHECKING:
    from torch import nn

#: Name -> function (picture size in pixels) -> module with timm's interface.
BACKBONES: Registry[Callable[[int], nn.Module]] = Registry("backbone")


@BACKBONES.register("swin_nano")
def swin_nano(size: int) -> nn.Module:
    """Swin-Nano as in ViDT (naver-ai/vidt): width 48, depths 2-2-6-2, heads 3-6-12-24, window 7."""
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(
        img_size=size,
        embed_dim=48,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        num_classes=0,
        drop_path_rate=0.0,
    )


_ENTRY_POINT = re.compile(r"^@register_model\s*\ndef (\w+)", re.MULTILINE)
_DEPRECATIONS = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.M | re.S)
_DEPRECATED_NAME = re.compile(r"^\s*['\"](\w+)['\"]\s*:\s*['\"]", re.MULTILINE)


def backbone_names() -> set[str]:
    """Every name `model.image.backbone` may hold: timm's (deprecated ones too) and our own."""
    return {*_timm_names(), *BACKBONES}


def is_timm_model(name: str) -> bool:
    """Whether timm builds `name`, a tag behind a dot aside; the module that does is imported.

    That module alone, where the name stands in it: timm has a hundred.
    """
    module = _timm_names().get(name.partition(".")[0])
    models = importlib.import_module("timm.models")
    if module:
        importlib.import_module(f"timm.models.{module}")
    else:
        models.list_models()  # for which all of them are imported
    return bool(models.is_model(name))


@lru_cache(maxsize=1)
def _timm_names() -> dict[str, str]:
    """Name -> the module that has it, "" for the deprecated."""
    spec = importlib.util.find_spec("timm")
    folders = [] if spec is None else spec.submodule_search_locations or []
    names: dict[str, str] = {}
    for folder in folders:
        for file in sorted((Path(folder) / "models").glob("*.py")):
            source = file.read_text(encoding="utf-8")
            names |= dict.fromkeys(_ENTRY_POINT.findall(source), file.stem)
            for block in _DEPRECATIONS.findall(source):
                names |= dict.fromkeys(_DEPRECATED_NAME.findall(block), "")
    return names
