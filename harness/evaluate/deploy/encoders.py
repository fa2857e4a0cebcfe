"""Sessions of ONNX Runtime as a model that evaluation takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import DeployedForm
from harness.data.text import Tokenizer
from harness.models.two_tower import TwoTower


class DeployedModel(nn.Module):
    """Both towers of a trained model as sessions, with its transform and temperature.

    Texts have ids of CLIP's full table and fill the context, as the exported tower takes them.

    Args:
        form: what the numbers of this model are numbers of.
        image, text: sessions of `onnxruntime` with an output `embeddings` at unit norm.
    """

    def __init__(self, form: DeployedForm, of: TwoTower, image: Any, text: Any) -> None:
        super().__init__()
        self.own_precision = form
        self.tokenizer = Tokenizer(of.config.text.context_length, None)
        self.preprocess = of.preprocess
        self.logit_scale = nn.Parameter(of.logit_scale.detach().cpu().clone())
        self._context_length = of.config.text.context_length
        self._image, self._text = image, text

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to unit-norm (N, D)."""
        return self._run(self._image, pixels.contiguous())

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, L) to unit-norm (N, D)."""
        return self._run(self._text, self.filled(tokens))

    def filled(self, tokens: Tensor) -> Tensor:
        """(N, L) to (N, context length): padded as the tower takes them."""
        return F.pad(tokens, (0, self._context_length - tokens.shape[1]))

    @staticmethod
    def _run(session: Any, batch: Tensor) -> Tensor:
        (taken,) = session.get_inputs()
        (found,) = session.run(["embeddings"], {taken.name: batch.numpy()})
        return torch.from_numpy(found)
