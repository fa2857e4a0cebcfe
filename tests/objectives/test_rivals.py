"""The terms that LightCLIP is compared with, in training: processes, parts, and a run cut off."""

from functools import partial

import pytest
import torch

from harness.config import override
from harness.errors import ConfigError
from harness.files import read_jsonl
from harness.models.image import check_image_tower
from harness.train.distributed import SINGLE_PROCESS
from tests.train.rank_cases import (
    CLIP,
    RIVALS,
    VIT,
    after,
    assert_same,
    gradients,
    on_ranks,
    trainer,
    weights,
)

TOGETHER = {name: value for values in RIVALS.values() for name, value in values.items()} | {
    "objective.instance.weight": 1.0
}


def of_each(folder, ranks=SINGLE_PROCESS):
    """What the second step of every rival leaves: the queue is not empty then."""
    cases = {**RIVALS, "views of parts": {**RIVALS["views"], "train.norm_batch": 4}}
    return {
        name: gradients(after(trainer(folder / name, override(CLIP, values), ranks), 2))
        for name, values in cases.items()
    }


@pytest.mark.usefixtures("in_64_bits")
def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path):
    alone = of_each(tmp_path / "alone")
    first, second = on_ranks(tmp_path, 2, partial(of_each, tmp_path / "runs"))
    for name, expected in alone.items():
        assert_same(first[name], expected, 1e-8)
        for parameter, value in first[name].items():
            assert torch.equal(second[name][parameter], value), (name, parameter)


@pytest.mark.usefixtures("in_64_bits")
@pytest.mark.parametrize("name", [name for name in RIVALS if name != "views"])
def test_parts_have_the_gradients_of_the_whole(tmp_path, name):
    config = override(CLIP, {**VIT, **RIVALS[name]})
    whole = gradients(after(trainer(tmp_path / "whole", config), 2))
    parts = gradients(after(trainer(tmp_path / "parts", config, micro_batch=3), 2))
    assert_same(parts, whole, 1e-8)


def test_parts_that_a_head_with_batchnorm_would_see_are_refused(tmp_path):
    config = override(CLIP, {**VIT, **RIVALS["views"]})
    with pytest.raises(ConfigError, match=r"micro_batch would change .* views\.1 \(BatchNorm1d\)"):
        trainer(tmp_path, config, micro_batch=4)


def to_the_end(folder, ranks=SINGLE_PROCESS):
    t = trainer(folder, override(CLIP, TOGETHER), ranks)
    t.train(lambda: False)
    return weights(t)


def stopped(folder, steps, ranks=SINGLE_PROCESS):
    after(trainer(folder, override(CLIP, TOGETHER), ranks), steps)


def test_a_run_cut_off_and_resumed_has_the_same_bits_and_the_same_log(tmp_path):
    whole = to_the_end(tmp_path / "whole")
    for _ in range(2):
        stopped(tmp_path / "cut", 2)
    resumed = to_the_end(tmp_path / "cut")
    assert whole["nearest.pushed"] == 48
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    told = [
        [(line["samples_seen"], line["loss"]) for line in read_jsonl(log)]
        for log in sorted(tmp_path.glob("*/*/metrics.jsonl"))
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 6


@pytest.mark.usefixtures("in_64_bits")
def test_a_run_goes_on_with_another_number_of_processes_and_the_same_queue(tmp_path):
    whole = to_the_end(tmp_path / "whole")
    on_ranks(tmp_path / "before", 2, partial(stopped, tmp_path / "cut", 3))
    assert_same(to_the_end(tmp_path / "cut"), whole, 1e-8)


@pytest.mark.parametrize("name", RIVALS)
def test_off_it_is_in_no_key_and_on_it_is(name):
    values = RIVALS[name]
    off = {path: value for path, value in values.items() if not path.endswith(".weight")}
    if "a_max" not in str(values):
        assert override(CLIP, off).run_key == CLIP.run_key
    assert override(CLIP, values).run_key != CLIP.run_key


@pytest.mark.parametrize("name", ["late", "grouped"])
def test_a_tower_without_patches_is_refused_before_training(name):
    config = override(CLIP, {**RIVALS[name], "model.image.output_stride": None})
    image = config.model.image
    (term,) = [t for n, t in config.objective.active.items() if n == name]
    with pytest.raises(ConfigError, match=r"single patch for 32-pixel pictures.*at least 2 x 2"):
        check_image_tower(image, config.model.embed_dim, patches=term.needs_patches)


def test_two_weights_of_zero_leave_nothing_to_learn():
    with pytest.raises(ConfigError, match="every term of the loss has weight 0"):
        override(CLIP, {"objective.instance.weight": 0.0, "objective.late.weight": 0.0})
