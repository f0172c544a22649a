"""Real images, changed: the JPEG that Pillow writes, the crop that a generator would draw."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from bsjax.data.captions import ImageRecord
from bsjax.data.changes import (
    CROP_PIXELS,
    JPEG_QUALITY,
    Change,
    ChangedRecord,
    ChangedRecords,
    as_jpeg,
    fit,
)
from bsjax.data.images import load_images


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def record(tmp_path, image):
    path = tmp_path / "a.png"
    image.save(path)
    return ImageRecord("a", str(path), "a cat", {"place": "x"}, "c")


def test_jpeg_is_that_of_a_file(tmp_path, image):
    image.save(tmp_path / "default.jpg")  # of which nobody chose the quality
    np.testing.assert_array_equal(as_jpeg(image), Image.open(tmp_path / "default.jpg"))
    errors = [
        np.abs(np.asarray(as_jpeg(image, q), float) - np.asarray(image)).mean()
        for q in (30, 75, 95)
    ]
    assert errors[0] > errors[1] > errors[2] > 0
    assert (JPEG_QUALITY, CROP_PIXELS) == (75, 512)


def test_crop_takes_the_centre_of_a_wide_and_of_a_tall_image():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200  # the middle square
    for turn in (False, True):
        wide = Image.fromarray(pixels.swapaxes(0, 1) if turn else pixels)
        found = np.asarray(fit(wide, 40, 40))
        assert found.shape == (40, 40, 3)
        # The filter reaches four pixels beyond the edge.
        assert (found[4:-4, 4:-4] == 200).all() and found.min() > 100
    # Proportions of the target: the middle two thirds.
    assert np.asarray(fit(Image.fromarray(pixels), 20, 40))[:, :5].max() == 0
    assert fit(Image.new("RGB", (3, 5000)), 64, 32).size == (32, 64)
    small = Image.fromarray(np.full((8, 8, 3), 7, np.uint8))
    assert (np.asarray(fit(small, 64, 64)) == 7).all()


def test_of_its_own_size_a_crop_changes_nothing(image):
    np.testing.assert_array_equal(fit(image, 40, 70), image)
    assert Change().apply(image) is image
    assert Change(height=8, width=9, quality=50).settings == {
        "control.height": 8, "control.width": 9, "control.quality": 50,
    }  # fmt: skip


def test_records_are_those_of_the_set_but_for_their_pixels(record, image):
    records = pickle.loads(pickle.dumps(ChangedRecords([record], Change(quality=JPEG_QUALITY))))
    (one,) = records
    assert len(records) == 1 and records[0] == one == ChangedRecord(record, records.change)
    for name in ("key", "path", "caption", "extra", "cluster"):
        assert getattr(one, name) == getattr(record, name)
    np.testing.assert_array_equal(one.read(), as_jpeg(image))
    pixels, mask, bad = load_images(records, 1, 40, 40)
    plain, *_ = load_images([record], 1, 40, 40)
    assert mask.all() and not bad and np.abs(pixels.astype(int) - plain).mean() > 5


def test_what_cannot_be_read_is_a_bad_image(record, tmp_path):
    broken = record._replace(path=str(tmp_path / "b.png"))
    gone = record._replace(path=str(tmp_path / "c.png"))
    buffer = io.BytesIO(b"no image")
    (tmp_path / "b.png").write_bytes(buffer.getvalue())
    records = ChangedRecords([broken, record, gone], Change(quality=75))
    _, mask, bad = load_images(records, 3, 40, 40)
    assert mask.tolist() == [False, True, False]
    assert bad == [(0, "not an image"), (2, "no such file")]
