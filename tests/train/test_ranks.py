"""Several processes are one: the same loss, gradients, weights and log, whatever their number."""

import pytest
import torch
from torch.testing import assert_close

from harness.config import override
from tests.train.rank_cases import CASES, CLIP, after, gradients, on_ranks, trainer


def of_each_case(folder, ranks):
    """Gradients of the first step of every case."""
    return {
        name: gradients(after(trainer(folder / name, override(CLIP, values), ranks), 1))
        for name, values in CASES.items()
    }


@pytest.fixture(scope="module")
def first_steps(tmp_path_factory):
    """Number of processes -> what each of them has after the first step of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    return {
        size: on_ranks(
            folder / str(size), size, lambda r, s=size: of_each_case(folder / f"{s} runs", r)
        )
        for size in (1, 2, 4)
    }


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_processes_have_the_loss_and_gradients_of_one(first_steps, case, size):
    (alone,) = first_steps[1]
    assert len(alone[case]) > 50
    for of_rank in first_steps[size]:
        assert_close(of_rank[case], alone[case], rtol=1e-4, atol=1e-5)
    for of_rank in first_steps[size][1:]:
        for name, value in of_rank[case].items():
            assert torch.equal(value, first_steps[size][0][case][name]), name
