"""Gradients become their mean during the backward pass: the same numbers, in the same order."""

from functools import partial

import pytest
import torch
from torch import nn

from harness.config import override
from harness.train import exchange
from harness.train.exchange import GradientExchange
from tests.train.rank_cases import CASES, CLIP, after, gradients, on_ranks, trainer

pytestmark = pytest.mark.usefixtures("in_64_bits")


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 600)


class Chain(nn.Module):
    """Layers one behind the other, and one that is used when it is asked for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.aside, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, aside):
        for layer in self.layers:
            x = layer(x).tanh()
        return (x + self.aside(x) if aside else x).square().sum()


def of_rank(ranks, aside):
    """Gradients of three steps, and how many messages had been begun when each pass was over."""
    model, begun, steps, sizes = Chain(), [], [], []
    begin = ranks.begin_sum
    ranks.begin_sum = lambda tensor: begun.append(len(tensor)) or begin(tensor)
    shared = GradientExchange(model, ranks)
    for step in range(3):
        model.zero_grad()
        x = torch.full((2, 6), 1.0 + step + 10 * ranks.rank)
        loss = model(x, aside(ranks.rank, step))
        with shared.overlapped():
            loss.backward()
        sizes.append(len(begun))
        shared.finish([loss.detach()])
        steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    return steps, sizes


def expected(aside, step):
    model = Chain()
    for rank in range(2):
        model(torch.full((2, 6), 1.0 + step + 10 * rank), aside(rank, step)).div(2).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "aside",
    [lambda rank, step: True, lambda rank, step: step > 0, lambda rank, step: step != 1 or rank],
    ids=["always", "from the second step on", "missing on one process"],
)
def test_gradients_are_the_mean_whenever_they_come(tmp_path, aside):
    found = on_ranks(tmp_path, 2, partial(of_rank, aside=aside))
    for steps, _ in found:
        for step, given in enumerate(steps):
            wanted = expected(aside, step)
            assert given.keys() == wanted.keys(), step
            assert "unused.weight" not in given
            for name, value in wanted.items():
                assert torch.allclose(given[name], value, rtol=1e-12, atol=1e-14), (step, name)


def test_most_is_sent_before_the_pass_is_over(tmp_path):
    for _, begun in on_ranks(tmp_path, 2, partial(of_rank, aside=lambda rank, step: True)):
        # Ten tensors of five layers in buckets of 600 bytes: each layer's pair has one.
        assert begun == [0, 5, 10]


def three_steps(folder, values, ranks):
    t = trainer(folder, override(CLIP, {**CASES["everything"], **values}), ranks)
    begun = []
    begin = ranks.begin_sum
    ranks.begin_sum = lambda tensor: begun.append(len(tensor)) or begin(tensor)
    found = gradients(after(t, 3))
    return found, len(begun)


@pytest.mark.parametrize("values", [{}, {"train.norm_batch": 2}], ids=["whole", "in parts"])
def test_a_run_has_the_bits_of_one_exchange_after_the_pass(tmp_path, values, monkeypatch):
    many = on_ranks(tmp_path / "many", 2, partial(three_steps, tmp_path / "a", values))
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 1 << 40)
    one = on_ranks(tmp_path / "one", 2, partial(three_steps, tmp_path / "b", values))
    for (found, messages), (wanted, single) in zip(many, one, strict=True):
        assert messages > 20
        assert single == 2  # of the steps after the first
        for name, value in wanted.items():
            assert torch.equal(found[name], value), name
