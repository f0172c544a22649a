"""Real images through a system's own autoencoder, against torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from bsjax.generators.released import RELEASED
from bsjax.generators.round_trip import jit_round_trip, open_round_trip, round_trip_of
from tests.generators import hub
from tests.generators.parity import agree
from tests.generators.stripes import Stripes

# float32 sums in another order: 1e-6 of activations of order one, through 20 layers.
LIMIT = 2e-5
SETTINGS = Settings(steps=20, guidance=4.0, height=32, width=48, dtype="float32")


def images(height, width):
    return np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)


def through(name, folder, settings, prior=""):
    opened = loading.open_generator(name, "", {"": str(folder), "prior": str(prior)}, settings)
    found = open_round_trip(opened, name, str(folder))
    trip = found.round_trip
    pixels = images(trip.height, trip.width)
    ours = jax.jit(trip.apply)(jax.tree.map(jnp.asarray, found.read_params()), pixels)
    return pixels, torch.tensor(pixels.transpose(0, 3, 1, 2)), ours, found


@pytest.mark.parametrize("name", ["stable_diffusion", "pixart"])
def test_vae_is_torchs(tmp_path, name):
    vae = getattr(hub, name)(tmp_path).vae
    with torch.no_grad():
        _, x, ours, _ = through(name, tmp_path, SETTINGS)
        expected = vae.decode(vae.encode(x).latent_dist.mode()).sample
    agree(f"round trip of {name}", np.moveaxis(ours, -1, 1), expected, LIMIT)


def test_movq_is_torchs(tmp_path):
    _, decoder = hub.kandinsky(tmp_path / "decoder", tmp_path / "prior")
    with torch.no_grad():
        _, x, ours, _ = through("kandinsky", tmp_path / "decoder", SETTINGS, tmp_path / "prior")
        latents = decoder.movq.encode(x).latents
        expected = decoder.movq.decode(latents, force_not_quantize=True).sample
    agree("round trip of Kandinsky", np.moveaxis(ours, -1, 1), expected, LIMIT)


def test_other_weights_have_another_digest_and_lacking_ones_are_refused(tmp_path):
    pipeline = hub.stable_diffusion(tmp_path)
    digest = through("stable_diffusion", tmp_path, SETTINGS)[3].digest
    assert digest == through("stable_diffusion", tmp_path, SETTINGS)[3].digest
    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight *= 2
    pipeline.vae.save_pretrained(tmp_path / "vae")
    assert through("stable_diffusion", tmp_path, SETTINGS)[3].digest != digest
    del pipeline.vae.encoder
    pipeline.vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"encoder.*both halves"):
        through("stable_diffusion", tmp_path, SETTINGS)


@pytest.mark.parametrize("name", RELEASED)
def test_random_weights_decode_as_they_draw(name):
    variant = next(each for each in RELEASED[name] if each.endswith("_tiny"))
    settings = SETTINGS._replace(height=64, width=64)
    opened = loading.open_generator(name, variant, {"": "random:1"}, settings)
    found = open_round_trip(opened, name, "random:1")
    trip, params = found.round_trip, found.read_params()
    drawn = opened.read_params([trip.name])[trip.name]
    for path, leaf in jax.tree_util.tree_leaves_with_path(drawn):
        mine = params
        for key in path:
            mine = mine[key.key]
        np.testing.assert_array_equal(mine, leaf)
    # The whole image is drawn: what is asked for, whatever the autoencoder takes.
    levels = np.random.default_rng(1).integers(0, 256, (8, trip.height, trip.width, 3), np.uint8)
    samples = jit_round_trip(trip, "float32", make_mesh())(params, levels)
    assert samples.images.shape == (8, 64, 64, 3) and samples.is_finite.all()


def test_a_plug_in_without_one_is_named():
    with pytest.raises(UserError, match=r"measure.controls=vae: tests.*no round_trip"):
        round_trip_of(Stripes({}, SETTINGS), "tests.generators.stripes:Stripes")


def test_the_other_half_of_the_config_is_held_to_what_is_built(tmp_path):
    hub.stable_diffusion(tmp_path)
    opened = loading.open_generator("stable_diffusion", "", {"": str(tmp_path)}, SETTINGS)
    opened.generator.vae_config = opened.generator.vae_config | {"use_quant_conv": False}
    with pytest.raises(UserError, match=r"use_quant_conv=false: expected only true"):
        opened.generator.round_trip()
