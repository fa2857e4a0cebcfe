"""CLIP's byte-pair encoding, with the whole table of tokens or only the rows a corpus uses.

With `vocabulary=corpus` the tokens are the same as with `full`, only renumbered, so a finished
model can be written out with the full table again and used with CLIP's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from open_clip import tokenizer as _tokenizers
from torch import Tensor

from harness.data.verified import cache_key, keep_json, kept_json

if TYPE_CHECKING:
    from harness.data.dataset import DataSet

#: Made with its module; another one takes a tenth of a second.
_BPE: Any = getattr(_tokenizers, "_tokenizer", None) or _tokenizers.SimpleTokenizer()
SOT, EOT = 49_406, 49_407
FULL_SIZE = 49_408
PAD = 0
OTHER = 0
"""Compact id of a word piece that the corpus lacks; shared with padding, which no word can see."""


_KEPT_TEXTS = 50_000
"""Captions whose pieces each worker keeps, in about 14 MB; one anew takes 0.06 ms."""


@lru_cache(maxsize=_KEPT_TEXTS)
def _pieces(text: str) -> tuple[int, ...]:
    return tuple(_BPE.encode(text))


def corpus_rows(captions: Iterable[str]) -> np.ndarray:
    """Rows of the full table that `captions` use, as a compact table's ids.

    Returns:
        int64 (V,): entry c is the full id of compact id c.  Entry 0 stands for padding and for
        every other piece; the last two are SOT and EOT, so that EOT is the highest id.
    """
    used = sorted({piece for caption in captions for piece in _pieces(caption)})
    return np.array([PAD, *used, SOT, EOT], dtype=np.int64)


_MANY = 20_000
"""Pictures from which on the rows of a corpus are kept: to find them takes seconds."""


def corpus_rows_of(data: DataSet, cache: Path) -> np.ndarray:
    """The rows that the captions of the split `train` use, found once for each content."""
    train = data.split("train")
    if len(train) < _MANY:
        return corpus_rows(caption for captions in train.captions for caption in captions)
    what = [data.fingerprint, len(train), version("open_clip_torch")]
    file = cache / "vocabulary" / f"{data.name}-{cache_key(what)}.json"
    if (kept := kept_json(file)) is not None:
        return np.array(kept["rows"], dtype=np.int64)
    rows = corpus_rows(caption for captions in train.captions for caption in captions)
    keep_json(file, {"rows": rows.tolist()})
    return rows


class Word(NamedTuple):
    """A word of a text as the encoding spells it; `known`: the table has a row for each piece."""

    text: str
    pieces: int
    known: bool


class Tokenizer:
    """Texts to ids `(N, L)`, L the longest of the call, at most `context_length`.

    Cutting to the longest text is exact for a causal tower that pools at EOT: what follows EOT is
    never attended to.  A text too long is cut and ends in EOT, as CLIP does.
    """

    def __init__(self, context_length: int, rows: np.ndarray | None = None) -> None:
        self.context_length = context_length
        self.rows = rows
        self._compact: dict[int, int] | None = None
        self.sot, self.eot = SOT, EOT
        if rows is not None:
            self._compact = {int(full): c for c, full in enumerate(rows) if c > 0}
            self.sot, self.eot = self._compact[SOT], self._compact[EOT]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return FULL_SIZE if self.rows is None else len(self.rows)

    def encode(self, text: str) -> list[int]:
        """SOT, word pieces, EOT: at most `context_length` ids."""
        pieces: Sequence[int] = _pieces(text)[: self.context_length - 2]
        if self._compact is not None:
            pieces = [self._compact.get(piece, OTHER) for piece in pieces]
        return [self.sot, *pieces, self.eot]

    def words(self, text: str) -> list[Word]:
        """The words whose pieces `encode` puts between SOT and EOT, in order, without gaps.

        What is cut off at the context's end is absent; a word cut within is what is left of it.
        """
        words: list[Word] = []
        group: list[int] = []
        pieces = _pieces(text)[: self.context_length - 2]
        for place, piece in enumerate(pieces, 1):
            group.append(piece)
            if place == len(pieces) or _BPE.decoder[piece].endswith("</w>"):
                known = self._compact is None or all(p in self._compact for p in group)
                words.append(Word(_BPE.decode(group).strip(), len(group), known))
                group = []
        return words

    def is_truncated(self, text: str) -> bool:
        """Whether `text` is longer than the context."""
        return len(_pieces(text)) > self.context_length - 2

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids int64 (N, L) of N texts, L the longest of them."""
        return pad([self.encode(text) for text in texts])


def pad(ids: Sequence[Sequence[int]]) -> Tensor:
    """Ragged ids to one int64 tensor (N, longest), padded on the right with 0."""
    longest = max(len(row) for row in ids)
    out = np.zeros((len(ids), longest), dtype=np.int64)
    for i, row in enumerate(ids):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def word_mask(ids: Tensor) -> Tensor:
    """True at the words of texts (N, L): after SOT, which is first, and before EOT.

    EOT is the highest id of its row and is followed by padding alone.  Ids do not tell padding from
    words: in a corpus vocabulary, 0 within the text is a word piece that the corpus lacks.
    """
    place = torch.arange(ids.shape[1], device=ids.device)
    return (place > 0) & (place < ids.argmax(dim=-1, keepdim=True))
