"""What a model must offer to be evaluated, and what of it a number depends on.

A run's two towers and any model of open_clip meet here.  Knows nothing of data or metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from harness.config import Model, content_key

if TYPE_CHECKING:
    from harness.models.two_tower import TwoTower

_PROBES = (
    "a photo of a cat.",
    "A Photo  of \N{LEFT DOUBLE QUOTATION MARK}Cats\N{RIGHT DOUBLE QUOTATION MARK} &amp; dogs",
    "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve caf\N{LATIN SMALL LETTER E WITH ACUTE} 1,234.5",
    "",
    "word " * 200,
)
"""Texts whose ids tell tokenizers apart: case, quotes, entities, accents, numbers, length."""


class TokenizerLike(Protocol):
    """Texts to ids."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids int64 (N, L) of N texts, padded on the right with one id."""
        ...

    def is_truncated(self, text: str) -> bool:
        """Whether `text` is longer than the context."""
        ...


class Encoders(Protocol):
    """A two-tower model as evaluation sees it."""

    @property
    def tokenizer(self) -> TokenizerLike:
        """The tokenizer that its text tower was trained with."""
        ...

    @property
    def preprocess(self) -> Callable[[np.ndarray], Tensor]:
        """A picture uint8 (H, W, 3) to what `encode_image` takes one of."""
        ...

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of the factor on cosines that it was trained with, a scalar."""
        ...

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to unit-norm (N, D)."""
        ...

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, L), L up to the context, to unit-norm (N, D)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of every module."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """As of every module."""
        ...

    def eval(self) -> Any:
        """As of every module."""
        ...


@dataclass(frozen=True)
class Identity:
    """All of a model that a number computed with it depends on.

    Attributes:
        checkpoint: SHA-256 of its weights.
        text_tower: SHA-256 of the text tower's weights, configuration and tokenizer.
        config: its architecture.
        tokenizer: key of what the tokenizer makes of a few telling texts.
        preprocessing: how pictures become its input.
    """

    checkpoint: str
    text_tower: str
    config: Mapping[str, Any]
    tokenizer: str
    preprocessing: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """As plain values, for keys and protocols."""
        return {
            "checkpoint": self.checkpoint,
            "text_tower": self.text_tower,
            "config": dict(self.config),
            "tokenizer": self.tokenizer,
            "preprocessing": dict(self.preprocessing),
        }


def identity_of_run(model: TwoTower, checkpoint_sha256: str) -> Identity:
    """Of a run's towers; `checkpoint_sha256` is that of its kept weights."""
    config = model.config.identity()
    tokenizer = tokenizer_key(model.tokenizer)
    weights = {n: t for n, t in model.state_dict().items() if n.startswith(("text.", "token_rows"))}
    return Identity(
        checkpoint=checkpoint_sha256,
        text_tower=text_tower_sha256(weights, config["text"], tokenizer),
        config=config,
        tokenizer=tokenizer,
        preprocessing=preprocessing(model.config),
    )


def preprocessing(config: Model) -> dict[str, Any]:
    """The evaluation transform of a run's pictures, as plain values."""
    tower = config.image
    return {
        "resize": "shortest side, bicubic",
        "crop": "centre",
        "size": tower.size,
        "mean": list(tower.mean),
        "std": list(tower.std),
    }


def tokenizer_key(tokenizer: TokenizerLike) -> str:
    """What tells one tokenizer from another: the ids of a few texts, up to their padding."""
    return content_key([tokenizer([text])[0].tolist() for text in _PROBES], digits=64)


def text_tower_sha256(weights: Mapping[str, Tensor], config: object, tokenizer: str) -> str:
    """What the embedding of a text depends on: names and values of `weights`, heads, tokenizer."""
    head = content_key({"config": config, "tokenizer": tokenizer}, digits=64)
    return hashlib.sha256((head + tensors_sha256(weights.items())).encode()).hexdigest()


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and values; the same for every file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()
