"""Real images changed as no model would change them: what their concepts move by is no model's.

jpeg   written as JPEG and read again
crop   brought to the size of the generated images, and cropped to it
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from bsjax.data.captions import Record
from bsjax.data.decode import decode_rgb

JPEG_QUALITY = 75  # Pillow's own default: what a file gets where nobody chose
CROP_PIXELS = 512  # height and width of generated images, where no config tells; the paper's


class Change(NamedTuple):
    """What is done to an image; nothing, unless it says so. Worker processes can pickle it.

    Attributes:
      height, width: pixels to resize and crop the centre to; 0: as it is.
      quality: of the JPEG that it is written as; 0: none.
    """

    height: int = 0
    width: int = 0
    quality: int = 0

    @property
    def settings(self) -> dict[str, int]:
        """As a manifest has them."""
        return {f"control.{name}": value for name, value in self._asdict().items() if value}

    def apply(self, image: Image.Image) -> Image.Image:
        """An RGB image, changed."""
        if self.height:
            image = fit(image, self.height, self.width)
        return as_jpeg(image, self.quality) if self.quality else image


def as_jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> Image.Image:
    """An RGB image as it is read from the JPEG that it was written as."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as read:
        return read.convert("RGB")


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """The centre of an image in the proportions of a size, resized to it (bicubic, antialiased)."""
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


class ChangedRecord(NamedTuple):
    """A record of a set whose image is changed as it is read."""

    record: Any
    change: Change

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def path(self) -> str:
        """Where the image lies before it is changed."""
        return self.record.path

    @property
    def caption(self) -> str:
        return self.record.caption

    @property
    def extra(self) -> Mapping[str, str]:
        return self.record.extra

    @property
    def cluster(self) -> str:
        return self.record.cluster

    def read(self) -> Image.Image:
        """The image, changed.

        Raises:
          OSError, ValueError: it cannot be read.
        """
        return self.change.apply(decode_rgb(self.record.read()))


class ChangedRecords(Sequence):
    """The records of a set, each changed as it is read."""

    def __init__(self, records: Sequence[Record], change: Change):
        self.records, self.change = records, change

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> ChangedRecord:
        return ChangedRecord(self.records[row], self.change)

    def __iter__(self) -> Iterator[ChangedRecord]:
        return (ChangedRecord(record, self.change) for record in self.records)
