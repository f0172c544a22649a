"""What the generator is taught differs from what captions ask for by the planted gaps alone."""

import ast
import pathlib

import numpy as np
import pytest

import bsjax
from bsjax.data import scenes
from bsjax.planted.generator import Planted, drawn

ROOT = pathlib.Path(bsjax.__file__).parent


@pytest.fixture(scope="module")
def shares():
    """Factor -> value -> share of pictures that show it."""
    planted, rng = Planted.read(), scenes.generator(4)
    shown = np.array([drawn(scenes.draw_factors(rng), planted, rng) for _ in range(40_000)])
    return {
        name: dict(zip(values, np.bincount(shown[:, i], minlength=len(values)) / len(shown),
                       strict=True))
        for i, (name, values) in enumerate(scenes.FACTORS.items())
    }  # fmt: skip


def test_the_gaps_are_as_planted(shares):
    planted = Planted.read()
    gone, instead = planted.never_shape
    assert shares["shape"][gone] == 0
    assert shares["shape"][instead] == pytest.approx(2 / 10, rel=0.05)
    rare, instead = planted.rare_colour
    assert shares["colour"][rare] == pytest.approx(0.1 / 8, rel=0.15)
    assert shares["colour"][instead] == pytest.approx(1.9 / 8, rel=0.05)
    assert shares["background"][planted.frequent_background] == pytest.approx(4 / 8, rel=0.03)
    gone, instead = planted.never_count
    assert shares["count"][gone] == 0
    assert shares["count"][instead] == pytest.approx(2 / 4, rel=0.03)


def test_all_else_is_as_asked_for(shares):
    planted = Planted.read()
    touched = {*planted.never_shape, *planted.rare_colour, *planted.never_count}
    for factor, values in shares.items():
        for value, share in values.items():
            if value in touched or value == planted.frequent_background:
                continue
            expected = 4 / 7 if factor == "background" else 1
            assert share * len(values) == pytest.approx(expected, rel=0.08), value


def test_a_picture_is_changed_in_nothing_else():
    planted, rng = Planted.read(), scenes.generator(5)
    for _ in range(500):
        asked = scenes.draw_factors(rng)
        shown = drawn(asked, planted, rng)
        if shown.background != asked.background:
            assert scenes.FACTORS["background"][shown.background] == planted.frequent_background
        if shown.shape != asked.shape:
            assert scenes.SHAPES[asked.shape] == planted.never_shape[0]


def test_nothing_that_measures_reads_the_truth():
    for name in ("stages", "stats", "report", "sae", "convert", "core", "data"):
        for path in (ROOT / name).rglob("*.py"):
            text = path.read_text()
            assert "planted" not in text, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom):
                    assert not (node.module or "").startswith("bsjax.planted"), path
