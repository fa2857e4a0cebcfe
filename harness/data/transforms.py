"""Pixels in, pixels out: the training crop, and open_clip's own evaluation transform."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from harness.config import ImageTower
from harness.data.images import Encoded

_RATIO = (3 / 4, 4 / 3)
_TRIES = 10


def crop_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random resized crop as (left, top, right, bottom) in pixels.

    The distribution is that of torchvision's RandomResizedCrop (area uniform in `scale`, aspect
    log-uniform in 3/4 to 4/3, the whole picture's centre after ten misses); the generator is the
    sample's own, so that the crop depends on neither worker nor order.
    """
    area = height * width
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    for _ in range(_TRIES):
        target = area * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def train_view(
    picture: np.ndarray,
    size: int,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """One augmented view: uint8 (H, W, 3) to uint8 (size, size, 3), bicubic."""
    box = crop_box(picture.shape[0], picture.shape[1], scale, rng)
    view = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box)
    if flip and rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def scaled_view(
    picture: Encoded,
    size: int,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """The crop and flip that `train_view` makes with the same draws, faster.

    Decoded no larger than it needs, the crop still at least `size` pixels wide and high, cut at
    whole pixels of what was decoded, and resized by torch's antialiased bicubic filter: its pixels
    differ a little from those of `train_view`.  Raises BadImage.
    """
    box = crop_box(picture.height, picture.width, scale, rng)
    least = min(box[2] - box[0], box[3] - box[1])
    by = max(r for r in picture.reductions() if r == 1 or least >= r * size)
    left, top, right, bottom = (round(edge / by) for edge in box)
    cut = torch.from_numpy(picture.pixels(by)[top:bottom, left:right].copy()).permute(2, 0, 1)
    view = interpolate(cut[None], (size, size), mode="bicubic", antialias=True)[0]
    if flip and rng.random() < 0.5:
        view = view.flip(-1)
    return view.permute(1, 2, 0).numpy()


def normalise(pictures: Tensor, tower: ImageTower) -> Tensor:
    """uint8 (N, S, S, 3) to float (N, 3, S, S), channels last in memory, mean and std removed."""
    mean = torch.tensor(tower.mean, device=pictures.device).view(1, 3, 1, 1)
    std = torch.tensor(tower.std, device=pictures.device).view(1, 3, 1, 1)
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std


class EvaluationTransform:
    """open_clip's evaluation transform: shortest side to `size`, centre crop, normalise.

    `transform` is open_clip's own, of PIL images.
    """

    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform

    def __call__(self, picture: np.ndarray) -> Tensor:
        """uint8 (H, W, 3) to float (3, S, S)."""
        return self.transform(Image.fromarray(picture))


def evaluation_transform(tower: ImageTower) -> EvaluationTransform:
    """The evaluation transform of a tower's pictures."""
    return EvaluationTransform(
        image_transform(tower.size, is_train=False, mean=tower.mean, std=tower.std)
    )
