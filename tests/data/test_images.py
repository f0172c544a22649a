"""Decoded pixels against values worked out by hand, and resized ones against PIL's own passes."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bsjax.data.images import decode_rgb, resize_crop, thumbnail

BICUBIC = Image.Resampling.BICUBIC
WHITE = (255, 255, 255)


def encode(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """White noise: the image in which a wrong filter tap shows most."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(data: bytes) -> np.ndarray:
    image = decode_rgb(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width: int, height: int, depth: int, color_type: int, raw: bytes) -> bytes:
    """A PNG file of kinds that PIL reads but does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def torchvision_sizes(width: int, height: int, resize: int, crop: int):
    """torchvision 0.2x, written out: Resize(resize) and CenterCrop(crop) of a PIL image."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resize, int(resize * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    top = int(round((new_height - crop) / 2.0))
    left = int(round((new_width - crop) / 2.0))
    return (new_width, new_height), (left, top, left + crop, top + crop)


def resize_then_crop(image: Image.Image, resize: int, crop: int) -> np.ndarray:
    """The whole image resized, columns then rows (PIL's order before Pillow 13), then cropped."""
    size, box = torchvision_sizes(*image.size, resize, crop)
    image = image.resize((size[0], image.height), BICUBIC).resize(size, BICUBIC)
    return np.asarray(image.crop(box))


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


def test_plain_modes():
    gray = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    np.testing.assert_array_equal(pixels(encode(gray)), [[[0] * 3, [100] * 3, [255] * 3]])
    np.testing.assert_array_equal(
        pixels(encode(gray.convert("1", dither=Image.Dither.NONE))), [[[0] * 3, [0] * 3, [255] * 3]]
    )
    rgb = noise(5, 4)
    for form, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        np.testing.assert_array_equal(pixels(encode(rgb, form, **options)), np.asarray(rgb))


@pytest.mark.parametrize("transparent", [None, 1, bytes([255, 0, 128])])
def test_palette(transparent):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 0, 0, 0, 0])
    image.putdata([0, 1, 2])
    options = {} if transparent is None else {"transparency": transparent}
    first, second, third = pixels(encode(image, **options))[0].tolist()
    assert first == [10, 20, 30]
    assert second == ([200, 100, 0] if transparent is None else list(WHITE))
    # Half transparent black on white: 255 * (1 - 128 / 255) = 127.
    assert third == ([127] * 3 if isinstance(transparent, bytes) else [0, 0, 0])


def test_transparent_gif():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    assert pixels(encode(image, "GIF", transparency=0))[0].tolist() == [list(WHITE), [200, 100, 0]]


def test_alpha_is_laid_on_white():
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(200, 0, 50, 255), (200, 0, 50, 0), (200, 0, 50, 51)])
    # A fifth of the colour, four fifths of white.
    expected = [[200, 0, 50], list(WHITE), [244, 204, 214]]
    assert pixels(encode(rgba))[0].tolist() == expected
    la = Image.new("LA", (3, 1))
    la.putdata([(100, 255), (100, 0), (100, 51)])
    assert pixels(encode(la))[0].tolist() == [[100] * 3, list(WHITE), [224] * 3]


def test_transparent_colour_of_an_rgb_png():
    rgb = Image.new("RGB", (2, 1), (9, 8, 7))
    rgb.putpixel((1, 0), (1, 2, 3))
    data = encode(rgb, transparency=(1, 2, 3))
    assert pixels(data)[0].tolist() == [[9, 8, 7], list(WHITE)]


