"""Parameters and multiply-accumulates against counts made by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import ConfigError, InvariantError
from harness.evaluate.cost import latency_ms, measure_cost

WIDTH, LENGTH, VOCABULARY, DIM, SIZE = 8, 6, 11, 4, 10
CPU = torch.device("cpu")


class Branches(nn.Module):
    """Two parallel linear maps that inference replaces by their sum, as RepVGG does."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, DIM, bias=False), nn.Linear(3, DIM, bias=False)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)

    def fuse(self) -> nn.Module:
        fused = nn.Linear(3, DIM, bias=False)
        fused.weight.data = self.a.weight.data + self.b.weight.data + self.error
        return fused


class Image(nn.Module):
    def __init__(self, error: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.branches = Branches(error)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.branches(self.conv(pixels).mean(dim=(2, 3)))


class Text(nn.Module):
    """One layer of torch's own transformer, whose fused path hides what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.block = nn.TransformerEncoderLayer(
            WIDTH, 2, dim_feedforward=4 * WIDTH, batch_first=True, norm_first=True
        )
        self.projection = nn.Linear(WIDTH, DIM, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.projection(self.block(self.token_embedding(tokens))[:, -1])


class Towers(nn.Module):
    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.image, self.text = Image(error), Text()
        self.logit_scale = nn.Parameter(torch.tensor(0.0))
        self.training_only = nn.Linear(5, 5)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.image(pixels), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.text(tokens), dim=-1)

    def tokenizer(self, texts: list[str]) -> Tensor:
        return torch.ones(len(texts), min(LENGTH, len(texts[0].split())), dtype=torch.int64)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Towers()


def test_parameters_leave_out_what_only_training_needs(model: Any) -> None:
    found = measure_cost(model, SIZE, LENGTH)["parameters"]
    image = 3 * 3 * 9 + 3 * DIM
    block = 4 * WIDTH * WIDTH + 4 * WIDTH + 2 * 4 * WIDTH * WIDTH + 5 * WIDTH + 4 * WIDTH
    text = VOCABULARY * WIDTH + block + WIDTH * DIM
    assert found == {
        "total": image + 3 * DIM + text + 1 + 30,
        "inference": image + text + 1,
        "inference_without_embeddings": image + text + 1 - VOCABULARY * WIDTH,
        "image": image,
        "text": text,
        "text_embeddings": VOCABULARY * WIDTH,
    }


def test_gmacs_equal_a_count_by_hand(model: Any) -> None:
    found = measure_cost(model, SIZE, LENGTH)["gmacs"]
    assert found["image"] * 1e9 == SIZE * SIZE * 3 * 3 * 9 + 3 * DIM
    # q, k, v and output maps; scores and their sum over values; two maps of 4 x width.
    projections, attention = 4 * LENGTH * WIDTH**2, 2 * LENGTH * LENGTH * WIDTH
    feed_forward = 2 * LENGTH * WIDTH * 4 * WIDTH
    assert found["text"] * 1e9 == projections + attention + feed_forward + WIDTH * DIM


def test_the_model_itself_is_left_alone(model: Any) -> None:
    model.train()
    before = copy.deepcopy(model.state_dict())
    fast_path = torch.backends.mha.get_fastpath_enabled()
    measure_cost(model, SIZE, LENGTH)
    assert model.training
    assert isinstance(model.image.branches, Branches)
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_re_parameterising_that_changes_the_outputs_is_refused() -> None:
    with pytest.raises(InvariantError, match="re-parameterising the image tower changes"):
        measure_cost(Towers(error=0.5), SIZE, LENGTH)  # type: ignore[arg-type]


def test_context_the_tokenizer_cannot_fill_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="the context length of the text tower is not 20"):
        measure_cost(model, SIZE, 20)


@pytest.mark.parametrize(
    ("each", "calls", "median"),
    [(0.001, 5 + 30, 1.0), (0.5, 4 + 20, 500.0), (3.0, 1 + 5, 3000.0)],
    ids=["fast", "slow", "very slow"],
)
def test_slow_calls_are_fewer(
    monkeypatch: pytest.MonkeyPatch, each: float, calls: int, median: float
) -> None:
    made = []
    clock = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) * each)
    assert latency_ms(lambda x: made.append(x) or x, torch.zeros(1)) == pytest.approx(median)
    assert len(made) == calls
