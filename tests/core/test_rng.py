"""Draws depend on the seed alone, not on settings of jax that a program finds around itself."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from bsjax.core import rng
from bsjax.core.errors import UserError

REPO = pathlib.Path(__file__).resolve().parents[2]
# Draws of every kind that the package makes, each by the function that makes it.
DRAWS = """
import json, jax, numpy as np
from bsjax.convert.dinov2 import load_dinov2
from bsjax.core.mesh import make_mesh
from bsjax.core.rng import item_key, stage_key
from bsjax.generators.protocol import normal_rows
from bsjax.sae.candidates import fit_candidates
from bsjax.sae.encoder import init_encoder
key = stage_key(0, "x")
tokens = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
drawn = [
    jax.random.normal(key, (3,)),
    normal_rows(jax.random.split(item_key(key, 1), 2), (3,)),
    init_encoder(key, 4, 8)["kernel"],
    fit_candidates(key, tokens, 6, 2, make_mesh(1, 1, jax.devices()[:1]))[0],
    load_dinov2("vitxs8_reg", "random:0").params["cls_token"],
]
drawn = [np.asarray(array) for array in drawn]
print(json.dumps([[str(array.dtype), array.ravel().tolist()] for array in drawn]))
"""


def draw(**environment):
    environment = {
        name: text for name, text in os.environ.items() if "XLA" not in name
    } | environment
    return subprocess.run(
        [sys.executable, "-c", DRAWS], env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def plain():
    done = draw()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_draws_are_those_of_today(plain):
    np.testing.assert_array_equal(
        np.float32(plain[0][1]), np.asarray(jax.random.normal(rng.stage_key(0, "x"), (3,)))
    )
    expected = [-1.65704596, -0.13070154, 0.27498534]  # as before anything was named
    np.testing.assert_allclose(plain[0][1], expected, rtol=1e-6)
    assert {dtype for dtype, _ in plain} == {"float32"}


@pytest.mark.parametrize(
    "name_and_value",
    [
        "JAX_DEFAULT_PRNG_IMPL=rbg",
        "JAX_DEFAULT_PRNG_IMPL=unsafe_rbg",
        "JAX_HIGH_DYNAMIC_RANGE_GUMBEL=1",
        "JAX_DEFAULT_DTYPE_BITS=64",
        "JAX_NUMPY_RANK_PROMOTION=raise",
        "JAX_ENABLE_CUSTOM_PRNG=1",
    ],
)
def test_settings_that_change_nothing(plain, name_and_value):
    name, value = name_and_value.split("=")
    done = draw(**{name: value})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_ENABLE_X64", "1"),
        ("JAX_THREEFRY_PARTITIONABLE", "0"),
        ("JAX_RANDOM_SEED_OFFSET", "1"),
    ],
)
def test_settings_that_would_change_draws_are_refused(name, value):
    done = draw(**{name: value})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last and name in last and f"unset {name}" in last


def test_settings_made_in_the_program_are_refused_too():
    with (
        jax.enable_x64(True),
        pytest.raises(UserError, match=r"set jax\.config\.jax_enable_x64 to"),
    ):
        rng.stage_key(0, "x")
    with jax.debug_nans(True):
        rng.stage_key(0, "x")
        with pytest.raises(UserError, match="JAX_DEBUG_NANS=True: expected False"):
            rng.require_plain_settings()
