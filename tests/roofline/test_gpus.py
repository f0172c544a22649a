"""GPUs that are not there: their names, what compilers are told of them, and what is counted."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import roofline, topologies

from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh, replicated
from bsjax.models.dinov2 import DinoV2, DinoV2Config
from bsjax.roofline import chips, gpus
from bsjax.roofline.compiled import cost_of

H100 = chips.CHIPS["NVIDIA H100 80GB HBM3"]


def once(dtype, precision):
    return 1


def test_every_card_has_rates_that_are_those_told_to_the_compiler():
    for card in gpus.CARDS.values():
        chip = chips.CHIPS[card.kind]
        assert card.bandwidth == chip.bandwidth
        assert card.memory == pytest.approx(chip.memory, rel=0.08)  # GiB and GB, less ECC
        assert chip.f32_flops < chip.tf32_flops < chip.flops
        text = gpus.target_config(card)
        assert text.count("{") == text.count("}") == 3
        major, minor = card.capability
        assert f"major: {major} minor: {minor} }}" in text and f'"{card.kind}"' in text


@pytest.mark.parametrize("topology", ["h100:x", "h100:0", "h100:8:8", "h100:2000"])
def test_numbers_of_gpus(topology):
    with pytest.raises(UserError, match="expected a number of GPUs from 1 to 1024, as in h100:8"):
        chips.devices_of(topology)


def test_without_the_plugin_one_line_tells_what_to_install(monkeypatch):
    def absent(**kwargs):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topologies, "get_topology_desc", absent)
    with pytest.raises(UserError) as caught:
        chips.devices_of("h100:8")
    line = str(caught.value)
    assert "\n" not in line and 'pip install ".[plan-gpu]"' in line


def test_an_unknown_card_is_told_the_known_ones():
    with pytest.raises(UserError, match="h100, h200"):
        chips.devices_of("v100:8")


def test_jax_takes_a_part_of_a_gpu_and_all_of_a_tpu(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert chips.usable_memory(H100) == 60e9
    assert chips.usable_memory(chips.CHIPS["TPU v5 lite"]) == 16e9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert chips.usable_memory(H100) == pytest.approx(72e9)


class Lowered:
    """Compiles only without Triton's products, as XLA does where there is no GPU to try on."""

    def __init__(self, message):
        self.message = message

    def compile(self, compiler_options=None):
        if compiler_options != {"xla_gpu_enable_triton_gemm": False}:
            raise jax.errors.JaxRuntimeError(self.message)
        return "program"


def test_products_that_triton_cannot_tile_are_left_to_cublas():
    found = gpus.compile_anywhere(Lowered("INTERNAL: Couldn't find output tile sizes that satisfy"))
    assert found == ("program", "xla_gpu_enable_triton_gemm=false")
    with pytest.raises(jax.errors.JaxRuntimeError, match="another"):
        gpus.compile_anywhere(Lowered("another fault"))


# Programs without a loop, on which other counts are right too.
def products():
    shapes = (64, 32), (32, 128), (128, 48)
    return lambda a, b, c: a @ b @ c, [jax.ShapeDtypeStruct(dims, jnp.float32) for dims in shapes]


def convolution():
    def function(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shapes = (2, 16, 16, 8), (3, 3, 8, 24)
    return function, [jax.ShapeDtypeStruct(dims, jnp.float32) for dims in shapes]


def transformer():
    module = DinoV2(DinoV2Config(64, 2, 2, pretrain_grid=4))
    images = jax.ShapeDtypeStruct((2, 56, 56, 3), jnp.float32)
    return module.apply, [jax.eval_shape(module.init, jax.random.key(0), images), images]


@pytest.mark.parametrize("case", [products, convolution, transformer])
def test_the_count_is_that_of_xla_and_of_jax(case, monkeypatch):
    function, arguments = case()
    compiled = jax.jit(function).lower(*arguments).compile()
    found, theirs = cost_of(compiled.as_text()), compiled.cost_analysis()
    assert found.bytes == theirs["bytes accessed"]
    # XLA counts an operation for each element of the rest too: few, beside products.
    assert found.flops <= theirs["flops"] <= 1.2 * found.flops
    # jax does not look into the ways of platforms, whose products are the same.
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *of, default, **_: default(*of))
    mesh = make_mesh(1, 1, jax.devices()[:1])
    specs = (jax.P(),) * len(arguments)
    _, known = roofline.roofline(function, mesh=mesh, in_specs=specs, out_specs=jax.P())(*arguments)
    # jax counts a convolution among what is not fused.
    assert found.flops == (known.flops or known.unfused_flops)


@pytest.mark.parametrize("options", [{}, gpus.NO_TRITON])
@pytest.mark.parametrize("case", [products, convolution, transformer])
def test_an_h100_does_as_many_as_a_cpu(case, options):
    """Whether products are XLA's own, Triton's, or those of cuBLAS and cuDNN."""
    pytest.importorskip("jax_cuda12_plugin")
    function, arguments = case()
    expected = cost_of(jax.jit(function).lower(*arguments).compile().as_text()).flops
    where = replicated(make_mesh(1, 1, chips.devices_of("h100:1")))
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), arguments
    )
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    # Position embeddings are resized by products of other shapes.
    assert cost_of(compiled.as_text(), once).flops == pytest.approx(expected, rel=0.03)


def test_devices_of_every_card():
    pytest.importorskip("jax_cuda12_plugin")
    for name, card in gpus.CARDS.items():
        chip, n_chips = chips.share_of_chip(chips.devices_of(f"{name}:4"))
        assert (chip, n_chips) == (chips.CHIPS[card.kind], 4)
    assert len(chips.devices_of("h200")) == 1
