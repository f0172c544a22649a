"""Decoded pixels against values worked out by hand, and resized ones against PIL's own passes."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from bsjax.data.image_files import SUFFIXES_BY_FORMAT
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


def chunk(name: bytes, body: bytes, checksum: bytes | None = None) -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + body)) if checksum is None else checksum
    return struct.pack(">I", len(body)) + name + body + crc


def png(
    width: int, height: int, depth: int, color_type: int, raw: bytes, more: bytes = b""
) -> bytes:
    """A PNG file of kinds that PIL reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


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


@pytest.mark.parametrize(
    ("depth", "values", "transparent", "expected"),
    [
        (1, 0b01000000, 1, [0, 255]),
        (1, 0b10000000, 0, [255, 255]),
        (2, 0b00100000, 2, [0, 255]),
        (4, 0x3F, 3, [255, 255]),
        (4, 0x3A, 15, [51, 170]),
    ],
)
def test_transparent_gray_of_few_bits(depth, values, transparent, expected):
    """The transparent gray stands in the file's own bits: 2 of 2 bits is 170 of 255."""
    raw = b"\0" + bytes([values])
    more = chunk(b"tRNS", struct.pack(">H", transparent))
    assert pixels(png(2, 1, depth, 0, raw, more))[0, :, 0].tolist() == expected


def test_transparent_colour_of_16_bits():
    gray = b"\0" + struct.pack(">HHH", 0, 257 * 100, 257 * 100 + 1)
    more = chunk(b"tRNS", struct.pack(">H", 257 * 100))
    assert pixels(png(3, 1, 16, 0, gray, more))[0, :, 0].tolist() == [0, 255, 100]
    rgb = b"\0" + struct.pack(">6H", 0, 0, 0, *[257 * c for c in (9, 8, 7)])
    more = chunk(b"tRNS", struct.pack(">3H", *[257 * c for c in (9, 8, 7)]))
    assert pixels(png(2, 1, 16, 2, rgb, more))[0].tolist() == [[0, 0, 0], list(WHITE)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.5, 1.05]), [0, 128, 255]),
        (np.float32([0, 16.4, 254.6]), [0, 16, 255]),
        (np.float32([0, 32767.5, 65535]), [0, 128, 255]),
        (np.float32([-0.05, np.nan, np.inf]), [0, 0, 255]),
        (np.int32([0, 7, 255]), [0, 7, 255]),
        (np.int32([0, 257 * 7, 65535]), [0, 7, 255]),
        (np.float32([0, 1, 7]), "floats from 0 to 7"),
        (np.float32([0, 1, 1000]), "floats from 0 to 1000"),
        (np.float32([0, 1, 1e6]), "floats from 0 to 1e"),
        (np.float32([-1, 0, 1]), "floats from -1 to 1"),
        (np.int32([0, 7, 65536]), "whole numbers from 0 to 65536"),
        (np.int32([-1, 7, 255]), "whole numbers from -1"),
    ],
)
def test_tiff_of_other_ranges_is_scaled_or_refused(values, expected):
    if np.isinf(values).any():
        values = np.append(values, np.float32(1.0))  # tells the range
        expected = [*expected, 255]
    data = encode(Image.fromarray(values[None]), "TIFF")
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            decode_rgb(data)
    else:
        assert pixels(data)[0, :, 0].tolist() == expected


COMMENTS = {
    "large zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a" * 2**21)),
    "large iTXt": chunk(b"iTXt", b"w\0\1\0\0\0" + zlib.compress(b"a" * 2**21)),
    "large iCCP": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"a" * 2**21)),
    "large XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"a" * 2**21)),
    "large EXIF text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"a" * 2**21)),
    "wrong checksum": chunk(b"tEXt", b"a\0bcd", b"0000"),
    "EXIF of a wrong checksum": chunk(b"eXIf", b"MM\0*", b"0000"),
    "EXIF that is none": chunk(b"eXIf", b"nonsense"),
    "short chunk": chunk(b"pHYs", b"1"),
    "broken deflate": chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + b"nonsense"),
}


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("place", [33, -12])
def test_comments_of_a_png_never_cost_the_image(comment, place):
    image = noise(4, 3)
    data = encode(image)
    data = data[:place] + COMMENTS[comment] + data[place:]
    np.testing.assert_array_equal(pixels(data), np.asarray(image))


def test_orientation_of_a_png_in_its_texts():
    image = noise(5, 3)
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    for text in (
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        data = encode(image)
        found = pixels(data[:33] + text + data[33:])
        np.testing.assert_array_equal(found, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert pixels(data)[0, 0].tolist() == [250, 0, 0]


def test_no_program_is_started_for_an_image(monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: started.append(a))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
    with pytest.raises(ValueError, match="not an image"):
        decode_rgb(postscript)
    assert not started


@pytest.mark.parametrize("form", sorted(SUFFIXES_BY_FORMAT))
def test_every_format_of_the_list(form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    assert pixels(encode(Image.new("RGB", (16, 16), (200, 10, 10)), form)).shape == (16, 16, 3)


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
    for width, height in ((20_000, 20_000), (1, 10**9), (10**9, 1), (1, 6 * 10**7)):
        with pytest.raises(ValueError, match="bomb"):
            decode_rgb(png(width, height, 8, 2, b""))


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


def test_wide_slivers_cost_no_memory():
    # Resized whole, it would be 1.28 billion pixels wide.
    assert resize_crop(Image.new("RGB", (20_000_000, 1)), 64, 56).shape == (56, 56, 3)


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


@pytest.mark.parametrize(("n_bytes", "is_turned"), [(2**16, True), (2**16 + 1, False)])
def test_texts_of_a_png_are_read_up_to_a_bound(n_bytes, is_turned):
    image = noise(5, 3)
    body = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x:xmpmeta tiff:Orientation="6"/>'
    text = chunk(b"iTXt", body + b" " * (n_bytes - len(body)))
    data = encode(image)
    expected = np.rot90(np.asarray(image), -1) if is_turned else np.asarray(image)
    np.testing.assert_array_equal(pixels(data[:33] + text + data[33:]), expected)