def test_cmyk():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert pixels(encode(cmyk, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    # JPEG stores inks inverted and loses a level or two.
    for inks, rgb in (((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 128), (127, 127, 127))):
        found = pixels(encode(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100))
        assert np.abs(found.astype(int) - np.array(rgb)).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled(form):
    values = np.array([[0, 65535, 32768, 257 * 200]], np.uint16)
    found = pixels(encode(Image.fromarray(values), form))
    np.testing.assert_array_equal(found[0], [[0] * 3, [255] * 3, [128] * 3, [200] * 3])


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_png(color_type, channels):
    values = np.full((2, 3, channels), 65535, ">u2")
    values[..., 0] = 257 * np.arange(0, 240, 40).reshape(2, 3)
    raw = b"".join(b"\0" + row.tobytes() for row in values)
    found = pixels(png(3, 2, 16, color_type, raw))
    np.testing.assert_array_equal(found[..., 0], values[..., 0] // 257)


def test_float_tiff_without_a_number():
    values = np.array([[0.0, 300.0, np.nan, 99.6]], np.float32)
    found = pixels(encode(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(found[0, :, 0], [0, 255, 0, 100])


ROTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", ROTATIONS)
def test_exif_rotation(orientation):
    image = noise(5, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = ROTATIONS[orientation](np.asarray(image))
    np.testing.assert_array_equal(pixels(encode(image, exif=exif)), expected)
    found = decode_rgb(encode(image, "JPEG", exif=exif))
    assert found.size == expected.shape[1::-1]


def test_refuses_what_is_no_whole_image():
    jpeg = encode(noise(64, 64), "JPEG")
    for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = encode(noise(64, 64), form)
        with pytest.raises(ValueError) as caught:
            decode_rgb(data[: len(data) // 2])
        assert str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="truncated"):
        decode_rgb(jpeg[: len(jpeg) // 2])
    for data in (b"", b"hello", jpeg[:3], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        with pytest.raises(ValueError, match="not an image"):
            decode_rgb(data)


def test_refuses_a_decompression_bomb():
    # A header alone: refused before a pixel is decoded.
    with pytest.raises(ValueError, match="bomb"):
        decode_rgb(png(20_000, 20_000, 8, 2, b""))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_files_raise_nothing_but_value_error(form, changes):
    data = bytearray(encode(noise(12, 9), form))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        assert decode_rgb(bytes(data)).mode == "RGB"
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


def test_damaged_exif_costs_no_image(monkeypatch):
    image = noise(4, 4)

    def stumble(*_, **__):
        raise struct.error("unpack requires 4 bytes")

    monkeypatch.setattr("bsjax.data.decode.ImageOps.exif_transpose", stumble)
    np.testing.assert_array_equal(pixels(encode(image)), np.asarray(image))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 420),
    height=st.integers(1, 420),
    resize=st.integers(8, 96),
    crop_share=st.floats(0.1, 1.0),
    seed=st.integers(0, 99),
)
@example(width=1, height=1, resize=96, crop_share=0.875, seed=0)
@example(width=420, height=419, resize=64, crop_share=0.875, seed=1)
@example(width=1, height=420, resize=32, crop_share=0.875, seed=2)
def test_resize_crop_is_within_a_level_of_resize_then_crop(width, height, resize, crop_share, seed):
    # One level: PIL holds the bounds of a partial resize in single precision.
    crop = max(int(resize * crop_share), 1)
    image = noise(width, height, seed)
    found = resize_crop(image, resize, crop)
    assert found.shape == (crop, crop, 3)
    assert largest_difference(found, resize_then_crop(image, resize, crop)) <= 1


@pytest.mark.parametrize("size", [(512, 512), (640, 480), (480, 640), (341, 256), (300, 599)])
def test_resize_crop_is_within_a_level_of_a_single_pil_resize(size):
    # Up to twice as tall as wide, every Pillow resizes columns first.
    image = noise(*size)
    new_size, box = torchvision_sizes(*size, 256, 224)
    expected = np.asarray(image.resize(new_size, BICUBIC).crop(box))
    found = resize_crop(image, 256, 224)
    assert largest_difference(found, expected) <= 1
    assert (found != expected).mean() < 1e-3
    if size[0] >= size[1]:
        # The short side's bounds are exact when it is resized to a power of two.
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("width", "left"), [(341, 58), (343, 60), (345, 60)])
def test_centre_crop_rounds_half_to_even(width, left):
    # Already 256 high: the crop alone remains. (341 - 224) / 2 = 58.5 -> 58; 59.5 -> 60.
    image = noise(width, 256)
    expected = np.asarray(image.crop((left, 16, left + 224, 240)))
    np.testing.assert_array_equal(resize_crop(image, 256, 224), expected)


@pytest.mark.parametrize("size", [(10_000, 20), (20, 10_000)])
def test_slivers(size):
    image = noise(*size)
    expected = resize_then_crop(image, 64, 56)
    assert largest_difference(resize_crop(image, 64, 56), expected) <= 1
    assert resize_crop(image, 256, 224).shape == (224, 224, 3)


def test_crop_larger_than_resize_is_refused():
    with pytest.raises(ValueError, match="crop=57"):
        resize_crop(noise(9, 9), 56, 57)


def test_thumbnail_shows_what_the_encoder_sees(tmp_path):
    image = noise(70, 50)
    image.save(tmp_path / "x.png")
    shown = thumbnail(str(tmp_path / "x.png"), 32, 28)
    np.testing.assert_array_equal(np.asarray(shown), resize_crop(image, 32, 28))
    with pytest.raises(OSError):
        thumbnail(str(tmp_path / "gone.png"), 32, 28)
