import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import RunConfig, Runtime, override
from harness.data.loader import Batches
from harness.data.text import Tokenizer
from harness.data.transforms import crop_box, evaluation_transform, normalise
from harness.errors import ConfigError
from harness.seeding import generator
from tests.conftest import memory_data

CONFIG = override(
    RunConfig(), {"train.batch_size": 5, "train.samples": 42, "model.image.size": 16, "seed": 3}
)


def stream(data=None, config=CONFIG, first=0, **runtime):
    batches = Batches(data or memory_data(), Tokenizer(16), config, Runtime(**runtime))
    return list(batches.start(first))


def same(a, b):
    return torch.equal(a.pictures, b.pictures) and torch.equal(a.tokens, b.tokens)


def test_budget_is_in_samples_rounded_up_to_a_batch():
    assert len(stream()) == 9  # 42 samples, batches of 5


def test_an_epoch_shows_no_picture_twice_and_drops_its_incomplete_batch():
    batches = Batches(memory_data(), Tokenizer(16), CONFIG, Runtime())
    addresses = list(itertools.chain(*batches.addresses()))
    assert batches.per_epoch == 4
    first_epoch = [a.index for a in addresses if a.epoch == 0]
    assert len(first_epoch) == len(set(first_epoch)) == 20
    assert [a.index for a in addresses if a.epoch == 1] != first_epoch


def test_a_stream_that_starts_later_is_the_tail_of_the_whole():
    whole, tail = stream(), stream(first=5)
    assert len(tail) == 4
    assert all(same(a, b) for a, b in zip(whole[5:], tail, strict=True))


def test_workers_do_not_change_what_is_seen():
    assert all(same(a, b) for a, b in zip(stream(), stream(workers=2), strict=True))


def test_a_cache_too_small_for_any_picture_changes_nothing():
    assert all(same(a, b) for a, b in zip(stream(), stream(decode_cache_mb=0), strict=True))


@pytest.mark.parametrize("way", ["full", "scaled"])
def test_turbo_shows_the_same_crops_a_few_levels_off_and_no_others(way):
    shades = np.random.default_rng(0).integers(0, 256, (15, 5, 5, 3), np.uint8)
    data = memory_data()
    for name, shade in zip(sorted(data.files), shades, strict=False):
        file = io.BytesIO()
        picture = Image.fromarray(shade).resize((80, 70), Image.Resampling.BICUBIC)
        picture.save(file, "JPEG", quality=95)
        data.files[name] = file.getvalue()
    config = override(CONFIG, {"data.decode": way, "data.flip": True})
    plain, quick = stream(data, config), stream(data, override(config, {"data.decoder": "turbo"}))
    for a, b in zip(plain, quick, strict=True):
        gap = (a.pictures.int() - b.pictures.int()).abs()
        assert gap.float().mean() < (0.5 if way == "full" else 1e-9)
        assert gap.max() < 30
        assert torch.equal(a.tokens, b.tokens)


def test_turbo_wants_its_package(monkeypatch):
    monkeypatch.setattr("harness.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"data\.decoder = 'turbo' needs simplejpeg"):
        stream(config=override(CONFIG, {"data.decoder": "turbo"}))


def test_another_seed_gives_other_pictures():
    other = override(CONFIG, {"seed": 4})
    assert not any(same(a, b) for a, b in zip(stream(), stream(config=other), strict=True))


def test_an_unusable_picture_is_replaced_by_its_neighbour_and_reported():
    data = memory_data()
    data.files["003.png"] = b"<html>not a picture</html>"
    problems = [p.where for batch in stream(data) for p in batch.problems]
    assert set(problems) == {"003.png"}
    assert all(len(batch.pictures) == 5 for batch in stream(data))


def test_crops_have_the_area_and_aspect_asked_for():
    boxes = [crop_box(60, 80, (0.5, 1.0), generator(0, i)) for i in range(300)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 80
        assert 0 <= top < bottom <= 60
        assert 0.49 < (right - left) * (bottom - top) / 4800 <= 1
    aspects = [(r - x) / (b - y) for x, y, r, b in boxes]
    assert 0.74 < min(aspects) < 0.9
    assert 1.1 < max(aspects) < 1.36


def test_a_picture_too_narrow_for_any_aspect_gives_its_centre():
    assert crop_box(100, 10, (1.0, 1.0), generator(0)) == (0, 43, 10, 56)


def test_normalise_and_the_evaluation_transform_agree():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    tower = CONFIG.model.image
    ours = normalise(torch.from_numpy(picture)[None], tower)[0]
    torch.testing.assert_close(ours, evaluation_transform(tower)(picture), atol=1e-6, rtol=0)
