"""A matching is begun as early as its words are known, and waited for at the end of the step."""

import pytest
import torch

from harness.config import override
from tests.train.rank_cases import CLIP, MLM, TOKEN, VIT, after, trainer, weights


@pytest.mark.parametrize("negatives", ["within_pair", "in_batch"])
def test_the_matching_is_waited_for_when_all_else_of_the_step_is_queued(
    tmp_path, monkeypatch, negatives
):
    from harness import device
    from harness.objectives.instance import InstanceLoss
    from harness.objectives.mlm import MlmLoss

    done = []

    def noted(name, real):
        return lambda *given: done.append(name) or real(*given)

    def begin(*tensors):
        done.append("copy")
        return noted("wait", real(*tensors))

    real = device.begin_download
    monkeypatch.setattr(device, "begin_download", begin)
    monkeypatch.setattr(MlmLoss, "outputs", noted("masked pass", MlmLoss.outputs))
    monkeypatch.setattr(InstanceLoss, "loss", noted("instance loss", InstanceLoss.loss))
    monkeypatch.setattr(MlmLoss, "loss", noted("mlm loss", MlmLoss.loss))
    values = {**TOKEN, **MLM, "objective.token.negatives": negatives}
    after(trainer(tmp_path, override(CLIP, values)), 1)
    early = negatives == "within_pair"
    queued = ["masked pass", "instance loss", "mlm loss"]
    assert done == (["copy", *queued, "wait"] if early else [*queued, "copy", "wait"])


def test_a_matching_begun_early_changes_no_bit(tmp_path, monkeypatch):
    from harness.objectives.token import TokenLoss

    config = override(CLIP, {**TOKEN, **MLM})
    early = weights(after(trainer(tmp_path / "early", config), 3))
    monkeypatch.setattr(TokenLoss, "begin", lambda *of: None)
    late = weights(after(trainer(tmp_path / "late", config), 3))
    assert all(torch.equal(early[name], late[name]) for name in late)


def test_micro_batches_begin_no_matching_that_nobody_waits_for(tmp_path, monkeypatch):
    from harness import device

    begun = []
    real = device.begin_download
    monkeypatch.setattr(device, "begin_download", lambda *t: begun.append(1) or real(*t))
    after(trainer(tmp_path, override(CLIP, {**TOKEN, **VIT}), micro_batch=4), 1)
    assert len(begun) == 1
