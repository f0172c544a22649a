"""Thumbnails and heat maps as data URIs: the page needs no file beside it."""

import base64
import io
from collections.abc import Callable

import numpy as np
from matplotlib import colormaps
from PIL import Image

THUMBNAIL = 168  # pixels
HEAT = colormaps["inferno"]


def data_uri(kind: str, data: bytes) -> str:
    """An image of that subtype ("png", "svg+xml", ...) as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# (path, resize, crop) -> the part of an image file that the encoder saw; OSError or ValueError if
# the file is gone or damaged.
LoadThumbnail = Callable[[str, int, int], Image.Image]


def encode_thumbnail(
    load: LoadThumbnail, path: str, resize: int, crop: int, side: int, kind: str
) -> bytes | None:
    """The centre crop that the encoder saw, made `side` pixels wide.

    None if the file is gone or damaged.

    Args:
      load: reads it.
      path: of the image.
      resize: as the encoder.
      crop: as the encoder.
      side: pixels.
      kind: "jpeg" or "webp".
    """
    try:
        image = load(path, resize, crop)
    except (OSError, ValueError):
        return None
    buffer = io.BytesIO()
    image.resize((side, side), Image.Resampling.LANCZOS).save(buffer, kind.upper(), quality=82)
    return buffer.getvalue()


def image_uri(load: LoadThumbnail, path: str, resize: int, crop: int) -> str | None:
    """The same as a data URI."""
    data = encode_thumbnail(load, path, resize, crop, THUMBNAIL, "jpeg")
    return None if data is None else data_uri("jpeg", data)


def heat_uri(codes: np.ndarray) -> str | None:
    """A concept's codes over the patches [h, w] as a transparent picture of h x w pixels.

    The browser stretches it over the thumbnail, which shows the same crop: dark where the concept
    is silent, bright where it fires most. None if nothing fires.
    """
    peak = float(codes.max())
    if peak <= 0:
        return None
    strength = codes.astype(np.float32) / peak
    rgba = (HEAT(strength) * 255).astype(np.uint8)
    rgba[..., 3] = 190
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return data_uri("png", buffer.getvalue())
