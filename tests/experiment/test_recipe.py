"""Which layout of the active codes a training takes, by platform."""

import types
from unittest import mock

import numpy as np
import pytest
from jax.sharding import Mesh

from bsjax import presets
from bsjax.experiment.recipe import make_recipe


def mesh_of(platform, n_devices=1):
    """As much of a mesh as is looked at."""
    devices = np.array([types.SimpleNamespace(platform=platform)] * n_devices, object)
    return mock.Mock(spec=Mesh, size=n_devices, devices=devices)


@pytest.mark.parametrize(
    ("platform", "n_devices", "loss", "low", "full"),
    [
        ("cpu", 1, "mse", False, True),
        ("gpu", 1, "mse", False, False),  # atomic additions: no fixed order
        ("tpu", 1, "mse", False, False),
        ("gpu", 8, "mse", False, False),
        ("gpu", 1, "aux", False, False),
    ],
)
def test_layout(platform, n_devices, loss, low, full):
    config = presets.experiment()
    config.train.loss, config.train.compute_dtype = loss, "bfloat16"
    made = make_recipe(config, mesh_of(platform, n_devices), 1_000_000)
    assert (made.low.is_compact, made.full.is_compact) == (low, full)
    assert (made.low.compute_dtype, made.full.compute_dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_tpu_works_on_a_few_tokens_at_a_time(platform):
    config = presets.experiment()
    config.train.supply, config.train.full_precision = "store", "high"
    made = make_recipe(config, mesh_of(platform), 1_000_000).full
    assert (made.rows_at_once > 0) == (platform == "tpu")
    assert made.bfloat16_tokens == (platform == "tpu")


@pytest.mark.parametrize(
    ("supply", "precision"), [("memory", "high"), ("images", "high"), ("store", "highest")]
)
def test_two_passes_are_for_stored_tokens_in_high_precision(supply, precision):
    config = presets.experiment()
    config.train.supply, config.train.full_precision = supply, precision
    assert not make_recipe(config, mesh_of("tpu"), 1_000_000).full.bfloat16_tokens


def test_more_entries_than_a_place_can_name_are_not_compact():
    config = presets.experiment()
    config.train.loss, config.train.tokens_per_step = "mse", 2**20
    for n_concepts, is_compact in ((2**11, False), (2**11 - 1, True)):
        config.train.n_concepts = n_concepts
        assert make_recipe(config, mesh_of("cpu"), 10**7).full.is_compact == is_compact
