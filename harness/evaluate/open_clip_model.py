"""Any model of open_clip as evaluation sees it: its own towers, tokenizer and transform.

Owns how weights on disk become such a model (tensors alone, never code) and when a batch of texts
may be cut to its longest.  Fetches nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.transforms import EvaluationTransform
from harness.errors import ConfigError, nearest, one_line
from harness.evaluate.model import Identity, tensors_sha256, text_tower_sha256, tokenizer_key
from harness.evaluate.open_clip_config import CONFIG, read_model_config, tokenizer_of
from harness.files import read_regular
from harness.models.pretrained import misfits, read_tensors

_CUT_TOLERANCE = 1e-5
_PROBES = ("a cat", "a photo of a small grey cat on a red mat.", "two dogs and a bird")
_NOT_BUILT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What open_clip and timm raise of sizes and names that fit no architecture."""


class OpenClipModel(nn.Module):
    """A model of open_clip in evaluation mode, as `harness.evaluate.model.Encoders`."""

    def __init__(self, clip: nn.Module, tokenizer: Any, preprocess_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = OpenClipTokenizer(tokenizer)
        self.preprocess = EvaluationTransform(
            image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
        )
        self.eval()
        self.cuts_texts = False
        self.cuts_texts = self._cutting_is_exact()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to unit-norm (N, D)."""
        return F.normalize(self.clip.encode_image(pixels).float(), dim=-1)  # type: ignore[operator]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, L) to unit-norm (N, D); L may be less than the context.

        Where cutting would change an embedding, the texts are filled up again with the id of their
        last column, which is padding in a text that was cut.
        """
        missing = self.tokenizer.context_length - tokens.shape[1]
        if missing > 0 and not self.cuts_texts:
            tokens = torch.cat([tokens, tokens[:, -1:].expand(-1, missing)], dim=1)
        with _shortened(self.clip, tokens.shape[1]) if self.cuts_texts else nullcontext():
            return F.normalize(self.clip.encode_text(tokens).float(), dim=-1)  # type: ignore[operator]

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of the factor on cosines, a scalar."""
        scale: Tensor = self.clip.logit_scale  # type: ignore[assignment]
        return scale

    @torch.no_grad()
    def _cutting_is_exact(self) -> bool:
        """Whether texts cut to their longest have the embeddings that they have in full."""
        tower = _text_tower(self.clip)
        if tower is None:
            return False
        tokens = self.tokenizer(_PROBES)
        longest = int((tokens != tokens[:, -1:]).sum(dim=1).max()) + 1
        whole = self.encode_text(tokens)
        self.cuts_texts = True
        try:
            cut = self.encode_text(tokens[:, :longest])
        except RuntimeError:
            return False
        finally:
            self.cuts_texts = False
        return bool((whole - cut).abs().max() <= _CUT_TOLERANCE)


class OpenClipTokenizer:
    """open_clip's tokenizer of a model, and whether it cuts a text."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.context_length = int(inner.context_length)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids int64 (N, context_length)."""
        ids: Tensor = self._inner(list(texts))
        return ids

    def is_truncated(self, text: str) -> bool:
        """Whether `text` has more ids than the context holds.

        A tokenizer that does not list a text's ids is asked for them cut: a text that fills the
        context then counts as cut.
        """
        if hasattr(self._inner, "encode"):
            return len(self._inner.encode(text)) > self.context_length - 2
        ids = self(["", text])
        return bool(ids[1, -1] != ids[0, -1])


def _text_tower(clip: nn.Module) -> Any:
    """The module that holds positions and causal mask; None where there is none to cut."""
    for module in (clip, getattr(clip, "text", None)):
        mask = getattr(module, "attn_mask", None)
        if isinstance(mask, Tensor) and isinstance(
            getattr(module, "positional_embedding", None), nn.Parameter
        ):
            return module
    return None


@contextmanager
def _shortened(clip: nn.Module, length: int) -> Iterator[None]:
    """The text tower with the first `length` positions alone."""
    tower = _text_tower(clip)
    mask, positions = tower.attn_mask, tower.positional_embedding
    tower.attn_mask = mask[:length, :length]
    tower._parameters["positional_embedding"] = nn.Parameter(positions[:length], False)
    try:
        yield
    finally:
        tower.attn_mask = mask
        tower._parameters["positional_embedding"] = positions


# --------------------------------------------------------------------------- from disk


def load_export(folder: Path, *, trusted: bool = False) -> tuple[OpenClipModel, Identity]:
    """The model of a folder with open_clip's configuration and weights.

    Args:
        trusted: whether its configuration may name what fetches models or runs code.

    Raises ConfigError when they are not there, are refused, or do not fit each other.
    """
    model_cfg, given = read_model_config(folder, trusted=trusted)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ConfigError(f"{folder} should hold one file of weights and has {names}")
    name = f"local-dir:{folder}"
    own = None if trusted else tokenizer_of(model_cfg["text_cfg"], folder / CONFIG)
    return _load(name, model_cfg, given, files[0], own)


def load_checkpoint(name: str, file: Path) -> tuple[OpenClipModel, Identity]:
    """open_clip's architecture `name` with the weights in `file`.

    Raises ConfigError for a name that open_clip lacks (the nearest are named), and for a file that
    holds more than tensors or does not fit.
    """
    model_cfg = open_clip.get_model_config(name)
    if model_cfg is None:
        close = ", ".join(nearest(name, open_clip.list_models()))
        raise ConfigError(
            f"open_clip has no model {name!r}" + (f"; nearest: {close}" if close else "")
        )
    return _load(name, model_cfg, {}, file)


def _load(
    name: str,
    model_cfg: dict[str, Any],
    given: Mapping[str, Any],
    file: Path,
    tokenizer: Any = None,
) -> tuple[OpenClipModel, Identity]:
    clip = _build(name, model_cfg)
    state = _read_weights(file)
    _fill(clip, state, file)
    preprocess_cfg = {**asdict(PreprocessCfg(size=clip.visual.image_size)), **given}
    preprocess_cfg["size"] = clip.visual.image_size
    try:
        tokenizer = tokenizer or open_clip.get_tokenizer(name)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"the tokenizer of {name} is not here: {one_line(error)}") from error
    model = OpenClipModel(clip.eval(), tokenizer, preprocess_cfg)
    return model, _identity(model, model_cfg, preprocess_cfg)


