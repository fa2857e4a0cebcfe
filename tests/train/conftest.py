"""What several test files of the training share."""

import pytest
import torch

from harness.train import loop


@pytest.fixture(scope="module")
def in_64_bits():
    """Everything in 64 bits: sums in another order then differ by 1e-13, a mistake by far more.

    In 32 bits training makes 1e-6 of rounding into 1e-2 of a small weight within a few steps.
    """
    normalise = loop.normalise
    with pytest.MonkeyPatch.context() as patch:
        torch.set_default_dtype(torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(loop, "normalise", lambda pixels, image: normalise(pixels, image).double())
        yield
        torch.set_default_dtype(torch.float32)
