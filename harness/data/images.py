"""Decoding: the bytes of a picture -> RGB pixels, one documented rule a colour mode.

Owns what a usable picture is; knows nothing of files, captions, sizes of models or augmentation.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from harness.errors import DataError, require

#: The formats that data sets hold; none that runs an external program (EPS) is among them.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")

#: What Pillow's decoders raise on bytes that are not what their header says.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

#: EXIF orientations that exchange width and height.
_TURNED = frozenset({5, 6, 7, 8})

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")


class BadImage(DataError):
    """Bytes that are no usable picture, and why."""


def decode(data: bytes, *, max_pixels: int, turbo: bool = False) -> Pixels:
    """RGB pixels `(H, W, 3)`, uint8; `turbo` as of `Encoded`.

    The number of pixels is read from the header and checked before anything is decoded.  The EXIF
    orientation is applied; transparency is laid over white; grey is repeated over the channels;
    16-bit grey keeps its range (65,535 -> 255); CMYK and other colour spaces are converted; of an
    animation the first frame counts.  A truncated file is refused, never filled up.

    Raises BadImage with the reason.
    """
    return Encoded(data, max_pixels=max_pixels, turbo=turbo).pixels()


class Encoded:
    """A picture of which the header was read and found in order.

    Attributes:
        format: Pillow's name of it, such as JPEG.
        width, height: as it is shown, the EXIF orientation applied.
    """

    def __init__(self, data: bytes, *, max_pixels: int, turbo: bool = False) -> None:
        """Raises BadImage as `decode` does.

        With `turbo` a plain JPEG is decoded by libjpeg-turbo itself (simplejpeg), without Pillow's
        detours; what it finds anything wrong with, and all else, by Pillow, which then says what is
        accepted.
        """
        self._picture = _open(data)
        self.format = str(self._picture.format)
        self.width, self.height = self._picture.size
        if self.width * self.height > max_pixels:
            raise BadImage(f"{self.width} x {self.height} pixels, {max_pixels} are allowed")
        try:
            orientation = self._picture.getexif().get(ExifTags.Base.Orientation)
        except _BROKEN as error:
            raise self._broken(error) from error
        plain = self.format == "JPEG" and self._picture.mode in {"RGB", "L"}
        self._jpeg = data if turbo and plain and orientation in {None, 1} else None
        if orientation in _TURNED:
            self.width, self.height = self.height, self.width

    def reductions(self) -> tuple[int, ...]:
        """By what a picture can be made smaller while it is decoded: of a JPEG, 1, 2, 4 and 8."""
        return (1, 2, 4, 8) if self.format == "JPEG" else (1,)

    def pixels(self, reduction: int = 1) -> Pixels:
        """RGB pixels `(ceil(height / reduction), ceil(width / reduction), 3)`; once only.

        A reduction averages within the blocks of a JPEG's cosine transform, before its pixels are
        made, which is what takes the time.

        Raises BadImage as `decode` does.
        """
        picture = self._picture
        quick = None if self._jpeg is None else _turbo(self._jpeg, *picture.size, reduction)
        if quick is not None:
            return quick
        try:
            if reduction > 1:
                width, height = picture.size
                picture.draft("RGB", (max(1, width // reduction), max(1, height // reduction)))
            ImageOps.exif_transpose(picture, in_place=True)
            return _to_rgb(picture)
        except _BROKEN as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> BadImage:
        return BadImage(f"broken {self.format}: {error}")


class KeptPictures:
    """What was made of pictures, kept while it fits into a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._items: dict[int, Any] = {}

    def get(self, index: int, make: Callable[[], T]) -> T:
        """What was kept of picture `index`, or else is made: bytes, or an array."""
        item: T | None = self._items.get(index)
        if item is None:
            item = make()
            size = memoryview(item).nbytes  # type: ignore[arg-type]
            if size <= self._left:
                self._items[index] = item
                self._left -= size
        return item


# --------------------------------------------------------------------------- libjpeg-turbo

_EIGHTHS_ARE_FAR_APART = 64
"""Pixels of a side from which on a reduction gives a size that no other fraction gives."""


def check_turbo(why: str) -> None:
    """ConfigError, which begins with `why`, unless simplejpeg is installed."""
    require(why, ["simplejpeg"], extra="turbo")


@lru_cache(maxsize=1)
def turbo_is_exact() -> bool:
    """Whether simplejpeg is here and gives the bits that Pillow gives, tried on JPEGs made here.

    Of each sampling of colours, sequential and progressive, in sizes that blocks do not fill.
    """
    if find_spec("simplejpeg") is None:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (83, 117, 3), np.uint8)
    for made in (Image.fromarray(noise), Image.fromarray(noise[..., 0])):
        for sampling, progressive in ((0, False), (1, False), (2, False), (2, True)):
            file = io.BytesIO()
            made.save(file, "JPEG", quality=80, subsampling=sampling, progressive=progressive)
            for reduction in (1, 2, 4, 8):
                here, there = (
                    Encoded(file.getvalue(), max_pixels=noise.size, turbo=turbo).pixels(reduction)
                    for turbo in (True, False)
                )
                if not np.array_equal(here, there):
                    return False
    return True


def _turbo(data: bytes, width: int, height: int, reduction: int) -> Pixels | None:
    """The pixels; None where libjpeg-turbo warns of anything or reads another header."""
    import simplejpeg

    if reduction > 1 and min(width, height) < _EIGHTHS_ARE_FAR_APART:
        return None
    size = (-(-height // reduction), -(-width // reduction))
    scale = {"min_height": size[0], "min_width": size[1], "min_factor": reduction}
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        found: Pixels = simplejpeg.decode_jpeg(data, **(scale if reduction > 1 else {}))
    except ValueError:
        return None
    return found if found.shape == (*size, 3) else None


# --------------------------------------------------------------------------- Pillow


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Those wanted that this Pillow was built to read."""
    Image.init()
    return [name for name in _WANTED if name in Image.OPEN]


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("empty file")
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        start = data[:64].lstrip().lower()
        kind = "an HTML or XML page" if start.startswith(b"<") else "no picture"
        raise BadImage(f"{kind}, begins with {data[:12]!r}") from None
    except Image.DecompressionBombError as error:
        raise BadImage(str(error)) from error
    except _BROKEN as error:
        raise BadImage(f"broken header: {error}") from error


def _to_rgb(picture: Image.Image) -> Pixels:
    if picture.mode in {"I", "F"} or picture.mode.startswith("I;16"):
        return _wide_grey(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        picture = Image.alpha_composite(white, layer)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _wide_grey(picture: Image.Image) -> Pixels:
    # Pillow's own conversion clips everything above 255 to white.
    if picture.mode == "F":
        raise BadImage("floating-point pixels have no defined white")
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise BadImage(f"grey values {values.min()}..{values.max()} are outside 16 bits")
    grey = ((values * 255 + 32_767) // 65_535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
