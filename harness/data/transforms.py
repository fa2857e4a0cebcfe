"""Pixels in, pixels out: the training crop, and open_clip's own evaluation transform."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    to_grayscale,
)

from harness.config import ImageTower
from harness.data.images import Encoded

Look = Callable[[tuple[float, float], bool, np.random.Generator], np.ndarray]
"""Makes a view of one picture: see `train_view`, from the scale on."""
_RATIO = (3 / 4, 4 / 3)
_TRIES = 10
_COLOURS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


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
    quick: bool = False,
) -> np.ndarray:
    """One augmented view: uint8 (H, W, 3) to uint8 (size, size, 3), bicubic.

    `quick` resizes as `scaled_view` does, in place of Pillow.
    """
    box = crop_box(picture.shape[0], picture.shape[1], scale, rng)
    if quick:
        return _resized(picture, box, size, flip, rng)
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
    return _resized(picture.pixels(by), (left, top, right, bottom), size, flip, rng)


def _resized(
    pixels: np.ndarray,
    box: tuple[int, int, int, int],
    size: int,
    flip: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    left, top, right, bottom = box
    cut = torch.from_numpy(pixels[top:bottom, left:right].copy()).permute(2, 0, 1)
    view = interpolate(cut[None], (size, size), mode="bicubic", antialias=True)[0]
    if flip and rng.random() < 0.5:
        view = view.flip(-1)
    return view.permute(1, 2, 0).numpy()


def distort(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SimCLR's distortions of colour, and blur, of a view uint8 (S, S, 3), as SLIP has them.

    Brightness, contrast and saturation by 0.6 to 1.4 and hue by up to a tenth of its circle, in a
    drawn order, for 0.8 of the views; grey for 0.2; blurred for 0.5, with a sigma of 0.1 to 2
    pixels of a picture of 224.
    """
    picture = Image.fromarray(view)
    if rng.random() < 0.8:
        factors = [*rng.uniform(0.6, 1.4, 3), rng.uniform(-0.1, 0.1)]
        for which in rng.permutation(4):
            picture = _COLOURS[which](picture, factors[which])
    if rng.random() < 0.2:
        picture = to_grayscale(picture, num_output_channels=3)
    if rng.random() < 0.5:
        sigma = rng.uniform(0.1, 2.0) * len(view) / 224
        picture = picture.filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(picture)


def normalise(pictures: Tensor, tower: ImageTower) -> Tensor:
    """uint8 (N, S, S, 3) to float (N, 3, S, S), channels last in memory, mean and std removed."""
    mean, std = (_of_channels(values, pictures.device) for values in (tower.mean, tower.std))
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(1, C, 1, 1), filled on the device: `torch.tensor` would wait for a copy to a GPU."""
    filled = [torch.full((1, 1, 1, 1), value, device=device) for value in values]
    return torch.cat(filled, dim=1)


class EvaluationTransform:
    """open_clip's evaluation transform: shortest side to `size`, centre crop, normalise.

    `transform` is open_clip's own, of PIL images.
    """

    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform
        self.steps = tuple(getattr(transform, "transforms", ()))

    def __call__(self, picture: np.ndarray) -> Tensor:
        """uint8 (H, W, 3) to float (3, S, S)."""
        return self.transform(self.opened(picture))

    def opened(self, picture: np.ndarray) -> Image.Image:
        """A picture uint8 (H, W, 3) for the transform, whose memory is bounded.

        One that is so thin that its shortest side cannot be made `size` in reasonable memory is the
        crop of it already, to the bits of the transform: on that, resizing and cropping do nothing.
        """
        match self.steps[:2]:
            case (Resize(size=int(size), interpolation=how), CenterCrop(size=(height, width))) if (
                how in _FILTERS and size == height == width
            ):
                return _bounded(picture, size, _FILTERS[how])
        return Image.fromarray(picture)


def evaluation_transform(tower: ImageTower) -> EvaluationTransform:
    """The evaluation transform of a tower's pictures."""
    return EvaluationTransform(
        image_transform(tower.size, is_train=False, mean=tower.mean, std=tower.std)
    )


# --------------------------------------------------------------------------- thin pictures

_Filter = tuple[float, Callable[[np.ndarray], np.ndarray]]
"""Source pixels that it reaches on each side where nothing is made smaller, and its values."""

_FRACTION_BITS = 22
"""Of Pillow's fixed-point weights."""
_MOST_PIXELS = 1 << 24
"""Of a picture that is resized as a whole: 64 MiB in Pillow."""


def _bicubic(x: np.ndarray) -> np.ndarray:
    near = ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.select([x < 1, x < 2], [near, far], 0.0)


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.clip(1 - x, 0.0, None)


_FILTERS: dict[InterpolationMode, _Filter] = {
    InterpolationMode.BICUBIC: (2.0, _bicubic),
    InterpolationMode.BILINEAR: (1.0, _bilinear),
}


def _bounded(picture: np.ndarray, size: int, kernel: _Filter) -> Image.Image:
    """The picture, or the centre (size, size) of it resized, if that whole were too large."""
    height, width = picture.shape[:2]
    long = int(size * max(height, width) / min(height, width))  # as torchvision rounds it
    if long * size <= _MOST_PIXELS:
        return Image.fromarray(picture)
    first = round((long - size) / 2.0)
    down_first = height > width > size  # as Pillow does it, in two passes with bytes between them
    for axis in (0, 1) if down_first else (1, 0):
        out, start = (size, 0) if picture.shape[axis] == min(height, width) else (long, first)
        picture = _resampled(picture, axis, out, range(start, start + size), kernel)
    return Image.fromarray(picture)


def _resampled(
    picture: np.ndarray, axis: int, out: int, wanted: range, kernel: _Filter
) -> np.ndarray:
    """Of an axis resized to `out` pixels those `wanted`, to the bits of Pillow's `resize`."""
    inside = picture.shape[axis]
    scale = inside / out
    wide = max(scale, 1.0)
    support = kernel[0] * wide
    lines = np.moveaxis(picture, axis, 0)
    made = np.empty((len(wanted), *lines.shape[1:]), np.uint8)
    for place, at in enumerate(wanted):
        centre = (at + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), inside)
        weights = kernel[1](np.abs((np.arange(begin, end) - centre + 0.5) / wide))
        weights = np.round(weights / weights.sum() * (1 << _FRACTION_BITS)).astype(np.int64)
        total = np.tensordot(weights, lines[begin:end].astype(np.int64), axes=1)
        total += 1 << (_FRACTION_BITS - 1)
        made[place] = np.clip(total >> _FRACTION_BITS, 0, 255)
    return np.moveaxis(made, 0, axis)
