"""Batches: order, padding, bad images, threads against worker processes, going on in between."""

import multiprocessing
import pathlib

import numpy as np
import pytest
from PIL import Image

from bsjax.data import images
from bsjax.data.captions import ImageRecord, list_folder
from bsjax.data.images import Batch, decode_rgb, iterate_batches, resize_crop

SIZES = {"resize": 16, "crop": 14}
N_IMAGES = 23
GONE, TRUNCATED, TEXT = 4, 9, 17


@pytest.fixture
def records(tmp_path) -> tuple[ImageRecord, ...]:
    """23 images of many shapes; one vanished after it was listed, two are damaged."""
    rng = np.random.default_rng(0)
    for i in range(N_IMAGES):
        height, width = rng.integers(1, 90, 2)
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.save(tmp_path / f"{i:02d}.jpg")
    noise = Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    noise.save(tmp_path / f"{TRUNCATED:02d}.jpg")
    listed = list_folder(str(tmp_path)).records
    path = pathlib.Path(listed[TRUNCATED].path)
    path.write_bytes(path.read_bytes()[:900])
    pathlib.Path(listed[TEXT].path).write_text("<html>404</html>")
    pathlib.Path(listed[GONE].path).unlink()
    return listed


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.rows, b.rows)
        assert a.bad == b.bad


def test_batches_are_the_images_in_order(records):
    batches = list(iterate_batches(records, batch_size=8, **SIZES))
    assert [batch.images.shape for batch in batches] == [(8, 14, 14, 3)] * 3
    assert all(batch.images.dtype == np.uint8 for batch in batches)
    rows = np.concatenate([batch.rows for batch in batches])
    np.testing.assert_array_equal(rows, [*range(N_IMAGES), -1])
    assert rows.dtype == np.int32
    images = np.concatenate([batch.images for batch in batches])
    mask = np.concatenate([batch.mask for batch in batches])
    for row in range(N_IMAGES):
        if row in (GONE, TRUNCATED, TEXT):
            assert not mask[row] and not images[row].any()
        else:
            image = decode_rgb(pathlib.Path(records[row].path).read_bytes())
            assert mask[row]
            np.testing.assert_array_equal(images[row], resize_crop(image, **SIZES))
    assert not mask[-1] and not images[-1].any()


def test_bad_images_are_named_and_do_not_stop_the_others(records):
    bad = dict(
        entry for batch in iterate_batches(records, batch_size=5, **SIZES) for entry in batch.bad
    )
    assert set(bad) == {GONE, TRUNCATED, TEXT}
    assert bad[GONE] == "no such file"
    assert "truncated" in bad[TRUNCATED]
    assert bad[TEXT] == "not an image"


def test_an_image_that_vanishes_in_the_middle_of_a_pass(records):
    batches = iterate_batches(records * 40, batch_size=4, **SIZES)
    first = next(batches)
    pathlib.Path(records[0].path).unlink()
    rest = list(batches)
    assert first.mask[0]
    bad_rows = {row for batch in rest for row, _ in batch.bad}
    assert (N_IMAGES * 39) in bad_rows
    assert sum(int((batch.rows >= 0).sum()) for batch in (first, *rest)) == N_IMAGES * 40


def test_a_folder_in_place_of_an_image(tmp_path):
    (tmp_path / "x.png").mkdir()
    record = ImageRecord("x", str(tmp_path / "x.png"), "", {})
    (batch,) = iterate_batches([record], batch_size=2, **SIZES)
    assert not batch.mask.any() and batch.bad[0][0] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_give_the_batches_of_threads(records, workers):
    expected = list(iterate_batches(records, batch_size=4, **SIZES))
    found = list(iterate_batches(records, batch_size=4, workers=workers, **SIZES))
    assert_same(found, expected)
    assert all(type(batch.images) is np.ndarray for batch in found)
    assert not multiprocessing.active_children()


def test_closing_early_ends_the_workers(records):
    batches = iterate_batches(records, batch_size=2, workers=2, **SIZES)
    next(batches)
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("start", [0, 1, 8, 22, 23, 99])
def test_starting_in_between_gives_the_same_rows(records, start):
    def by_row(batches):
        return {
            int(row): (bool(ok), image.tobytes())
            for batch in batches
            for row, ok, image in zip(batch.rows, batch.mask, batch.images, strict=True)
            if row >= 0
        }

    whole = by_row(iterate_batches(records, batch_size=8, **SIZES))
    begun = by_row(iterate_batches(records, batch_size=8, stop=start, **SIZES))
    rest = by_row(iterate_batches(records, batch_size=8, start=start, **SIZES))
    assert list(begun) + list(rest) == list(range(N_IMAGES))
    assert begun | rest == whole


def test_going_on_at_a_batch_gives_the_same_batches(records):
    whole = list(iterate_batches(records, batch_size=4, **SIZES))
    assert_same(list(iterate_batches(records, batch_size=4, start=8, **SIZES)), whole[2:])


def test_no_records_no_batches():
    assert list(iterate_batches([], batch_size=4, **SIZES)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_captions_of_one_image_share_its_decoding(records, workers, monkeypatch):
    """What comes out is what each alone gives."""
    decoded = []
    monkeypatch.setattr(images, "decode_rgb", lambda data: decoded.append(1) or decode_rgb(data))
    rows = [0, 0, 0, GONE, GONE, 1, TEXT, TEXT, 2, 0, 0, 3]  # 0 comes again behind others
    several = [records[row]._replace(key=f"{row}#{i}") for i, row in enumerate(rows)]
    together = list(iterate_batches(several, batch_size=12, workers=workers, **SIZES))
    # Of a file that is gone nothing is decoded; a worker decodes in its own process.
    assert sum(decoded) == (0 if workers else 6)
    alone = list(iterate_batches(several, batch_size=1, **SIZES))
    for i, batch in enumerate(alone):
        np.testing.assert_array_equal(together[0].images[i], batch.images[0])
        assert together[0].mask[i] == batch.mask[0]
    assert together[0].bad == tuple(entry for batch in alone for entry in batch.bad)
    assert [row for row, _ in together[0].bad] == [3, 4, 6, 7]
