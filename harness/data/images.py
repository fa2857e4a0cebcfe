"""Decoding: the bytes of a picture -> RGB pixels, one documented rule a colour mode.

Owns what a usable picture is; knows nothing of files, captions, sizes of models or augmentation.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from harness.errors import DataError

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


class BadImage(DataError):
    """Bytes that are no usable picture, and why."""


def decode(data: bytes, *, max_pixels: int) -> Pixels:
    """RGB pixels `(H, W, 3)`, uint8.

    The number of pixels is read from the header and checked before anything is decoded.  The EXIF
    orientation is applied; transparency is laid over white; grey is repeated over the channels;
    16-bit grey keeps its range (65,535 -> 255); CMYK and other colour spaces are converted; of an
    animation the first frame counts.  A truncated file is refused, never filled up.

    Raises BadImage with the reason.
    """
    return Encoded(data, max_pixels=max_pixels).pixels()


class Encoded:
    """A picture of which the header was read and found in order.

    Attributes:
        format: Pillow's name of it, such as JPEG.
        width, height: as it is shown, the EXIF orientation applied.
    """

    def __init__(self, data: bytes, *, max_pixels: int) -> None:
        """Raises BadImage as `decode` does."""
        self._picture = _open(data)
        self.format = str(self._picture.format)
        self.width, self.height = self._picture.size
        if self.width * self.height > max_pixels:
            raise BadImage(f"{self.width} x {self.height} pixels, {max_pixels} are allowed")
        try:
            turned = self._picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
        except _BROKEN as error:
            raise self._broken(error) from error
        if turned:
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
