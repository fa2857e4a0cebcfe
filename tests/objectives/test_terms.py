import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from harness.config import Objective
from harness.errors import ConfigError
from harness.models.tokens import Tokens
from harness.objectives.instance import InstanceLoss, instance_loss
from harness.objectives.mlm import HiddenWords, MlmLoss
from harness.objectives.terms import TERMS, RampedTerm, StepTensors, compute_loss
from harness.objectives.token import TokenLoss


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


def test_a_term_of_weight_zero_is_not_computed_and_one_at_the_foot_of_its_ramp_is():
    ramped = TokenLoss(weight=1.0, schedule="linear")
    assert list(Objective().active) == ["instance"]
    assert list(Objective(token=ramped).active) == ["instance", "token"]


def test_the_total_is_the_sum_over_terms_of_ramped_weight_times_term():
    patches = words = torch.eye(3)[None].expand(3, 3, 3)
    mask = torch.ones(3, 3, dtype=torch.bool)
    now = replace(
        step(0.5),
        of_terms={
            "token": Tokens(patches, words, mask),
            "mlm": HiddenWords(torch.eye(3), torch.tensor([0, 1, 2])),
        },
        modules={"mlm": SimpleNamespace(table=lambda text: torch.eye(3), bias=torch.zeros(3))},
        towers=SimpleNamespace(text=None),
    )
    objective = Objective(
        token=TokenLoss(weight=0.5, schedule="linear", tau=1.0), mlm=MlmLoss(weight=2.0)
    )
    loss = compute_loss(now, objective)
    # one of three right with cosine 1 against two of cosine 0: ln(e + 2) - 1
    expected = math.log(math.e + 2) - 1
    assert loss.raw["token"].item() == pytest.approx(expected, abs=1e-6)
    assert loss.raw["mlm"].item() == pytest.approx(expected, abs=1e-6)
    total = loss.raw["instance"] + 0.25 * loss.raw["token"] + 2.0 * loss.raw["mlm"]
    torch.testing.assert_close(loss.total, total)


def test_every_section_of_the_objective_has_its_term():
    assert set(Objective().terms) == set(TERMS)


def test_unknown_term_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown loss term 'instanse'; nearest: instance"):
        TERMS.get("instanse")


class Half(RampedTerm):
    """Without a loss."""


class Demanding(RampedTerm):
    """With a setting that must be given."""

    margin: float

    def loss(self, step, outputs, module):
        return step.image.sum()


@pytest.mark.parametrize(
    ("name", "term", "line"),
    [
        ("half", lambda step: 0.0, r"'half': a class is wanted that has .*Term as a base"),
        ("half", Half, r"'half': a class is wanted .* defines `loss`"),
        ("my term", InstanceLoss, r"'my term': a name is wanted such as instanceloss"),
        ("new", Demanding, r"'new': every setting needs a default; margin.*required"),
        ("mlm", InstanceLoss, r"loss term 'mlm' is registered twice"),
    ],
)
def test_what_cannot_be_a_term_is_refused_where_it_is_registered(name, term, line):
    with pytest.raises(ConfigError, match=line):
        TERMS.register(name)(term)
    assert set(TERMS) == set(Objective().terms)
