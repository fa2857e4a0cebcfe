"""A batch in parts: the gradients of the whole, or of the norm batches that the run asks for."""

from functools import partial

import pytest
import torch
from torch import nn

from harness.config import override
from harness.errors import ConfigError
from harness.train.distributed import SINGLE_PROCESS
from harness.train.norms import RunningStatistics
from tests.train.rank_cases import (
    CASES,
    CLIP,
    VIT,
    after,
    assert_same,
    gradients,
    on_ranks,
    trainer,
)

pytestmark = pytest.mark.usefixtures("in_64_bits")

GHOSTS = override(CLIP, {**CASES["everything"], "train.norm_batch": 2})


@pytest.mark.parametrize(("size", "case"), [(3, "everything"), (4, "everything"), (3, "open")])
def test_parts_have_the_gradients_of_the_whole(tmp_path, size, case):
    config = override(CLIP, {**VIT, **CASES[case]})
    whole = gradients(after(trainer(tmp_path / "whole", config), 1))
    parts = gradients(after(trainer(tmp_path / "parts", config, micro_batch=size), 1))
    assert len(whole) > 50
    assert_same(parts, whole, 1e-9)


def test_parts_on_two_processes_have_the_gradients_of_the_whole(tmp_path):
    config = override(CLIP, {**VIT, **CASES["everything"]})

    def train(ranks):
        return gradients(after(trainer(tmp_path / "runs", config, ranks, micro_batch=2), 1))

    together = on_ranks(tmp_path, 2, train)
    whole = gradients(after(trainer(tmp_path / "whole", config), 1))
    assert_same(together[0], whole, 1e-9)


def test_parts_are_refused_where_they_would_change_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"conv1\.1 \(BatchNorm.*processes.*train\.norm_batch"):
        trainer(tmp_path, CLIP, micro_batch=4)


def test_micro_and_norm_batch_exclude_one_another(tmp_path):
    with pytest.raises(ConfigError, match=r"micro_batch = 4 with train\.norm_batch = 2"):
        trainer(tmp_path, GHOSTS, micro_batch=4)


def test_a_norm_batch_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ConfigError, match=r"norm_batch 3 .* batch_size 8; nearest that do: 2, 4"):
        override(CLIP, {"train.norm_batch": 3})


def test_norm_batches_are_the_same_on_two_processes(tmp_path):
    def train(folder, ranks=SINGLE_PROCESS):
        return gradients(after(trainer(folder, GHOSTS, ranks), 1))

    together = on_ranks(tmp_path, 2, partial(train, tmp_path / "runs"))
    alone = train(tmp_path / "alone")
    assert sum("running" in name for name in alone) > 4
    assert_same(together[0], alone, 1e-9)


def test_norm_batches_change_the_run(tmp_path):
    ghosts = gradients(after(trainer(tmp_path / "ghosts", GHOSTS), 1))
    whole = override(GHOSTS, {"train.norm_batch": None})
    assert whole.run_key != GHOSTS.run_key
    assert abs(gradients(after(trainer(tmp_path / "whole", whole), 1))["loss"] - ghosts["loss"]) > 0


def test_running_statistics_move_once_by_the_mean_of_the_parts():
    norm = nn.BatchNorm1d(1)
    parts = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]])]
    with RunningStatistics(norm).of_step(SINGLE_PROCESS) as step:
        for part in parts:
            with step.of_micro_batch():
                out = norm(part)
        norm(parts[0])  # the second pass, which must not count
    assert out.flatten().tolist() == pytest.approx([-1.0, 1.0], abs=1e-4)
    # means 1 and 6, unbiased variances 2 and 8; a tenth of the way from 0 and from 1
    assert norm.running_mean.tolist() == pytest.approx([0.1 * 3.5])
    assert norm.running_var.tolist() == pytest.approx([0.9 + 0.1 * 5.0])
    assert norm.num_batches_tracked == 1
