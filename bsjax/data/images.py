"""Images from disk to batches of uint8 pixels, exactly as the reference preprocesses them.

Decoding and resizing run in grain's threads or worker processes; a damaged image becomes a masked
row with its reason and never stops the others. Scaling to floats happens on the device.
"""

import io
import math
import multiprocessing
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bsjax.data.captions import ImageRecord

# Pixels of the largest image that is decoded; more is taken for a decompression bomb.
MAX_PIXELS = 300_000_000
# Pixels of the largest resized image that is held whole; 10,000 x 20 becomes 33 million.
MAX_RESIZED_PIXELS = 40_000_000
READ_THREADS = 4


class Batch(NamedTuple):
    """Images of consecutive records; the last batch of a set is padded."""

    images: np.ndarray  # uint8 [B, H, W, 3]; zeros where the mask is False
    mask: np.ndarray  # bool [B]; False for padding and for bad images
    rows: np.ndarray  # int32 [B]; index of the record, -1 for padding
    bad: tuple[tuple[int, str], ...]  # (row, reason) of images that could not be decoded


def decode_rgb(data: bytes) -> Image.Image:
    """Decodes an image of any mode into RGB: alpha on white, 16 bits to 8, EXIF rotation applied.

    Raises:
      OSError, ValueError: not an image, truncated, or absurdly large.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels, at most {MAX_PIXELS} are read")
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except (SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Single-channel 16-bit files: PIL would clip, not scale, them.
        values = np.asarray(image).astype(np.float64)
        scale = 255 / 65535 if image.mode != "F" else 1.0
        image = Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def resize_crop(image: Image.Image, resize: int, crop: int) -> np.ndarray:
    """Resizes the short side (bicubic, antialiased) and crops the centre: uint8 [crop, crop, 3].

    The short side becomes `resize`, the long side int(resize * long / short); the centre
    crop starts at int(round((side - crop) / 2)), torchvision's rule (rounding half to even).
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    size = {short: resize} | {long: max(int(resize * long / short), resize)}
    new_width, new_height = size[width], size[height]
    left = int(round((new_width - crop) / 2.0))
    top = int(round((new_height - crop) / 2.0))
    if new_width * new_height <= MAX_RESIZED_PIXELS:
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
        return np.asarray(image.crop((left, top, left + crop, top + crop)))
    # A sliver thousands of times longer than wide: compute the crop alone. The same filter at the
    # same places; only the rounding between PIL's two passes may differ.
    x, y = width / new_width, height / new_height
    box = (left * x, top * y, (left + crop) * x, (top + crop) * y)
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height))
    return np.asarray(image.resize((crop, crop), Image.Resampling.BICUBIC, box=box))


def thumbnail(path: str, resize: int, crop: int) -> Image.Image:
    """The part of an image that the encoder saw, for a report.

    Raises:
      OSError, ValueError: as `decode_rgb`, or the file is gone.
    """
    return Image.fromarray(resize_crop(decode_rgb(pathlib.Path(path).read_bytes()), resize, crop))


class _Load:
    """(row, path) -> (row, pixels or None, reason); worker processes can pickle it."""

    def __init__(self, resize: int, crop: int):
        self.resize = resize
        self.crop = crop

    def __call__(self, item: tuple[int, str]) -> tuple[int, np.ndarray | None, str]:
        row, path = item
        try:
            image = decode_rgb(pathlib.Path(path).read_bytes())
            return row, resize_crop(image, self.resize, self.crop), ""
        except FileNotFoundError:
            return row, None, "no such file"
        except (OSError, ValueError) as error:
            return row, None, " ".join(str(error).split()) or type(error).__name__


def iterate_batches(
    records: Sequence[ImageRecord],
    *,
    resize: int,
    crop: int,
    batch_size: int,
    start: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """Batches of the records from row `start` on, in order, the last one padded.

    Args:
      records: the set.
      resize: pixels of the short side.
      crop: pixels of the centre crop.
      batch_size: images a batch.
      start: first row.
      workers: processes that decode; 0 decodes in threads of this process.
    """
    items = [(row, records[row].path) for row in range(start, len(records))]
    if not items:
        return
    dataset = grain.MapDataset.source(items).map(_Load(resize, crop))
    options = grain.ReadOptions(
        num_threads=READ_THREADS, prefetch_buffer_size=max(2 * batch_size, 2 * READ_THREADS)
    )
    stream = dataset.to_iter_dataset(options)
    workers = min(workers, math.ceil(len(items) / batch_size), multiprocessing.cpu_count())
    if workers > 0:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    pending = []
    for loaded in stream:
        pending.append(loaded)
        if len(pending) == batch_size:
            yield _collate(pending, batch_size, crop)
            pending = []
    if pending:
        yield _collate(pending, batch_size, crop)


def _collate(loaded: Sequence[tuple[int, np.ndarray | None, str]], size: int, crop: int) -> Batch:
    images = np.zeros((size, crop, crop, 3), np.uint8)
    mask = np.zeros(size, bool)
    rows = np.full(size, -1, np.int32)
    bad = []
    for i, (row, pixels, reason) in enumerate(loaded):
        rows[i] = row
        if pixels is None:
            bad.append((int(row), reason))
        else:
            images[i], mask[i] = pixels, True
    return Batch(images, mask, rows, tuple(bad))
