"""Scenes follow from their seeds, and show what their captions and factors say."""

import io
import itertools
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bsjax.core.errors import UserError
from bsjax.data import scenes
from bsjax.data.sources import list_source, read_image


def test_a_scene_follows_from_its_seed_alone():
    first = [scenes.scene(7, index) for index in range(3)]
    again = [scenes.scene(7, index) for index in reversed(range(3))][::-1]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert a.caption == b.caption
        assert a.factors == b.factors
    assert not np.array_equal(first[1].image, scenes.scene(8, 1).image)


@pytest.mark.parametrize("index", range(1, 25))
def test_caption_mask_and_factors_agree(index):
    scene = scenes.scene(0, index)
    names = {name: values[scene.factors[i]] for i, (name, values) in
             enumerate(scenes.FACTORS.items())}  # fmt: skip
    words = scene.caption.replace(",", " ").split()
    assert names["count"] in words
    assert names["colour"] in words
    assert any(word.startswith(names["shape"]) for word in words)
    assert scenes.BACKGROUNDS[names["background"]] in scene.caption
    _, n_objects = ndimage.label(scene.mask, np.ones((3, 3)))
    assert n_objects == scene.factors.count + 1
    # Away from the darker rim an object has its colour, give or take light, tint and noise.
    inner = ndimage.binary_erosion(scene.mask, iterations=2)
    found = np.median(scene.image[inner], axis=0)
    wanted = np.array(scenes.COLOURS[names["colour"]])
    assert np.abs(found - wanted).max() < 60


@pytest.mark.parametrize("pair", list(itertools.combinations(scenes.SHAPES, 2)), ids="-".join)
def test_shapes_differ(pair):
    y, x = np.mgrid[-1.2:1.2:48j, -1.2:1.2:48j].astype(np.float32)
    one, two = (scenes.DISTANCES[shape](x, y) < 0 for shape in pair)
    assert (one & two).sum() < 0.88 * (one | two).sum()


def test_shapes_fill_their_place():
    y, x = np.mgrid[-1.3:1.3:64j, -1.3:1.3:64j].astype(np.float32)
    for shape, distance in scenes.DISTANCES.items():
        inside = distance(x, y) < 0
        reach = np.hypot(x, y)[inside].max()
        assert 0.8 < reach < 1.25, shape
        assert 0.15 < inside.sum() * (2.6 / 64) ** 2 / np.pi < 1.0, shape


def test_factors_are_drawn_evenly():
    rng = scenes.generator(0)
    drawn = np.array([scenes.draw_factors(rng) for _ in range(8000)])
    for column, values in enumerate(scenes.FACTORS.values()):
        shares = np.bincount(drawn[:, column], minlength=len(values)) / len(drawn)
        assert np.abs(shares * len(values) - 1).max() < 0.15


def test_titled_scenes_are_the_same_in_every_set():
    for number in (0, 3):
        index = number * scenes.GALLERY_EVERY
        one, two = scenes.scene(1, index), scenes.scene(2, index)
        assert np.array_equal(one.image, two.image)
        assert one.caption == two.caption == scenes.titled_caption(number)
        assert one.caption.startswith(scenes.TITLES[number])
    behind = scenes.scene(1, len(scenes.TITLES) * scenes.GALLERY_EVERY)
    assert "," not in behind.caption or not behind.caption.startswith(scenes.TITLES)


def test_as_a_source():
    images, identity = list_source("scenes", "3", limit=30)
    again, _ = list_source("scenes", "3", limit=30)
    assert len(images.records) == 30
    assert identity != list_source("scenes", "4", limit=30)[1]
    record = pickle.loads(pickle.dumps(images.records))[27]
    scene = scenes.scene(3, 27)
    assert record.caption == scene.caption == again.records[27].caption
    for encoded in (record.read(), read_image(record.path)):
        with Image.open(io.BytesIO(encoded)) as image:
            assert np.array_equal(np.asarray(image), scene.image)


@pytest.mark.parametrize("seed", ["", "x", "-1"])
def test_another_seed_than_a_number_is_refused(seed):
    with pytest.raises(UserError, match="expected a whole number.*--config.real.path"):
        list_source("scenes", seed, limit=3)
