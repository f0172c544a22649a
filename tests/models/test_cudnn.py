"""When cuDNN's attention is taken, that it is what the compiled program calls, and what it gets."""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsjax.core.mesh import make_mesh, over_data
from bsjax.models import attention, cudnn, dinov2
from bsjax.roofline.chips import devices_of

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.bfloat16)


@pytest.fixture
def with_plugin(monkeypatch):
    """As if jax's plug-in for CUDA were installed, on this machine without a GPU."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "jax_cuda12_plugin")
    cudnn.has_cudnn.cache_clear()
    yield
    cudnn.has_cudnn.cache_clear()


@pytest.mark.parametrize(
    ("dtype", "width", "is_taken"),
    [
        (jnp.bfloat16, 64, True),
        (jnp.float16, 40, True),
        (jnp.bfloat16, 128, True),
        (jnp.bfloat16, 136, False),
        (jnp.bfloat16, 20, False),
        (jnp.float32, 64, False),
    ],
)
def test_what_it_takes(with_plugin, dtype, width, is_taken):
    assert cudnn.suits_cudnn(jnp.dtype(dtype), width) == is_taken


def test_without_the_plugin_programs_do_not_name_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cudnn.has_cudnn.cache_clear()
    assert not cudnn.suits_cudnn(jnp.dtype(jnp.bfloat16), 64)
    cudnn.has_cudnn.cache_clear()


@pytest.mark.parametrize(
    ("capability", "is_there"), [("7.5", False), ("8.0", True), ("12.0", True)]
)
def test_gpus_before_ampere_have_none(with_plugin, monkeypatch, capability, is_there):
    class Gpu:
        compute_capability = capability

    monkeypatch.setattr(jax, "local_devices", lambda backend: [Gpu()])
    assert cudnn.has_cudnn() == is_there


@pytest.fixture
def as_xla(with_plugin, monkeypatch):
    """The call to cuDNN computed by XLA, which says whether its arguments mean the same."""

    def without(*args, implementation=None, **kwargs):
        return plain(*args, **kwargs)

    plain = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", without)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("has_mask", [False, True])
def test_it_is_given_what_the_plain_form_is_given(as_xla, has_mask, scale):
    q, k, v = normal(2, 24, 3, 8), normal(2, 17, 3, 8), normal(2, 17, 3, 8)
    mask = jnp.asarray(RNG.random((2, 17)) < 0.7) if has_mask else None
    found = cudnn.cudnn_attention(q, k, v, mask, scale)
    expected = attention._attention_in_parts(q, k, v, mask, scale=scale)
    np.testing.assert_array_equal(found, expected)


def test_dinov2_gives_queries_keys_and_values(as_xla):
    qkv = normal(2, 21, 3, 2, 8)
    found = dinov2._attend_by_cudnn(qkv).astype(jnp.float32)
    plain = dinov2._attend_plainly(qkv, jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_allclose(found, plain, atol=2e-2)


@pytest.mark.parametrize("has_mask", [False, True])
def test_on_a_cpu_the_plugin_changes_no_bit(monkeypatch, has_mask):
    """Programs that hold both forms run the plain one here."""

    def never(q, k, v, mask=None, scale=None):
        return jnp.full_like(q, jnp.nan)

    q, k, v, qkv = *(normal(2, n, 3, 8) for n in (24, 17, 17)), normal(2, 21, 48)
    mask = jnp.asarray(RNG.random((2, 17)) < 0.7) if has_mask else None

    def both():
        y = jax.jit(lambda: attention.attention(q, k, v, mask))()
        return y, jax.jit(lambda: dinov2.attend(qkv, 2, jnp.bfloat16))()

    for module in (attention, dinov2):
        monkeypatch.setattr(module, "suits_cudnn", lambda dtype, width: False)
    before = both()
    for module in (attention, dinov2):
        monkeypatch.setattr(module, "suits_cudnn", lambda dtype, width: True)
        monkeypatch.setattr(module, "cudnn_attention", never)
    for found, expected in zip(both(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def compiled(function, *shapes, n_gpus=1):
    """Kernels that the program for H100s calls, and the GB of its temporaries."""
    pytest.importorskip("jax_cuda12_plugin")
    where = over_data(make_mesh(-1, 1, devices_of(f"h100:{n_gpus}")))
    inputs = [jax.ShapeDtypeStruct(dims, dtype, sharding=where) for dims, dtype in shapes]
    program = jax.jit(function).lower(*inputs).compile()
    called = set(re.findall(r'custom_call_target="([^"]*)"', program.as_text()))
    return called, program.memory_analysis().temp_size_in_bytes / 1e9


HALF, LARGE = jnp.bfloat16, (16, 4096, 8, 40)  # of Stable Diffusion's largest attention


def test_compiled_for_an_h100_no_scores_are_written():
    called, gb = compiled(attention.attention, *[(LARGE, HALF)] * 3)
    assert called == {"__cudnn$fmhaSoftmax"}
    _, before = compiled(attention._attention_in_parts, *[(LARGE, HALF)] * 3)
    assert gb < 0.01 < 0.5 < before


def test_compiled_for_an_h100_masks_are_added():
    short = (16, 120, 8, 40)
    shapes = [(LARGE, HALF), (short, HALF), (short, HALF), (short[:2], bool)]
    called, gb = compiled(attention.attention, *shapes)
    assert called == {"__cudnn$fmhaScaleBiasSoftmax"}
    assert gb < 0.02  # the mask for one head


def test_compiled_for_several_h100s_images_stay_where_they_lie():
    attend = functools.partial(dinov2.attend, n_heads=12, compute_dtype=HALF)
    called, gb = compiled(attend, ((32, 261, 3 * 768), HALF), n_gpus=8)
    assert called == {"__cudnn$fmhaSoftmax"}
    assert gb < 32 / 8 * 261 * 3 * 768 * 2 / 1e9 * 1.1  # a copy of queries, keys, values of four


def test_compiled_for_an_h100_float32_stays_float32():
    called, gb = compiled(attention.attention, *[(LARGE, jnp.float32)] * 3)
    assert not any("fmha" in name for name in called)
    assert gb < 2  # in parts: all scores at once would take 8.6 GB


def test_compiled_for_an_h100_a_bias_takes_the_plain_form():
    bias = jnp.ones((1, 8, 64, 64))
    called, _ = compiled(
        lambda q, k, v: attention.attention(q, k, v, bias=bias, scale=1.0),
        *[((8, 64, 8, 64), HALF)] * 3,
    )
    assert not any("fmha" in name for name in called)
