"""Decoding: one hand-made picture a colour mode, with the pixels worked out by hand."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from harness.data import images
from harness.data.files import is_image
from harness.data.images import BadImage, decode
from harness.errors import ConfigError, how_to_install

RED, BLUE, WHITE, BLACK = [255, 0, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]
ENOUGH = 10_000


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def row(mode: str, *values: object) -> Image.Image:
    picture = Image.new(mode, (len(values), 1))
    picture.putdata(values)
    return picture


def test_rgb_is_kept_as_it_is():
    pixels = decode(encoded(row("RGB", (255, 0, 0), (1, 2, 3))), max_pixels=ENOUGH)
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[RED, [1, 2, 3]]]


def test_grey_is_repeated_over_the_channels():
    assert decode(encoded(row("L", 0, 77)), max_pixels=ENOUGH).tolist() == [[BLACK, [77, 77, 77]]]


def test_one_bit_is_black_and_white():
    assert decode(encoded(row("1", 0, 255)), max_pixels=ENOUGH).tolist() == [[BLACK, WHITE]]


def test_grey_with_alpha_is_laid_over_white():
    # 100 at 20 % over white: 0.2 * 100 + 0.8 * 255 = 224
    picture = row("LA", (100, 255), (100, 0), (100, 51))
    assert decode(encoded(picture), max_pixels=ENOUGH)[0, :, 0].tolist() == [100, 255, 224]


def test_alpha_is_laid_over_white():
    # red at 40 % over white: green = 0.6 * 255 = 153
    picture = row("RGBA", (255, 0, 0, 255), (0, 0, 0, 0), (255, 0, 0, 102))
    assert decode(encoded(picture), max_pixels=ENOUGH).tolist() == [[RED, WHITE, [255, 153, 153]]]


def test_palette_is_looked_up():
    picture = row("P", 1, 0)
    picture.putpalette([0, 0, 255, 255, 0, 0])
    assert decode(encoded(picture), max_pixels=ENOUGH).tolist() == [[RED, BLUE]]


def test_transparent_palette_entry_is_white_whatever_its_colour():
    picture = row("P", 0, 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    data = encoded(picture, transparency=0)
    assert decode(data, max_pixels=ENOUGH).tolist() == [[WHITE, RED]]


def test_transparent_grey_value_is_white():
    data = encoded(row("L", 0, 77), transparency=0)
    assert decode(data, max_pixels=ENOUGH).tolist() == [[WHITE, [77, 77, 77]]]


def test_cmyk_is_converted():
    data = encoded(row("CMYK", (0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)), "TIFF")
    assert decode(data, max_pixels=ENOUGH).tolist() == [[WHITE, RED, BLACK]]


def test_16_bit_grey_keeps_its_range():
    # 257 is one step of 8 bits; 1,000 / 65,535 * 255 = 3.9
    values = np.array([[0, 257, 1_000, 32_768, 65_535]], dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(values)), max_pixels=ENOUGH)
    assert pixels[0, :, 0].tolist() == [0, 1, 4, 128, 255]
    assert (pixels == pixels[:, :, :1]).all()


def test_32_bit_grey_outside_16_bits_is_refused():
    data = encoded(row("I", 0, 70_000), "TIFF")
    with pytest.raises(BadImage, match=r"0\.\.70000 are outside 16 bits"):
        decode(data, max_pixels=ENOUGH)


def test_floating_point_is_refused():
    with pytest.raises(BadImage, match="floating-point"):
        decode(encoded(row("F", 0.5), "TIFF"), max_pixels=ENOUGH)


def test_first_frame_of_an_animation():
    first, second = row("RGB", (255, 0, 0)), row("RGB", (0, 0, 255))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert decode(data, max_pixels=ENOUGH).tolist() == [[RED]]


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the picture a quarter turn clockwise
    data = encoded(row("RGB", (255, 0, 0), (0, 0, 255)), exif=exif)
    assert decode(data, max_pixels=ENOUGH).tolist() == [[RED], [BLUE]]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF"])
def test_customary_formats_are_read(kind):
    pixels = decode(encoded(Image.new("RGB", (5, 4), "white"), kind), max_pixels=ENOUGH)
    assert pixels.shape == (4, 5, 3)
    assert pixels.min() >= 254


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_truncated_picture_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(BadImage):
        decode(data[: len(data) // 2], max_pixels=ENOUGH)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html><html>404 Not Found</html>", "HTML or XML page"),
        (b"%PDF-1.7 ...", "no picture, begins with b'%PDF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG|no picture|broken"),
    ],
)
def test_what_is_no_picture_says_so(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode(data, max_pixels=ENOUGH)


def test_pixels_are_counted_from_the_header_before_decoding():
    data = encoded(Image.new("RGB", (101, 100)))
    only_header = data[:45]  # signature, IHDR, and the beginning of the first IDAT
    with pytest.raises(BadImage, match="101 x 100 pixels, 10000 are allowed"):
        decode(only_header, max_pixels=10_000)
    assert decode(data, max_pixels=10_100).shape == (100, 101, 3)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PPM", ".ppm"), ("JPEG", ".jfif"), ("AVIF", ".avif"), ("JPEG2000", ".jp2"), ("GIF", ".GIF")],
)
def test_every_suffix_of_a_picture_is_of_a_format_that_is_read(kind: str, suffix: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    options = {"quality": 100} if kind in {"AVIF", "JPEG"} else {}
    pixels = decode(
        encoded(Image.new("RGB", (16, 8), (255, 0, 0)), kind, **options), max_pixels=128
    )
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels[4, 8].astype(int) - RED).max() < 4
    assert is_image(f"a/b{suffix}")


def test_a_format_that_pillow_was_built_without_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images._formats.cache_clear()
    monkeypatch.delitem(Image.OPEN, "JPEG2000")
    monkeypatch.setattr(Image, "init", lambda: None)
    try:
        assert decode(encoded(row("L", 0)), max_pixels=ENOUGH).tolist() == [[BLACK]]
    finally:
        images._formats.cache_clear()


# --------------------------------------------------------------------------- libjpeg-turbo


def photo(mode: str = "RGB", size: tuple[int, int] = (90, 70)) -> Image.Image:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo(), "JPEG", exif=exif)


PLAIN = encoded(photo(), "JPEG")
SCAN = PLAIN.index(b"\xff\xda")
FRAME = PLAIN.index(b"\xff\xc0")
ODD_JPEGS = {
    "plain": PLAIN,
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "full colours": encoded(photo(), "JPEG", subsampling=0),
    "restarts": encoded(photo(), "JPEG", restart_marker_blocks=2),
    "grey": encoded(photo("L"), "JPEG"),
    "one pixel": encoded(photo(size=(1, 1)), "JPEG"),
    "kept as RGB": encoded(photo(), "JPEG", keep_rgb=True),
    "CMYK": encoded(photo("CMYK"), "JPEG"),
    "upright": turned(1),
    "on its side": turned(6),
    "mirrored": turned(2),
    "no such orientation": turned(9),
    "broken EXIF": PLAIN[:2] + b"\xff\xe1\x00\x0aExif\0\0II" + PLAIN[2:],
    "rubbish ahead of a marker": PLAIN[:2] + b"\x00\x17" + PLAIN[2:],
    "rubbish behind": PLAIN + b"\x00" * 100,
    "a second picture behind": PLAIN + encoded(photo("L"), "JPEG"),
    "no end": PLAIN[:-2],
    "cut in the scan": PLAIN[: SCAN + 200],
    "cut behind the frame": PLAIN[: FRAME + 19],
    "12 bits": PLAIN[: FRAME + 4] + b"\x0c" + PLAIN[FRAME + 5 :],
    "lossless": PLAIN.replace(b"\xff\xc0", b"\xff\xc3", 1),
    "arithmetic": PLAIN.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "no height": PLAIN[: FRAME + 5] + b"\0\0" + PLAIN[FRAME + 7 :],
    "two frames": PLAIN[:FRAME] + encoded(photo(size=(40, 30)), "JPEG")[2:],
    "a taller frame": PLAIN[: FRAME + 5] + b"\0\x90" + PLAIN[FRAME + 7 :],
    "no tables": PLAIN[:2] + PLAIN[FRAME:],
    "PNG by the name of JPEG": encoded(photo()),
}


def outcome(data: bytes, reduction: int, turbo: bool) -> tuple[object, ...]:
    """The pixels, or why there are none."""
    try:
        picture = images.Encoded(data, max_pixels=ENOUGH, turbo=turbo)
        reduction = reduction if reduction in picture.reductions() else 1
        pixels = picture.pixels(reduction)
    except BadImage as error:
        # the address of a buffer stands in some of Pillow's messages
        return ("refused", str(error).partition("<")[0])
    return (pixels.shape, pixels.tobytes())


@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("kind", ODD_JPEGS)
def test_turbo_accepts_and_refuses_what_pillow_does_and_gives_its_pixels(
    kind: str, reduction: int
) -> None:
    assert outcome(ODD_JPEGS[kind], reduction, True) == outcome(ODD_JPEGS[kind], reduction, False)


def test_turbo_and_pillow_agree_on_damaged_files() -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(150):
        data = bytearray(ODD_JPEGS["progressive" if rng.random() < 0.5 else "plain"])
        for place in rng.integers(2, len(data), int(rng.integers(1, 4))):
            data[place] = int(rng.integers(256))
        found = outcome(bytes(data), 1, True)
        assert found == outcome(bytes(data), 1, False)
        kept += found[0] != "refused"
    assert 20 < kept < 150


def test_a_plain_jpeg_never_comes_to_pillows_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(PLAIN, max_pixels=ENOUGH)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("by Pillow"))
    assert np.array_equal(decode(PLAIN, max_pixels=ENOUGH, turbo=True), expected)


def test_more_pixels_than_are_allowed_are_refused_before_turbo_decodes() -> None:
    with pytest.raises(BadImage, match="90 x 70 pixels, 100 are allowed"):
        decode(PLAIN, max_pixels=100, turbo=True)


def test_turbo_counts_as_exact_only_where_all_its_pixels_are_pillows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images.turbo_is_exact.cache_clear()
    assert images.turbo_is_exact()
    ours = images._turbo

    def rounded(data: bytes, width: int, height: int, reduction: int) -> object:
        found = ours(data, width, height, reduction)
        return found if reduction < 8 or found is None else found ^ 1

    for place, value in ((images, rounded), (images, None)):
        images.turbo_is_exact.cache_clear()
        if value is None:
            monkeypatch.setattr(place, "find_spec", lambda name: None)
        else:
            monkeypatch.setattr(place, "_turbo", value)
        assert not images.turbo_is_exact()
    images.turbo_is_exact.cache_clear()


def test_without_simplejpeg_the_decoder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.errors.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        images.check_turbo("data.decoder = 'turbo'")
    line = f"data.decoder = 'turbo' needs simplejpeg; {how_to_install('turbo')} brings it"
    assert str(caught.value) == line
