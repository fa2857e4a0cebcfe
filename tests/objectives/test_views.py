"""SLIP's further views: their loss by loops, and that the loader moves nothing else for them."""

import io
import math
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from harness.config import RunConfig, Runtime, override
from harness.data.images import Encoded
from harness.data.loader import Batches
from harness.data.text import Tokenizer
from harness.data.transforms import distort, scaled_view
from harness.models.training import TrainingModel
from harness.objectives.views import Views, views_loss
from harness.seeding import generator
from tests.conftest import memory_data
from tests.train.rank_cases import CLIP, RIVALS


def views(n=4, d=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, d, generator=rng, dtype=torch.float64) for _ in range(2))
    return [F.normalize(one, dim=-1).requires_grad_() for one in made]


def loss_of(first, second, tau=0.3):
    return views_loss(first, second, tau, batch=(first, second))


def naive(first, second, tau=0.3):
    """Equation 1 of SimCLR, over the 2 N views one by one."""
    every = [*first, *second]
    n, loss = len(first), 0.0
    for i, view in enumerate(every):
        others = [k for k in range(2 * n) if k != i]
        scores = torch.stack([view @ every[k] / tau for k in others])
        loss = loss - scores.log_softmax(0)[others.index((i + n) % (2 * n))] / (2 * n)
    return loss


def test_it_is_simclrs_in_value_and_gradient():
    ours, theirs = views(), views()
    loss, expected = loss_of(*ours), naive(*theirs)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(loss_of, views())


def test_two_pictures_by_hand():
    # of each view the partner has cosine 1, and the two of the other picture 0
    eye = torch.eye(2)
    expected = math.log(1 + 2 * math.exp(-1))
    assert loss_of(eye, eye, tau=1.0).item() == pytest.approx(expected, abs=1e-6)


def test_one_picture_has_nothing_to_be_told_from_and_nan_reaches_the_loss():
    first, second = views(n=1)
    assert loss_of(first, second).item() == 0
    assert loss_of(first * math.nan, second).isnan()


# --------------------------------------------------------------------------- the loader

PLAIN = override(
    RunConfig(), {"train.batch_size": 5, "train.samples": 42, "model.image.size": 16, "seed": 3}
)
SEEN = override(PLAIN, {"objective.views.weight": 1.0})


def stream(config=SEEN, first=0, **runtime):
    batches = Batches(memory_data(), Tokenizer(16), config, Runtime(**runtime))
    return list(batches.start(first))


@pytest.mark.parametrize("decode", ["full", "scaled"])
def test_further_views_leave_pictures_and_captions_as_they_were(decode):
    decoded = {"data.decode": decode}
    plain, seen = stream(override(PLAIN, decoded)), stream(override(SEEN, decoded))
    for a, b in zip(plain, seen, strict=True):
        assert torch.equal(a.pictures, b.pictures)
        assert torch.equal(a.tokens, b.tokens)
        assert a.views == {}
        assert b.views["views"].shape == (5, 2, 16, 16, 3)
        assert b.views["views"].dtype == torch.uint8


def test_each_view_is_of_a_picture_decoded_for_its_own_crop():
    """A crop of a JPEG that is large enough is decoded smaller, which the next one's may not be."""
    rows, columns = np.mgrid[0:256, 0:256]
    pixels = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    data, config = memory_data(), override(SEEN, {"data.decode": "scaled"})
    data.files.update(dict.fromkeys(data.split("train").images, file.getvalue()))
    whole = data.split("train").images
    batches = Batches(data, Tokenizer(16), config, Runtime()).start(0)
    found = {pair.numpy().tobytes() for batch in batches for pair in batch.views["views"]}
    area = config.objective.views.least_area
    expected = set()
    for epoch, place in product(range(3), range(len(whole))):
        rng = generator(config.seed, "sample", epoch, place, "views")
        views = []
        for _ in range(2):
            picture = Encoded(file.getvalue(), max_pixels=10**6)
            views.append(distort(scaled_view(picture, 16, (area, 1.0), True, rng), rng))
        expected.add(np.stack(views).tobytes())
    assert len(found) > 40
    assert found <= expected


def test_views_are_functions_of_seed_epoch_and_sample():
    whole = [batch.views["views"] for batch in stream()]
    for other in (stream(workers=2), stream(decode_cache_mb=0)):
        assert all(torch.equal(a, b.views["views"]) for a, b in zip(whole, other, strict=True))
    tail = [batch.views["views"] for batch in stream(first=5)]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], tail, strict=True))
    each = {view.numpy().tobytes() for batch in whole for pair in batch for view in pair}
    assert len(each) == 2 * 45  # no view of a later epoch is one of an earlier
    moved = [batch.views["views"] for batch in stream(override(SEEN, {"seed": 4}))]
    assert not any(torch.equal(a, b) for a, b in zip(whole, moved, strict=True))


@pytest.mark.parametrize(("height", "untouched"), [(4, 0.2 * 0.8), (224, 0.2 * 0.8 * 0.5)])
def test_distortions_are_as_frequent_as_in_the_paper(height, untouched):
    # the blur is by less than a tenth of a pixel where a picture has four
    noise = np.random.default_rng(0).integers(0, 256, (height, 4, 3), dtype=np.uint8)
    made = [distort(noise, generator(0, i)) for i in range(400)]
    assert all(view.dtype == np.uint8 and view.shape == noise.shape for view in made)
    same = sum(np.array_equal(view, noise) for view in made) / 400
    grey = sum(np.ptp(view.astype(int), axis=-1).max() == 0 for view in made) / 400
    assert same == pytest.approx(untouched, abs=0.05)
    assert grey == pytest.approx(0.2, abs=0.05)
    assert np.array_equal(made[7], distort(noise, generator(0, 7)))


def test_one_view_finds_the_one_that_meets_the_caption():
    config = override(CLIP, {**RIVALS["views"], "model.text.vocabulary": "full"})
    one, two = (
        TrainingModel(override(config, {"objective.views.count": n}), None).eval() for n in (1, 2)
    )
    pixels, ids = torch.rand(3, 3, 32, 32), torch.tensor([[49_406, 320, 49_407]] * 3)
    crops = torch.randint(0, 256, (3, 2, 32, 32, 3), dtype=torch.uint8)
    found = {
        n: model(pixels, ids, {"views": Views(crops[:, :n])}).of_terms["views"]
        for n, model in ((1, one), (2, two))
    }
    torch.testing.assert_close(found[1].second, found[2].first)
    pooled = one.model.image.pool(one.model.image.features(pixels))
    torch.testing.assert_close(found[1].first, F.normalize(one.views(pooled), dim=-1))
    assert "views" not in one(pixels, ids).of_terms  # outside of training there are none
