"""Which patches of a picture the words of a text are matched to, as the token objective sees them.

Owns how pieces become words and what is shown of a matching.  Reads the modules that train beside
the towers, so it is for looking at a run alone: no metric is computed from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.config import ImageTower
from harness.data.text import Word
from harness.errors import ConfigError
from harness.evaluate.embed import encoding
from harness.models.training import TrainingModel
from harness.objectives.matching import match
from harness.objectives.token import TokenLoss


@dataclass(frozen=True, eq=False)
class WordMatch:
    """A word and where it is found.

    Attributes:
        text: the word as the encoding spells it: in lower case.
        known: the run's table has a row for each of its pieces.
        similarity: cosines with all patches (G, G), the mean over the word's pieces.
        weights: (G, G) in [0, 1], how far each patch is matched: the most of any piece.
        cosine: mean cosine over the matches of its pieces; None if none of them is matched.
    """

    text: str
    known: bool
    similarity: np.ndarray
    weights: np.ndarray
    cosine: float | None


@dataclass(frozen=True, eq=False)
class Alignment:
    """A text on a picture.

    Attributes:
        picture: uint8 (S, S, 3), what the image tower is shown.
        words: in the text's order, one or more.
    """

    picture: np.ndarray
    words: tuple[WordMatch, ...]

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return len(self.words[0].similarity)


def align(model: TrainingModel, config: TokenLoss, picture: np.ndarray, text: str) -> Alignment:
    """Match the words of `text` to the patches of `picture` (uint8, (H, W, 3)) as in training.

    Every piece of the text is matched, as the loss does, and the pieces of one word are then taken
    together.

    Raises:
        ConfigError: the text has no word.
    """
    towers = model.model
    words = towers.tokenizer.words(text)
    if not words:
        raise ConfigError(f"the text {text!r} has no word to match; one or more are wanted")
    pixels = towers.preprocess(picture)
    with encoding(model, "fp32"):
        outputs = model(pixels[None], towers.tokenizer([text]))
    patches, pieces, mask = outputs.of_terms["token"]
    similarity = pieces @ patches.mT
    weights = match(similarity, mask, config)
    return Alignment(
        picture=_shown(pixels, towers.config.image),
        words=tuple(_of_words(words, similarity[0][mask[0]], weights[0][mask[0]])),
    )


def _of_words(words: list[Word], similarity: Tensor, weights: Tensor) -> Iterator[WordMatch]:
    """A WordMatch of each word, from its pieces' rows of (L, P) cosines and weights."""
    counts = [word.pieces for word in words]
    for word, cosines, matched in zip(
        words, torch.split(similarity, counts), torch.split(weights, counts), strict=True
    ):
        mass = float(matched.sum())
        yield WordMatch(
            word.text,
            word.known,
            similarity=_as_grid(cosines.mean(dim=0)),
            weights=_as_grid(matched.amax(dim=0)),
            cosine=float((matched * cosines).sum()) / mass if mass else None,
        )


def _as_grid(values: Tensor) -> np.ndarray:
    side = int(len(values) ** 0.5)
    out: np.ndarray = values.view(side, side).numpy()
    return out


def _shown(pixels: Tensor, tower: ImageTower) -> np.ndarray:
    """Normalised pixels (3, S, S) as a picture again."""
    mean, std = torch.tensor(tower.mean)[:, None, None], torch.tensor(tower.std)[:, None, None]
    picture: np.ndarray = ((pixels * std + mean) * 255).round().clamp(0, 255).byte().numpy()
    return picture.transpose(1, 2, 0)
