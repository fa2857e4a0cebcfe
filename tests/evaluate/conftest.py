"""A model whose embeddings can be worked out by hand, and a data set for it.

Pictures are of one colour and texts name colours: the embedding of either is the unit vector of its
red, green and blue, so every ranking below follows from the colours alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import RunConfig
from harness.data.dataset import DataSet, Split, Task

CONTEXT = 8
WORDS = ("<pad>", "<other>", "red", "green", "blue", "<eot>")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourTokenizer:
    """Words to ids, cut to the longest text of the call."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, text: str) -> list[int]:
        words = [word.strip(".") for word in text.casefold().split()][: CONTEXT - 1]
        return [WORDS.index(word) if word in WORDS else 1 for word in words] + [5]

    def is_truncated(self, text: str) -> bool:
        return len(text.split()) > CONTEXT - 1

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.seen += texts
        rows = [self.encode(text) for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


class _Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(WORDS), 3)
        with torch.no_grad():
            self.token_embedding.weight.zero_()
            self.token_embedding.weight[2:5] = torch.eye(3)


class ColourModel(nn.Module):
    """The interface of a two-tower model, with answers known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
        self.image[2].weight.data = torch.eye(3)
        self.image[2].bias.data.zero_()
        self.text = _Text()
        self.logit_scale = nn.Parameter(torch.tensor(0.0))
        self.config = RunConfig().model
        self.tokenizer = ColourTokenizer()
        self.image_batches: list[int] = []
        self.text_batches: list[tuple[int, ...]] = []

    def preprocess(self, picture: np.ndarray) -> Tensor:
        return torch.from_numpy(picture[:4, :4].copy()).permute(2, 0, 1).float() / 255

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.image_batches.append(len(pixels))
        return F.normalize(self.image(pixels), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        self.text_batches.append(tuple(tokens.shape))
        return F.normalize(self.text.token_embedding(tokens).sum(dim=1), dim=-1)


@dataclass(frozen=True)
class ColourData(DataSet):
    """Pictures kept as bytes in memory."""

    files: Mapping[str, bytes] = field(default_factory=dict)

    def read(self, image: str) -> bytes:
        return self.files[image]


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def colour_data(
    pictures: Mapping[str, tuple[tuple[int, int, int] | bytes, tuple[str, ...]]],
    tasks: tuple[Task, ...] = (),
) -> ColourData:
    """Picture name -> (its colour, or bytes that are no picture; its captions), all in `test`."""
    files = {name: c if isinstance(c, bytes) else png(c) for name, (c, _) in pictures.items()}
    split = Split(tuple(pictures), tuple(captions for _, captions in pictures.values()))
    return ColourData("colours", "f" * 64, "e" * 64, {"test": split}, tasks, files=files)


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def make_data() -> Callable[..., ColourData]:
    return colour_data
