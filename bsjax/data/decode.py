"""Encoded images -> RGB: of an explicit list of formats, of any mode and range, in bounded memory.

What an image says of itself beside its pixels (texts, profiles, a damaged EXIF block) never decides
whether the pixels can be used.
"""

import io
import struct
import zlib

import numpy as np
from absl import logging
from PIL import Image, ImageOps, UnidentifiedImageError

from bsjax.core.foreign import printable
from bsjax.data.image_files import SUFFIXES_BY_FORMAT

FORMATS = tuple(SUFFIXES_BY_FORMAT)
PIXELS_PER_ROW = 4  # what a row costs beside its pixels: 16 bytes of pointers and alignment
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"))
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Of texts only these tell how the image is turned.
PNG_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
LARGEST_TEXT = 2**16
LARGEST_INFLATED = 2**20
# (largest value that such an image has, what white is in it): values a little beyond white are the
# overshoot of a resize. Between these the range is anyone's guess, and the image is refused.
FLOAT_RANGES = ((0.0, 1.1, 1.0), (16.0, 510.0, 255.0), (4096.0, 72_000.0, 65_535.0))


def decode_rgb(data: bytes | Image.Image) -> Image.Image:
    """Decodes an image of any mode into RGB: alpha on white, EXIF rotation applied, first frame.

    An image that PIL has opened is taken as it is, and not changed.

    Values of 16 bits are scaled to 8; whole numbers of 32 bits and floats as well, where their
    range is plain (0 to 1, to 255 or to 65,535).

    Raises:
      ValueError: not an image of the formats in `FORMATS`, truncated, of another range, or so large
        that PIL takes it for a decompression bomb (more than twice `PIL.Image.MAX_IMAGE_PIXELS`,
        179 million pixels, each row counted as 4 pixels more).
    """
    try:
        return _decode(data)
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except Exception as error:
        # PIL's readers let pass whatever a damaged file makes them trip over: OSError,
        # SyntaxError, EOFError, struct.error, KeyError, ...
        raise ValueError(printable(" ".join(str(error).split())) or type(error).__name__) from error


def _decode(data: bytes | Image.Image) -> Image.Image:
    if isinstance(data, Image.Image):
        _require_size(*data.size)
        return _to_rgb(data.copy())
    if data.startswith(PNG_SIGNATURE):
        data = _without_comments(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _require_size(*image.size)
    image.load()
    # Before any turn or change of mode, which lose what the file says of its transparent colour.
    return _to_rgb(_with_plain_alpha(image, data))


def _to_rgb(image: Image.Image) -> Image.Image:
    _turn_upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies


def _require_size(width: int, height: int) -> None:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if limit and (width + PIXELS_PER_ROW) * height > limit:
        raise ValueError(f"{width} x {height} pixels, which could be a decompression bomb")


def _turn_upright(image: Image.Image) -> None:
    """Turns the image as its EXIF orientation says; leaves it where that cannot be read."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # as many kinds as in `decode_rgb`
        logging.vlog(1, "EXIF block that cannot be read: %s", printable(error))


def _scaled(image: Image.Image) -> Image.Image:
    """8 bits of one channel from more."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(_scale_floats(values))
    high = 65_535
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # those scale to 16 bits
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65_535:
            raise ValueError(
                f"whole numbers from {low} to {high}: expected 0 to 255 or 0 to 65535; save it with"
                " 8 or 16 bits"
            )
        high = 255 if high <= 255 else 65_535
    values = np.clip(values, 0, 65_535).astype(np.uint32)
    return Image.fromarray(((values * 255 + high // 2) // high).astype(np.uint8))


def _scale_floats(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    white = next((white for at, to, white in FLOAT_RANGES if at <= high <= to), None)
    if white is None or low < -0.1 * white:
        raise ValueError(
            f"floats from {low:g} to {high:g}: expected 0 to 1, 0 to 255 or 0 to 65535; save it"
            " with 8 bits"
        )
    values = np.nan_to_num(values, nan=0.0, posinf=white, neginf=0.0)
    return np.rint(np.clip(values, 0, white) * (255 / white)).astype(np.uint8)


def _with_plain_alpha(image: Image.Image, data: bytes) -> Image.Image:
    """A PNG's transparent grey or colour as an alpha channel.

    The file has it in the bits of its samples, PIL in 8 bits of the decoded image, or not at all.
    """
    transparent = image.info.get("transparency")
    is_png = image.format == "PNG"
    if not is_png or transparent is None or image.mode not in ("1", "L", "RGB", "I", "I;16"):
        return image
    depth = data[24]
    if image.mode in ("I", "I;16"):
        alpha = np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)
        gray = _scaled(image)
        turned = Image.merge("LA", (gray, Image.fromarray(alpha)))
        turned.info = {k: v for k, v in image.info.items() if k != "transparency"}
        return turned
    if depth == 16:  # of which PIL keeps the upper eight bits
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    elif image.mode != "RGB":
        image.info["transparency"] = transparent * 255 // (2**depth - 1)
    return image


def _without_comments(data: bytes) -> bytes:
    """A PNG without its chunks that have no part in the pixels, nor in how they are turned.

    PIL refuses the whole image if one of them is large, or damaged.
    """
    view = memoryview(data)
    parts, place, is_whole = [view[: len(PNG_SIGNATURE)]], len(PNG_SIGNATURE), True
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name, stop = bytes(view[place + 4 : place + 8]), place + 12 + length
        if stop > len(data):
            break
        if name in PNG_KEPT or _turns(name, view[place + 4 : stop]):
            parts.append(view[place:stop])
        else:
            is_whole = False
        place = stop
        if name == b"IEND":
            break
    if is_whole:
        return data
    return b"".join((*parts, view[place:]))


def _turns(name: bytes, chunk: memoryview) -> bool:
    """Whether a chunk (name, body, checksum) may tell the orientation, and is no bomb."""
    body, checksum = bytes(chunk[4:-4]), bytes(chunk[-4:])
    if name != b"eXIf":
        is_text = name in PNG_TEXTS and len(body) <= LARGEST_TEXT
        if not is_text or not body.startswith(PNG_ORIENTATION):
            return False
        if not _inflates_within_bounds(name, body):
            return False
    return struct.pack(">I", zlib.crc32(chunk[:-4])) == checksum


def _inflates_within_bounds(name: bytes, body: bytes) -> bool:
    _, _, rest = body.partition(b"\0")
    if name == b"tEXt":
        return True
    if name == b"zTXt":
        packed = rest[1:]
    else:
        is_packed, rest = rest[:1] == b"\1", rest[2:]
        if not is_packed:
            return True
        packed = rest.split(b"\0", 2)[-1]
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(packed, LARGEST_INFLATED - 1)
    except zlib.error:
        return False
    return inflate.eof
