"""Embeddings once each, in order, with bad pictures counted and collapse refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import Evaluate, Runtime
from harness.device import resolve_precision
from harness.errors import ConfigError, DataError, InvariantError
from harness.evaluate.embed import embed_images, embed_texts

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
EVALUATE = Evaluate(batch_size=2)


def images(model: Any, data: Any, **runtime: Any) -> Any:
    return embed_images(model, data, data.split("test").images, EVALUATE, Runtime(**runtime))


def test_pictures_keep_their_order_over_batches(model: Any, make_data: Callable[..., Any]) -> None:
    data = make_data({"a": (BLUE, ()), "b": (RED, ()), "c": (GREEN, ())})
    found = images(model, data)
    assert torch.equal(found.embeddings, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    assert (found.kept, found.problems, model.image_batches) == ((0, 1, 2), (), [2, 1])


def test_worker_processes_change_nothing(model: Any, make_data: Callable[..., Any]) -> None:
    data = make_data({"a": (BLUE, ()), "b": (RED, ()), "c": (b"junk", ()), "d": (GREEN, ())})
    alone = images(model, data, max_bad_fraction=0.5)
    shared = images(model, data, max_bad_fraction=0.5, workers=1)
    assert torch.equal(alone.embeddings, shared.embeddings)
    assert (alone.kept, alone.problems) == (shared.kept, shared.problems)


def test_bad_pictures_are_left_out_and_named(model: Any, make_data: Callable[..., Any]) -> None:
    data = make_data({"a": (RED, ()), "page": (b"<html>", ()), "c": (GREEN, ())})
    del data.files["c"]
    found = images(model, data, max_bad_fraction=0.7)
    assert found.kept == (0,)
    assert [problem.where for problem in found.problems] == ["page", "c"]
    assert all(problem.reason for problem in found.problems)


def test_too_many_bad_pictures_fail_with_the_list(
    model: Any, make_data: Callable[..., Any]
) -> None:
    data = make_data({"a": (RED, ()), "page.jpg": (b"<html>", ()), "c": (GREEN, ())})
    message = r"1 of 3 pictures .* more than max_bad_fraction = 0\.3: page\.jpg: "
    with pytest.raises(DataError, match=message):
        images(model, data, max_bad_fraction=0.3)


def test_nothing_left_is_an_error_however_much_is_allowed(
    model: Any, make_data: Callable[..., Any]
) -> None:
    with pytest.raises(DataError, match="no picture to evaluate is left"):
        images(model, make_data({"a": (b"<html>", ())}), max_bad_fraction=1.0)


def test_a_text_is_embedded_once_and_texts_are_batched_by_length(model: Any) -> None:
    texts = ["red and green and blue", "red", "blue", "red", "a small green one"]
    found = embed_texts(model, texts, EVALUATE)
    third, half = 3**-0.5, 1.0
    wanted = [[third] * 3, [half, 0, 0], [0, 0, half], [half, 0, 0], [0, half, 0]]
    assert torch.allclose(found, torch.tensor(wanted))
    assert model.tokenizer.seen == ["red and green and blue", "red", "blue", "a small green one"]
    # Two short ones cut to two words, an end and one column of padding; then the long ones.
    assert model.text_batches == [(2, 3), (2, 6)]


def test_modules_get_their_own_mode_back(model: Any, make_data: Callable[..., Any]) -> None:
    model.train()
    model.text.eval()
    images(model, make_data({"a": (RED, ()), "b": (GREEN, ())}))
    assert (model.training, model.image.training, model.text.training) == (True, True, False)


def test_random_state_is_left_alone(model: Any, make_data: Callable[..., Any]) -> None:
    before = torch.random.get_rng_state()
    images(model, make_data({"a": (RED, ()), "b": (GREEN, ())}))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nan_is_refused(model: Any, make_data: Callable[..., Any]) -> None:
    model.image[2].bias.data.fill_(float("nan"))
    with pytest.raises(InvariantError, match="2 of 2 picture embeddings hold NaN"):
        images(model, make_data({"a": (RED, ()), "b": (GREEN, ())}))


def test_collapsed_image_tower_is_refused(model: Any, make_data: Callable[..., Any]) -> None:
    model.image[2].weight.data.zero_()
    model.image[2].bias.data.fill_(1.0)
    with pytest.raises(InvariantError, match="all 2 picture embeddings are equal"):
        images(model, make_data({"a": (RED, ()), "b": (GREEN, ())}))


def test_barely_different_embeddings_are_no_collapse(
    model: Any, make_data: Callable[..., Any]
) -> None:
    model.image[2].weight.data.mul_(1e-4)
    model.image[2].bias.data.fill_(1.0)
    found = images(model, make_data({"a": (RED, ()), "b": (GREEN, ())}))
    assert float((found.embeddings[0] - found.embeddings[1]).abs().max()) < 1e-3


def test_one_picture_is_no_collapse(model: Any, make_data: Callable[..., Any]) -> None:
    assert images(model, make_data({"a": (RED, ())})).kept == (0,)


def test_collapsed_text_tower_is_refused(model: Any) -> None:
    model.text.token_embedding.weight.data.zero_()
    model.text.token_embedding.weight.data[5] = 1.0
    with pytest.raises(InvariantError, match="all 2 text embeddings are equal"):
        embed_texts(model, ["red", "green"], EVALUATE)


def test_texts_of_equal_tokens_are_no_collapse(model: Any) -> None:
    # Neither word is in the vocabulary: both become the same ids, and no tower tells them apart.
    model.text.token_embedding.weight.data[1] = 1.0
    found = embed_texts(model, ["zebra", "giraffe"], EVALUATE)
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("asked", "device", "used"),
    [
        ("auto", "cpu", "fp32"),
        ("auto", "cuda", "bf16"),
        ("fp32", "cuda", "fp32"),
        ("bf16", "cuda", "bf16"),
    ],
)
def test_precision(asked: Any, device: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.device._has_bf16", lambda device: True)
    assert resolve_precision(asked, torch.device(device), "evaluate.precision") == used


def test_bf16_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="'bf16' needs a GPU, this is cpu"):
        resolve_precision("bf16", torch.device("cpu"), "evaluate.precision")


def test_a_batch_is_normalised_to_the_bits_of_open_clips_own_transform(
    make_data: Callable[..., Any],
) -> None:
    from harness.config import ImageTower
    from harness.data.transforms import evaluation_transform
    from harness.evaluate import embed

    rng = np.random.default_rng(0)
    preprocess = evaluation_transform(ImageTower(size=24))
    view, finish = embed._halves(preprocess)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((30, 41, 3), (9, 7, 3))]
    batch = finish(torch.stack([view(picture) for picture in pictures]))
    assert torch.equal(batch, torch.stack([preprocess(picture) for picture in pictures]))


def test_a_transform_of_unknown_making_is_left_whole(
    model: Any, make_data: Callable[..., Any]
) -> None:
    data = make_data({"a": (BLUE, ()), "b": (RED, ())})
    names = data.split("test").images
    found = embed_images(model, data, names, EVALUATE, Runtime(), by_batch=True)
    assert torch.equal(found.embeddings, images(model, data).embeddings)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("wide", [True, False])
def test_what_is_cropped_before_it_is_resized_has_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, interpolation: str, wide: bool
) -> None:
    from open_clip.transform import image_transform

    from harness.data import transforms

    monkeypatch.setattr(transforms, "_MOST_PIXELS", 0)
    rng = np.random.default_rng(1)
    for short, more, size in [(1, 77, 8), (2, 90, 24), (7, 151, 7), (9, 200, 4), (30, 31, 11)]:
        shape = (short, short + more, 3) if wide else (short + more, short, 3)
        picture = rng.integers(0, 256, shape, np.uint8)
        whole = image_transform(size, is_train=False, interpolation=interpolation)
        made = transforms.EvaluationTransform(whole)(picture)
        assert torch.equal(made, whole(Image.fromarray(picture))), (shape, size)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 90_000)])
@pytest.mark.parametrize("by_batch", [True, False])
def test_a_thin_picture_takes_no_more_memory_than_others(
    shape: tuple[int, int], by_batch: bool
) -> None:
    import resource

    from harness.config import ImageTower
    from harness.data.transforms import evaluation_transform
    from harness.evaluate import embed

    preprocess = evaluation_transform(ImageTower(size=224))
    view = embed._halves(preprocess)[0] if by_batch else preprocess
    view(np.zeros((300, 400, 3), np.uint8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    view(np.full((*shape, 3), 7, np.uint8))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_what_no_view_can_be_made_of_is_left_out_by_name(
    model: Any, make_data: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(picture: np.ndarray) -> torch.Tensor:
        if picture[0, 0, 0] > 0:
            raise MemoryError
        return whole(picture)

    whole = model.preprocess
    monkeypatch.setattr(model, "preprocess", refusing)
    with pytest.raises(DataError, match=r"1 of 3 pictures cannot be evaluated.*a: MemoryError"):
        images(model, make_data({"a": (RED, ()), "b": (GREEN, ()), "c": (BLUE, ())}))
