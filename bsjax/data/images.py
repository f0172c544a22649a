"""Images from disk to batches of uint8 pixels, exactly as the reference preprocesses them.

Decoding and resizing run in grain's threads or worker processes; a damaged image becomes a masked
row with its reason and never stops the others. Scaling to floats happens on the device.
"""

import gc
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Int32, UInt8
from PIL import Image

from bsjax.core.preprocessing import WHOLE
from bsjax.data.captions import Record
from bsjax.data.decode import decode_rgb
from bsjax.data.sources import read_image

READ_THREADS = 4
# Batches held ready beyond those being made; with none the threads wait for the consumer.
SPARE_BATCHES = 2
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# Source pixels that the widest filter reaches to each side, times the scale when it shrinks.
BICUBIC_SUPPORT = 2
WIDEST = 64  # times its height: an image to be resized whole


class Batch(NamedTuple):
    """Images of consecutive records; the last batch of a set is padded."""

    images: UInt8[np.ndarray, "B H W 3"]  # zeros where the mask is False
    mask: Bool[np.ndarray, " B"]  # False for padding and for bad images
    rows: Int32[np.ndarray, " B"]  # index of the record, -1 for padding
    bad: tuple[tuple[int, str], ...]  # (row, reason) of images that could not be decoded

    @property
    def n_records(self) -> int:
        """Records in the batch, bad images included, padding not."""
        return int((self.rows >= 0).sum())


def resize_crop(
    image: Image.Image, resize: int, crop: int, interpolation: str = "bicubic"
) -> UInt8[np.ndarray, "H W 3"]:
    """Resizes the short side (antialiased) and crops the centre: uint8 [crop, crop, 3].

    The short side becomes `resize`, the long side int(resize * long / short); the centre
    crop starts at int(round((side - crop) / 2)), torchvision's rule (rounding half to even).
    Only rows that the crop needs are computed, so that 20 x 10,000 pixels cost no memory; of very
    wide images only the columns that it needs.

    The two passes are PIL's own, columns first. They are asked for one by one because Pillow 13
    starts with the rows where an image is more than twice as tall as wide, which moves single
    pixels by several levels; all versions before it, and so the published numbers, do not.

    Args:
      image: RGB.
      resize: pixels of the short side; WHOLE (-1): the whole image becomes crop x crop, whatever
        its proportions.
      crop: pixels of a side.
      interpolation: "bicubic" or "bilinear".

    Raises:
      ValueError: `crop` is larger than `resize`.
    """
    kind = FILTERS[interpolation]
    if resize == WHOLE:  # in two passes, too
        rows = image.resize((crop, image.height), kind)
        return np.asarray(rows.resize((crop, crop), kind))
    if not 1 <= crop <= resize:
        raise ValueError(f"crop={crop}: expected 1 to resize={resize}")
    width, height = image.size
    short = min(width, height)
    # The short side comes out as `resize` by the same formula.
    new_width, new_height = int(resize * width / short), int(resize * height / short)
    left = int(round((new_width - crop) / 2.0))
    top = int(round((new_height - crop) / 2.0))

    scale = height / new_height
    first, last = top * scale, (top + crop) * scale  # rows of the source, fractional
    reach = BICUBIC_SUPPORT * max(scale, 1.0) + 1
    start, stop = max(math.floor(first - reach), 0), min(math.ceil(last + reach), height)
    image = image.crop((0, start, width, stop))
    if new_width <= WIDEST * resize:
        image = image.resize((new_width, stop - start), kind)
        image = image.crop((left, 0, left + crop, stop - start))
    else:
        # As below for the rows; PIL holds the bounds in single precision, which moves a level.
        scale = width / new_width
        first_column, last_column = left * scale, (left + crop) * scale
        reach = BICUBIC_SUPPORT * max(scale, 1.0) + 1
        cut = max(math.floor(first_column - reach), 0)
        image = image.crop((cut, 0, min(math.ceil(last_column + reach), width), image.height))
        box = (first_column - cut, 0, min(last_column - cut, image.width), image.height)
        image = image.resize((crop, image.height), kind, box=box)
    # PIL refuses a box that ends beyond the image by a rounding error.
    box = (0, first - start, crop, min(last - start, stop - start))
    return np.asarray(image.resize((crop, crop), kind, box=box))


def thumbnail(path: str, resize: int, crop: int) -> Image.Image:
    """The part of an image that the encoder saw, for a report.

    Raises:
      OSError, ValueError: the file is gone, or as `decode_rgb`.
    """
    return Image.fromarray(resize_crop(decode_rgb(read_image(path)), resize, crop))


