"""The cost read from a compiled program, against what is known of small ones."""

import functools

import jax
import jax.numpy as jnp
import pytest

from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh, replicated
from bsjax.models.attention import flash_attention
from bsjax.roofline.chips import CHIPS, devices_of, roofline, share_of_chip
from bsjax.roofline.compiled import Cost, cost_of

ONE = 2 * 64 * 32 * 16  # operations of a product of 64 x 32 and 32 x 16
A, B = jnp.ones((64, 32)), jnp.ones((32, 16))


def cost(function, *arguments):
    return cost_of(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_product():
    found = cost(lambda a, b: a @ b, A, B)
    assert found.flops == ONE
    assert found.bytes >= 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert not found.collectives


def test_a_loop_counts_as_often_as_it_runs():
    def loop(a, b):
        return jax.lax.fori_loop(0, 7, lambda i, a: jnp.tanh(a @ b @ b.T), a)

    assert cost(loop, A, B).flops == 7 * 2 * ONE

    def nested(a, b):
        return jax.lax.fori_loop(0, 3, lambda i, a: loop(a, b) + i, a)

    assert cost(nested, A, B).flops == 3 * 7 * 2 * ONE


def test_of_a_condition_the_cheaper_branch_counts_and_the_other_is_told():
    def either(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a, lambda a: jnp.tanh(a @ b @ b.T), a)

    found = cost(either, A, B)
    assert found.flops == 0
    assert found.fallback_bytes > 4 * 64 * 32


SLICES = """HloModule m
%inner (p: f32[64,32], i: s32[]) -> f32[8,32] {
  %p = f32[64,32]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[8,32]{1,0} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={8,32}
}
%outer (q: f32[64,32], j: s32[]) -> f32[8,32] {
  %q = f32[64,32]{1,0} parameter(0)
  %j = s32[] parameter(1)
  %f = f32[8,32]{1,0} fusion(%q, %j), kind=kLoop, calls=%inner
  ROOT %n = f32[8,32]{1,0} MORE
}
ENTRY %main (a: f32[64,32], k: s32[]) -> f32[8,32] {
  %a = f32[64,32]{1,0} parameter(0)
  %k = s32[]{:S(6)} parameter(1)
  %room = f32[64,32]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %o = f32[8,32]{1,0} fusion(%a, %k), kind=kOutput, calls=%outer
}
"""


@pytest.mark.parametrize(
    ("more", "read"),
    [("negate(%f)", 8), ("slice(%q), slice={[0:8], [0:32]}", 64)],
    ids=["a slice", "all"],
)
def test_of_an_array_that_a_fusion_slices_the_slice_is_read(more, read):
    """Also where the slice is taken by a fusion within; room that is made costs nothing."""
    found = cost_of(SLICES.replace("MORE", more))
    assert found.bytes == 4 * 32 * (read + 8) + 4


def test_a_slice_that_is_fetched_ahead_counts_alone():
    text = """HloModule m
ENTRY %main (a: f32[64,32]) -> f32[8,32] {
  %a = f32[64,32]{1,0} parameter(0)
  %b = ((f32[64,32]{1,0}), f32[8,32]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:8], [0:32]}
  ROOT %c = f32[8,32]{1,0:S(1)} slice-done(%b)
}
"""
    assert cost_of(text).bytes == 4 * 8 * 32


def convolution(window, left, right, out):
    """A program of one convolution, as the TPU compiler writes it."""
    labels = "dim_labels=b01f_01io->b01f"
    return cost_of(
        f"""HloModule m
ENTRY %main (a: f32[{left}], b: f32[{right}]) -> f32[{out}] {{
  %a = f32[{left}]{{3,2,1,0}} parameter(0)
  %b = f32[{right}]{{3,2,1,0}} parameter(1)
  ROOT %c = f32[{out}]{{3,2,1,0}} convolution(%a, %b), window={{{window}}}, {labels}
}}
"""
    ).flops


def test_a_convolution_counts_what_it_multiplies():
    # A 3x3 window on 8x8 pixels with a border: 22 * 22 places inside, of 24 * 24.
    inside = convolution("size=3x3 pad=1_1x1_1", "1,8,8,4", "3,3,4,6", "1,8,8,6")
    assert inside == 2 * 4 * 6 * 22 * 22
    assert convolution("size=3x3", "1,8,8,4", "3,3,4,6", "1,6,6,6") == 2 * 6 * 6 * 6 * 4 * 9
    # Five products of matrices 7 x 4 and 4 x 6: a window of 5 of which one place counts.
    batched = convolution(
        "size=5x1 stride=4x1 pad=0_0x0_0 lhs_dilate=5x1", "1,5,7,4", "5,1,4,6", "1,5,7,6"
    )
    assert batched == 2 * 5 * 7 * 4 * 6


def test_a_kernel_tells_what_it_computes():
    pytest.importorskip("libtpu")
    sharding = replicated(make_mesh(1, 1, devices_of("v5e:2x2")[:1]))
    x = jax.ShapeDtypeStruct((1, 512, 2, 128), jnp.bfloat16, sharding=sharding)
    text = jax.jit(flash_attention).lower(x, x, x).compile().as_text()
    assert cost_of(text).flops == pytest.approx(2 * 2 * 2 * 512 * 512 * 128, rel=0.05)


def test_exchange_between_devices():
    mesh = make_mesh(8, 1)
    total = jax.shard_map(
        functools.partial(jax.lax.psum, axis_name="data"),
        mesh=mesh,
        in_specs=jax.P("data"),
        out_specs=jax.P(),
    )
    found = cost(total, jnp.ones((8, 100)))
    assert dict(found.collectives) == {("all-reduce", 8): 400}


def test_roofline_by_hand():
    chip = CHIPS["TPU v5 lite"]
    found = Cost(flops=197e12, bytes=819e9 / 2)
    found.collectives["all-reduce", 8] = 100e9
    seconds = roofline(found, chip)
    assert seconds == pytest.approx({"compute": 1, "memory": 0.5, "exchange": 2 * 7 / 8})


def test_tpu_topologies():
    pytest.importorskip("libtpu")
    for name, n_chips, memory in (("v5e:2x4", 8, 16e9), ("v4:2x2x2", 8, 16e9)):
        chip, found = share_of_chip(devices_of(name))
        assert (found, chip.memory) == (n_chips, memory)
    with pytest.raises(UserError, match="--topology=v0:1x1 cannot be compiled for"):
        devices_of("v0:1x1")
