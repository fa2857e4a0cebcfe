import pytest
import torch

from harness.config import InstanceLoss, Objective
from harness.errors import ConfigError
from harness.objectives.instance import instance_loss
from harness.objectives.terms import TERMS, StepTensors, compute_loss


def step(progress):
    eye = torch.eye(3)
    return StepTensors(eye, eye.roll(1, 0), torch.tensor(1.0), progress)


def test_total_is_weight_times_raw():
    loss = compute_loss(step(0.0), Objective(instance=InstanceLoss(weight=0.5)))
    assert loss.weighted["instance"].item() == pytest.approx(0.5 * loss.raw["instance"].item())
    assert loss.total.item() == pytest.approx(loss.weighted["instance"].item())


def test_progress_reaches_the_softened_labels():
    config = InstanceLoss(a_max=0.4, schedule="linear", weighting="uniform")
    now = step(0.5)
    expected = instance_loss(now.image, now.text, now.logit_scale, mass=0.2, weighting="uniform")
    torch.testing.assert_close(compute_loss(now, Objective(instance=config)).total, expected)


def test_every_section_of_the_objective_has_its_term():
    assert set(Objective.model_fields) == set(TERMS)


def test_unknown_term_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown loss term 'instanse'; nearest: instance"):
        TERMS.get("instanse")
