import math
import weakref

import open_clip
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from harness.config import RunConfig, override
from harness.errors import ConfigError
from harness.objectives.instance import (
    InstanceLoss,
    instance_loss,
    negative_weights,
    soft_label_mass,
    soft_targets,
)

WEIGHTINGS = ["uniform", "similarity", "text", "image"]


def pairs(n=6, d=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    image, text = (F.normalize(torch.randn(n, d, generator=rng), dim=-1) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(1.7, requires_grad=True)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_target_row_sums_to_one_with_the_positive_at_1_minus_a(weighting):
    image, text, _ = pairs()
    for target in soft_targets(image, text, 0.3, weighting, tau=0.1):
        torch.testing.assert_close(target.sum(1), torch.ones(6), atol=1e-6, rtol=0)
        torch.testing.assert_close(target.diag(), torch.full((6,), 0.7), atol=1e-6, rtol=0)
        assert (target >= 0).all()


def test_no_gradient_flows_through_the_target():
    image, text, _ = pairs()
    rows, columns = soft_targets(image, text, 0.3, "similarity", tau=0.1)
    assert not rows.requires_grad
    assert not columns.requires_grad


def test_uniform_target_by_hand():
    image, text, _ = pairs(n=3)
    rows, columns = soft_targets(image, text, 0.2, "uniform", tau=0.1)
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    torch.testing.assert_close(rows, expected)
    torch.testing.assert_close(columns, expected)


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_uniform_and_constant_it_is_label_smoothing_as_torch_has_it(smoothing):
    # torch smooths over all N texts, the own one among them
    image, text, scale = pairs()
    logits = scale.exp() * image @ text.T
    own = torch.arange(6)
    expected = [F.cross_entropy(one, own, label_smoothing=smoothing) for one in (logits, logits.T)]
    found = instance_loss(image, text, scale, mass=smoothing * 5 / 6, weighting="uniform")
    torch.testing.assert_close(found, sum(expected) / 2)


def test_similarity_weights_by_hand():
    # similarities of row 0 to the two negatives are 0.1 ln 3 and 0, so at tau 0.1 they weigh 3 : 1
    similarity = torch.tensor([[9.0, 0.1 * math.log(3), 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    expected = torch.tensor([[0.0, 0.75, 0.25], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    torch.testing.assert_close(negative_weights(similarity, tau=0.1), expected)


def test_similarity_takes_each_direction_from_its_own_side():
    image = torch.eye(3)
    text = F.normalize(torch.tensor([[1.0, 0, 0], [1.0, 1.0, 0], [0, 0, 1.0]]), dim=-1)
    rows, columns = soft_targets(image, text, 0.5, "similarity", tau=0.1)
    assert rows[0, 1] > rows[0, 2]  # image 0 is close to text 1
    assert columns[1, 0] > columns[1, 2]  # text 1 is close to image 0
    torch.testing.assert_close(
        columns[0, 1], columns[0, 2]
    )  # text 0 is equally far from images 1, 2


@pytest.mark.parametrize(("weighting", "near"), [("text", 1), ("image", 2)])
def test_intra_modal_weights_come_from_that_modality(weighting, near):
    image = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0.2]]), dim=-1)
    text = F.normalize(torch.tensor([[1.0, 0, 0], [1.0, 0.2, 0], [0, 0, 1.0]]), dim=-1)
    for target in soft_targets(image, text, 0.5, weighting, tau=0.1):
        assert target[0, near] > 0.45


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_mass_zero_is_clips_loss_in_value_and_gradient(weighting):
    ours, theirs = pairs(), pairs()
    loss = instance_loss(*ours, mass=0.0, weighting=weighting)
    reference = open_clip.loss.ClipLoss()(theirs[0], theirs[1], theirs[2].exp())
    torch.testing.assert_close(loss, reference, atol=1e-6, rtol=0)
    loss.backward()
    reference.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_softened_path_meets_clips_loss_as_the_mass_goes_to_zero(weighting):
    soft, hard = pairs(), pairs()
    a = instance_loss(*soft, mass=1e-9, weighting=weighting)
    b = instance_loss(*hard)
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    a.backward()
    b.backward()
    for mine, other in zip(soft, hard, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=0)


def test_loss_by_hand_for_two_orthogonal_pairs():
    # cosines are the identity, scale e^0 = 1; each row is CE of (1, 0) against (1 - a, a)
    eye = torch.eye(2)
    log_sum = math.log(math.e + 1)
    expected = 0.75 * (log_sum - 1) + 0.25 * log_sum
    loss = instance_loss(eye, eye, torch.tensor(0.0), mass=0.25, weighting="uniform")
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_loss_is_finite_for_large_scale_and_identical_embeddings():
    same = F.normalize(torch.ones(4, 3), dim=-1)
    for weighting in WEIGHTINGS:
        scale = torch.tensor(math.log(100.0))
        loss = instance_loss(same, same, scale, mass=0.5, weighting=weighting)
        assert loss.item() == pytest.approx(math.log(4), abs=1e-4)


def test_mass_is_a_function_of_progress_alone():
    config = InstanceLoss(a_max=0.4, schedule="linear", start=0.5)
    assert [soft_label_mass(config, p) for p in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.2, 0.4]


# --------------------------------------------------------------------------- other softenings


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step"])
@pytest.mark.parametrize("anneal", ["linear", "cosine", "step"])
def test_an_annealed_mass_is_back_at_0_in_the_end_and_never_above_a_max(schedule, anneal):
    config = InstanceLoss(a_max=0.4, schedule=schedule, anneal=anneal)
    masses = [soft_label_mass(config, i / 40) for i in range(41)]
    assert masses[-1] == 0.0
    assert all(0 <= mass <= 0.4 for mass in masses)
    assert max(masses) > 0.05
    if schedule == "constant":
        assert masses[0] == 0.4
        assert masses == sorted(masses, reverse=True)


def test_a_mass_that_rises_and_falls_by_hand():
    config = InstanceLoss(a_max=0.4, schedule="linear", anneal="linear", anneal_start=0.5)
    masses = [soft_label_mass(config, p) for p in (0.25, 0.5, 0.75, 1.0)]
    assert masses == pytest.approx([0.1, 0.2, 0.4 * 0.75 * 0.5, 0.0])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_per_sample_rows_sum_to_one_and_a_pair_that_matches_keeps_its_label(weighting):
    image, text, _ = pairs()
    with torch.no_grad():
        text[2] = image[2]
        text[3] = -image[3]
    own = (image * text).sum(1).clamp(0, 1)
    for target in soft_targets(image, text, 0.3, weighting, tau=0.1, per_sample=True):
        torch.testing.assert_close(target.sum(1), torch.ones(6), atol=1e-6, rtol=0)
        torch.testing.assert_close(target.diag(), 1 - 0.3 * (1 - own), atol=1e-6, rtol=0)
        assert not target.requires_grad
        assert target[2, 2].item() == pytest.approx(1.0)
        assert target[3, 3].item() == pytest.approx(0.7)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_without_normalising_the_positive_stays_at_1_and_the_negatives_are_as_before(
    weighting, per_sample
):
    image, text, _ = pairs()
    usual = soft_targets(image, text, 0.3, weighting, tau=0.1, per_sample=per_sample)
    more = {"per_sample": per_sample, "normalise": False}
    others = soft_targets(image, text, 0.3, weighting, tau=0.1, **more)
    for target, other in zip(usual, others, strict=True):
        assert torch.equal(other.diag(), torch.ones(6))
        off = ~torch.eye(6, dtype=torch.bool)
        torch.testing.assert_close(other[off], target[off])
        torch.testing.assert_close(other.sum(1), 2 - target.diag())


def test_loss_without_normalising_by_hand():
    # cosines are the identity, scale 1: CE of (1, 0) against (1, a) is the hard one and a * log sum
    eye, log_sum = torch.eye(2), math.log(math.e + 1)
    loss = instance_loss(
        eye, eye, torch.tensor(0.0), mass=0.25, weighting="uniform", normalise=False
    )
    assert loss.item() == pytest.approx((log_sum - 1) + 0.25 * log_sum, abs=1e-6)


@pytest.mark.parametrize("switch", [{"per_sample": True}, {"normalise": False}])
def test_with_a_mass_of_0_every_switch_is_clips_loss(switch):
    a, b = pairs(), pairs()
    soft, hard = instance_loss(*a, mass=1e-9, **switch), instance_loss(*b)
    torch.testing.assert_close(soft, hard, atol=1e-6, rtol=0)
    assert instance_loss(*pairs(), mass=0.0, **switch).item() == hard.item()


def test_an_anneal_that_leaves_no_softening_is_refused_and_switches_move_no_key_by_themselves():
    values = {"objective.instance.a_max": 0.1, "objective.instance.anneal": "constant"}
    with pytest.raises(ConfigError, match=r"labels would never be soft"):
        override(RunConfig(), values)
    override(RunConfig(), {**values, "objective.instance.anneal_start": 0.5})
    assert override(RunConfig(), {"objective.instance.per_sample": True}).run_key == (
        RunConfig().run_key
    )


# --------------------------------------------------------------------------- a process's own rows


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("switch", [{}, {"per_sample": True}, {"normalise": False}])
@pytest.mark.parametrize("mass", [0.0, 0.3])
def test_the_mean_over_processes_of_their_own_rows_is_the_loss_of_the_batch(
    size, weighting, switch, mass
):
    generator = torch.Generator().manual_seed(0)
    found = []
    for parts in (1, size):
        generator.manual_seed(0)
        raw = torch.randn(2, 8, 6, generator=generator, dtype=torch.float64).requires_grad_()
        image, text = F.normalize(raw, dim=-1)
        scale = torch.tensor(2.6, dtype=torch.float64, requires_grad=True)
        own = 8 // parts
        losses = [
            instance_loss(
                image[first : first + own],
                text[first : first + own],
                scale,
                mass=mass,
                weighting=weighting,
                **switch,
                batch=None if parts == 1 else (image, text),
                first=first,
            )
            for first in range(0, 8, own)
        ]
        loss = torch.stack(losses).mean()
        loss.backward()
        found.append((loss.detach(), raw.grad, scale.grad))
    for whole, together in zip(*found, strict=True):
        torch.testing.assert_close(together, whole, rtol=1e-6, atol=1e-7)


class Peak(TorchDispatchMode):
    """The most bytes that lived at once of what was made within."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.most = set(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return made

    def _see(self, storage):
        if storage._cdata in self.live:
            return
        self.live.add(storage._cdata)
        self.now += storage.nbytes()
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, name, size):
        self.live.discard(name)
        self.now -= size


def peak(n: int, processes: int, **how) -> float:
    """In matrices (n, n) of fp32, forward and backward, on one of so many processes."""
    image, text = F.normalize(torch.randn(2, n, 16), dim=-1)
    own = n // processes
    batch = None if processes == 1 else (image.requires_grad_(), text.requires_grad_())
    mine = [t[:own].detach().requires_grad_() for t in (image, text)]
    with Peak() as seen:
        instance_loss(*mine, torch.tensor(2.6, requires_grad=True), batch=batch, **how).backward()
    return seen.most / (4 * n * n)


@pytest.mark.parametrize(
    ("how", "most"), [({}, 6.0), ({"mass": 0.1}, 11.0), ({"mass": 0.1, "weighting": "text"}, 11.0)]
)
def test_memory_falls_with_the_number_of_processes(how, most):
    whole = peak(512, 1, **how)
    assert whole < most
    assert peak(512, 8, **how) < 0.2 * whole
