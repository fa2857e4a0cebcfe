"""Several processes are one: the same loss, gradients, weights and log, whatever their number."""

from functools import partial

import pytest
import torch

from harness.config import override
from harness.train.ranks import ALONE
from tests.train.rank_cases import CASES, CLIP, after, gradients, on_ranks, trainer


def of_each_case(folder, ranks=ALONE):
    """What the first step of every case leaves."""
    return {
        name: gradients(after(trainer(folder / name, override(CLIP, values), ranks), 1))
        for name, values in CASES.items()
    }


@pytest.fixture(scope="module")
def first_steps(tmp_path_factory):
    """Number of processes -> what each of them has after the first step of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    together = {
        size: on_ranks(folder / str(size), size, partial(of_each_case, folder / f"of {size}"))
        for size in (2, 4)
    }
    return {1: [of_each_case(folder / "of 1")], **together}


def assert_same(found, expected, tolerance):
    """Each tensor within `tolerance` of the length of what is expected, in 32 bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        off = (found[name].double() - value.double()).norm()
        assert off <= tolerance * (value.double().norm() + 1e-3), (name, float(off))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_processes_have_the_loss_and_gradients_of_one(first_steps, case, size):
    (alone,) = first_steps[1]
    assert len(alone[case]) > 50
    first, *others = first_steps[size]
    assert_same(first[case], alone[case], 5e-5)
    for other in others:
        for name, value in first[case].items():
            assert torch.equal(other[case][name], value), name