def iterate_batches(
    records: Sequence[Record],
    *,
    resize: int,
    crop: int,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    workers: int = 0,
    interpolation: str = "bicubic",
    parts: Sequence[tuple[int, int]] | None = None,
) -> Iterator[Batch]:
    """Batches of the records `start` to `stop`, in order, the last one padded.

    The batches do not depend on `workers`; closing the iterator ends threads and processes.

    Args:
      records: the set.
      resize: pixels of the short side, or WHOLE, as `resize_crop`.
      crop: pixels of the centre crop.
      batch_size: images per batch.
      start: first row.
      stop: row behind the last; None for the end of the set.
      workers: processes that decode; 0 decodes in threads of this process.
      interpolation: "bicubic" or "bilinear".
      parts: in place of `start` and `stop` several such pairs; the last batch of each is padded.
    """
    stop = len(records) if stop is None else min(stop, len(records))
    parts = [(start, stop)] if parts is None else parts
    spans = [
        (first, min(first + batch_size, stop))
        for start, stop in parts
        for first in range(start, stop, batch_size)
    ]
    if not spans:
        return
    load = _LoadBatch(records, spans, resize, crop, batch_size, interpolation)
    dataset = grain.MapDataset.range(0, len(spans)).map(load)
    workers = min(workers, len(dataset), multiprocessing.cpu_count())
    n_threads = 1 if workers > 0 else READ_THREADS
    stream = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=n_threads, prefetch_buffer_size=n_threads + SPARE_BATCHES)
    )
    if workers > 0:
        if not flags.FLAGS.is_parsed():
            # grain 0.2.18 reads a flag of its own even where no command line was parsed, as in a
            # notebook (github.com/google/grain, issue 1355).
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    batches = iter(stream)
    try:
        for batch in batches:
            # A worker's arrays lie in shared memory that ends with the worker: copy them.
            yield batch if workers <= 0 else Batch(*map(np.array, batch[:3]), batch.bad)
    finally:
        batches.close()
        if workers > 0:
            # grain leaves the last batch in a reference cycle: collected here, its shared memory
            # is freed; left to the end of the process, Python warns of a leak.
            batch = batches = None
            gc.collect()


class _LoadBatch:
    """Number of a batch -> Batch; worker processes can pickle it."""

    def __init__(
        self,
        records: Sequence[Record],
        spans: Sequence[tuple[int, int]],  # of each batch: first row, row behind the last
        resize: int,
        crop: int,
        size: int,
        interpolation: str,
    ):
        self.records = records
        self.spans = np.asarray(spans)  # small where it is pickled
        self.resize = resize
        self.crop = crop
        self.size = size
        self.interpolation = interpolation

    def __call__(self, number: int) -> Batch:
        first, stop = self.spans[number].tolist()
        n_records = stop - first
        records = [self.records[first + i] for i in range(n_records)]
        images, mask, bad = load_images(
            records, self.size, self.resize, self.crop, self.interpolation
        )
        rows = np.full(self.size, -1, np.int32)
        rows[:n_records] = first + np.arange(n_records)
        return Batch(images, mask, rows, tuple((first + i, reason) for i, reason in bad))


def load_images(
    records: Sequence[Record],
    size: int,
    resize: int,
    crop: int,
    interpolation: str = "bicubic",
) -> tuple[UInt8[np.ndarray, "B H W 3"], Bool[np.ndarray, " B"], list[tuple[int, str]]]:
    """Images of up to `size` records, which of the rows are good, (row, reason) of the bad.

    Records of one image that follow each other, one for each of its captions, share its decoding;
    an image without a path stands for itself.
    """
    images = np.zeros((size, crop, crop, 3), np.uint8)
    mask = np.zeros(size, bool)
    bad = []
    paths = [record.path for record in records]
    for i, record in enumerate(records):
        if not i or not paths[i] or paths[i] != paths[i - 1]:  # "": an image in memory
            pixels, reason = _load_image(record, resize, crop, interpolation)
        if pixels is None:
            bad.append((i, reason))
        else:
            images[i], mask[i] = pixels, True
    return images, mask, bad


def _load_image(
    record: Record, resize: int, crop: int, interpolation: str
) -> tuple[UInt8[np.ndarray, "H W 3"] | None, str]:
    """What the encoder sees of a record, or why there is nothing."""
    try:
        image = decode_rgb(record.read())
    except FileNotFoundError:
        return None, "no such file"
    except (OSError, ValueError) as error:
        return None, str(error)
    return resize_crop(image, resize, crop, interpolation), ""