def _build(name: str, model_cfg: Mapping[str, Any]) -> Any:
    """The architecture without weights, and without fetching any."""
    config = copy.deepcopy(dict(model_cfg))
    custom = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
    vision = config.get("vision_cfg", {})
    if "timm_model_pretrained" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_pretrained" in config.get("text_cfg", {}):
        config["text_cfg"]["hf_model_pretrained"] = False
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        return kind(**config)
    except _NOT_BUILT as error:
        raise ConfigError(f"open_clip cannot build {name}: {one_line(error)}") from error


def _read_weights(file: Path) -> dict[str, Tensor]:
    """Name -> tensor, of safetensors or of torch.save."""
    try:
        data = read_regular(file, most=None)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    return read_tensors(str(file), data)


def _fill(clip: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Put every tensor into the model; ConfigError lists what does not fit."""
    own = clip.state_dict()
    # Positions of causal text towers were saved with the mask once; it is a constant.
    state = {n: t for n, t in state.items() if n in own or not n.endswith("attn_mask")}
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own:
            state[name] = state[name].reshape(own[name].shape)
    if found := misfits(state, own):
        raise ConfigError(f"{file} does not fit the model: {found}")
    clip.load_state_dict(state)


def _identity(
    model: OpenClipModel, model_cfg: Mapping[str, Any], preprocess_cfg: Mapping[str, Any]
) -> Identity:
    state = model.clip.state_dict()
    text = [item for item in state.items() if not item[0].startswith(("visual.", "logit_"))]
    tokenizer = tokenizer_key(model.tokenizer)
    of_text = {**model_cfg.get("text_cfg", {}), "quick_gelu": model_cfg.get("quick_gelu", False)}
    plain = json.loads(json.dumps(preprocess_cfg))
    return Identity(
        checkpoint=tensors_sha256(state.items()),
        text_tower=text_tower_sha256(dict(text), of_text, tokenizer),
        config=json.loads(json.dumps(model_cfg)),
        tokenizer=tokenizer,
        preprocessing=plain,
    )
