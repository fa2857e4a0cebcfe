"""The configuration of a model's folder, which is data: what may stand in it, and what is refused.

open_clip hands some fields of it to libraries that fetch models or run code that lies beside them.
Only fields of the two towers and of the picture's preprocessing are taken, with architectures and a
tokenizer that are installed here; more only by the caller's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import open_clip
import timm
from open_clip.transform import PreprocessCfg

from harness.errors import ConfigError, RecordError, unknown
from harness.files import read_json

CONFIG = "open_clip_config.json"
TRUST = "--trust-code"
"""The option by which a caller trusts a folder with what is refused otherwise."""
_TOP = frozenset(
    {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
    | {"init_logit_scale", "init_logit_bias"}
)
_TOKENIZER = frozenset({"clean", "reduction_mask"})
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("RGB",),
    "interpolation": ("bicubic", "bilinear", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
}
_CODE = ("hf_tokenizer_name", "hf_model_name", "tokenizer_mode")
"""Of the text tower: names by which another library finds what to load."""


def read_model_config(folder: Path, *, trusted: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of a folder.

    Args:
        trusted: whether what may fetch models or run code is the caller's wish.

    Raises:
        ConfigError: it cannot be read, or holds what is not taken; the line names the field.
    """
    file = folder / CONFIG
    try:
        tree = read_json(file)
    except RecordError as error:
        raise ConfigError(str(error)) from None
    if tree is None:
        raise ConfigError(f"{file} is missing")
    model = _section(file, tree, "model_cfg")
    preprocess = _section(file, tree, "preprocess_cfg") if "preprocess_cfg" in tree else {}
    text, vision = (_section(file, model, name) for name in ("text_cfg", "vision_cfg"))
    _check_preprocess(file, preprocess)
    if not trusted:
        _known(file, "model_cfg", model, _TOP)
        _known(file, "vision_cfg", vision, _names(open_clip.CLIPVisionCfg))
        _known(file, "text_cfg", text, _names(open_clip.CLIPTextCfg))
        _refuse_code(file, vision, text)
    return model, preprocess


def tokenizer_of(text: Mapping[str, Any], file: Path) -> Any:
    """open_clip's own tokenizer by the settings of a text tower that was found harmless."""
    length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    try:
        return open_clip.SimpleTokenizer(
            context_length=length, **(text.get("tokenizer_kwargs") or {})
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: tokenizer_kwargs cannot be used: {error}") from None


def _section(file: Path, tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = tree.get(name)
    if not isinstance(found, dict):
        raise ConfigError(f"{file} cannot be used: it has no object {name!r}")
    return dict(found)


def _names(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind))


def _known(file: Path, section: str, tree: Mapping[str, Any], allowed: Iterable[str]) -> None:
    for name in sorted(set(tree) - set(allowed)):
        raise ConfigError(f"{file} is refused: {unknown(f'field of {section}', name, allowed)}")


def _check_preprocess(file: Path, given: Mapping[str, Any]) -> None:
    _known(file, "preprocess_cfg", given, _names(PreprocessCfg))
    for name, allowed in _CHOICES.items():
        if given.get(name, allowed[0]) not in allowed:
            raise ConfigError(f"{file}: preprocess_cfg: {unknown(name, str(given[name]), allowed)}")
    for name in ("mean", "std"):
        values = given.get(name, (1.0,) * 3)
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_real, values)):
            raise ConfigError(f"{file}: preprocess_cfg.{name} = {values!r}: 3 numbers are wanted")
    if not _real(given.get("fill_color", 0)):
        raise ConfigError(
            f"{file}: preprocess_cfg.fill_color = {given['fill_color']!r} is no number"
        )


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_code(file: Path, vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """ConfigError for what names a model or a tokenizer that is not installed here."""
    found = [f"text_cfg.{name} = {text[name]!r}" for name in _CODE if text.get(name)]
    tower = vision.get("timm_model_name")
    if tower and not (isinstance(tower, str) and timm.is_model(tower)):
        found.append(f"vision_cfg.timm_model_name = {tower!r}")
    given = text.get("tokenizer_kwargs") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{file} is refused: text_cfg.tokenizer_kwargs is no object")
    found += [f"text_cfg.tokenizer_kwargs.{name}" for name in sorted(set(given) - _TOKENIZER)]
    if found:
        raise ConfigError(
            f"{file} is refused: {', '.join(found)} may fetch a model or run code that lies in "
            f"its folder; if you trust whoever made it, {TRUST} takes it"
        )
