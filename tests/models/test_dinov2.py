"""DINOv2 agrees with transformers' torch models, for every kind of variant and image size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from bsjax.convert import dinov2 as convert
from bsjax.core.mesh import make_mesh, over_data
from bsjax.models.dinov2 import VARIANTS, DinoV2, DinoV2Config, normalise_images, token_grid

TINY = {
    "plain": DinoV2Config(32, 2, 4, pretrain_grid=5),
    "registers": DinoV2Config(32, 2, 4, n_registers=4, pretrain_grid=5),
    "swiglu": DinoV2Config(24, 2, 2, mlp="swiglu", pretrain_grid=5),
    "swiglu_registers": DinoV2Config(24, 2, 2, n_registers=3, mlp="swiglu", pretrain_grid=5),
}


def make_torch(config: DinoV2Config, seed: int = 0):
    """The torch model of these sizes, with no parameter left at a trivial value."""
    kind = "Dinov2WithRegisters" if config.n_registers else "Dinov2"
    sizes = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.n_heads,
        "image_size": 14 * config.pretrain_grid,
        "patch_size": 14,
        "use_swiglu_ffn": config.mlp == "swiglu",
    }
    if config.n_registers:
        sizes["num_register_tokens"] = config.n_registers
    torch.manual_seed(seed)
    settings = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}Model")(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def port(config: DinoV2Config, oracle, folder, dtype=jnp.float32):
    """The same weights in flax, through a real folder in the hub's layout."""
    oracle.save_pretrained(folder)
    return convert.load_config(DinoV2(config, dtype), str(folder), "the test's variant")


def tokens_of_torch(oracle, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        return oracle(pixels).last_hidden_state.numpy()


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("size", [(70, 70), (56, 56), (42, 98), (112, 84)])
def test_tokens_equal_transformers(kind, size, tmp_path):
    config = TINY[kind]
    oracle = make_torch(config)
    loaded = port(config, oracle, tmp_path)
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    expected = tokens_of_torch(oracle, images)
    got = jax.jit(loaded.model.apply)({"params": loaded.params}, images)
    assert got.shape == (2, token_grid(config, *size).n_tokens, config.width)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


def test_full_size_vits14_reg_equals_transformers(tmp_path):
    config = VARIANTS["vits14_reg"]
    oracle = make_torch(config)
    loaded = port(config, oracle, tmp_path)
    images = np.random.default_rng(2).normal(size=(1, 224, 224, 3)).astype(np.float32)
    expected = tokens_of_torch(oracle, images)
    got = jax.jit(loaded.model.apply)({"params": loaded.params}, images)
    assert got.shape == (1, 261, 384)
    # Twelve blocks of perturbed weights let tokens grow, so the bound is relative to their size.
    np.testing.assert_allclose(got, expected, atol=1e-4 * max(1.0, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("vits14", 22.06), ("vitb14", 86.58), ("vitl14", 304.37), ("vitg14", 1136.48)],
)
def test_parameter_counts_are_those_of_the_release(variant, millions):
    counts = {}
    for name in (variant, f"{variant}_reg"):
        config = VARIANTS[name]
        shapes = convert.abstract_params(DinoV2(config))
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # The released count includes the mask token, which inference does not need.
    assert counts[variant] + VARIANTS[variant].width == pytest.approx(millions * 1e6, rel=1e-3)
    assert counts[f"{variant}_reg"] - counts[variant] == 4 * VARIANTS[variant].width


def test_one_device_equals_eight():
    model = DinoV2(TINY["registers"])
    images = jnp.asarray(np.random.default_rng(0).normal(size=(8, 28, 42, 3)), jnp.float32)
    params = model.init(jax.random.key(0), images[:1])
    apply = jax.jit(model.apply)
    alone = apply(params, images)
    spread = apply(params, jax.device_put(images, over_data(make_mesh())))
    np.testing.assert_allclose(alone, spread, atol=1e-5)


def test_bfloat16_stays_near_float32(tmp_path):
    config = TINY["registers"]
    loaded = port(config, make_torch(config), tmp_path)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 56, 56, 3)), jnp.float32)
    params = jax.tree.map(jnp.asarray, loaded.params)
    exact = loaded.model.apply({"params": params}, images)
    rough = DinoV2(config, jnp.bfloat16).apply({"params": params}, images)
    assert rough.dtype == jnp.float32
    error = np.abs(np.asarray(rough - exact))
    assert 0 < error.mean() < 0.03 * np.abs(np.asarray(exact)).mean()


def test_gradient_reaches_every_parameter():
    model = DinoV2(TINY["swiglu_registers"])
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 28, 28, 3)), jnp.float32)
    params = model.init(jax.random.key(0), images)["params"]

    def loss(params):
        return jnp.sum(jnp.square(model.apply({"params": params}, images))[..., 0])

    gradient = jax.grad(loss)(params)
    flat = jax.tree_util.tree_leaves_with_path(gradient)
    assert not [path for path, leaf in flat if float(jnp.abs(leaf).max()) == 0]


def test_pixels_are_normalised_as_imagenet():
    pixels = np.array([0, 128, 255], np.uint8)[None, None, None]
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalise_images(jnp.asarray(pixels)), expected, atol=1e-6)


def test_sides_must_be_multiples_of_the_patch():
    with pytest.raises(ValueError, match="multiples of 14, got 28x30"):
        token_grid(TINY["plain"], 28, 30)
