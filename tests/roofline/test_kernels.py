"""What kernels of cuBLAS and cuDNN compute, by lines of programs compiled for GPUs."""

import pytest

from bsjax.roofline.chips import CHIPS, passes_of_tpu, weight_of
from bsjax.roofline.compiled import cost_of

GEMM = (
    '"gemm_backend_config":{"beta":0,"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],'
    '"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]},'
    '"precision_config":{"operand_precision":["HIGHEST","HIGHEST"],"algorithm":"ALG_UNSET"}}'
)
FMHA = (
    '"cudnn_fmha_backend_config": {"fmha_scale": 0.158, "intermediate_tensor_shape": {'
    '"element_type": "BF16", "dimensions": ["2", "8", "1024", "77"], "tuple_shapes": []}}'
)


def program(left, right, out, call):
    """One kernel with two operands, a result and room to work in."""
    types = [f"{each.split('[')[0]}[{each.split('[')[1]}" for each in (left, right, out)]
    return f"""HloModule m
ENTRY %main (a: {types[0]}, b: {types[1]}) -> {types[2]} {{
  %a = {types[0]} parameter(0)
  %b = {types[1]} parameter(1)
  %c = ({types[2]}, s8[4194304]{{0}}) custom-call(%a, %b), {call}
  ROOT %d = {types[2]} get-tuple-element(%c), index=0
}}
"""


def gemm(settings=GEMM, target="__cublas$lt$matmul"):
    call = f'custom_call_target="{target}", backend_config={{{settings}}}'
    return program("f32[4,128,64]", "f32[4,64,256]", "f32[4,128,256]", call)


def test_a_product_by_cublas():
    found = cost_of(gemm(), lambda dtype, precision: 1)
    assert found.flops == 2 * 4 * 128 * 64 * 256
    # Both operands and the result; not the 4 MB that it may work in.
    assert found.bytes == 4 * (4 * 128 * 64 + 4 * 64 * 256 + 4 * 128 * 256)


def test_attention_by_cudnn():
    call = f'custom_call_target="__cudnn$fmhaSoftmax", backend_config={{{FMHA}}}'
    text = program("bf16[2,1024,8,40]", "bf16[2,77,8,40]", "bf16[2,8,1024,40]", call)
    assert cost_of(text).flops == 2 * 2 * 2 * 8 * 1024 * 77 * 40


def test_a_convolution_by_cudnn():
    call = (
        "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f,"
        ' custom_call_target="__cudnn$convForward", backend_config={}'
    )
    text = program("bf16[1,8,8,4]", "bf16[6,3,3,4]", "bf16[1,8,8,6]", call)
    assert cost_of(text).flops == 2 * 4 * 6 * 22 * 22  # as in test_compiled, without the border


def test_work_that_is_not_known_is_not_taken_for_none():
    for target in ("__cublas$lt$matmul$f8", "__cudnn$convBackwardFilter"):
        with pytest.raises(ValueError, match="is not known"):
            cost_of(gemm(target=target))
    backward = f'custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={{{FMHA}}}'
    with pytest.raises(ValueError, match="backward attention is not known"):
        cost_of(program("bf16[2,1024,8,40]", "bf16[2,77,8,40]", "bf16[2,8,1024,40]", backward))


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        ("bf16", "default", 1),
        ("f16", "highest", 1),
        ("f32", "highest", 989 / 67),
        ("f32", "high", 989 / 494),
        ("f32", "default", 989 / 494),
        ("f32", "bf16_bf16_f32_x3", 3),
        ("f32", "bf16_bf16_f32", 1),
        ("f32", "tf32_tf32_f32_x3", 3 * 989 / 494),
    ],
)
def test_float32_counts_by_how_much_slower_it_is(dtype, precision, expected):
    assert weight_of(CHIPS["NVIDIA H100 80GB HBM3"])(dtype, precision) == pytest.approx(expected)


def test_the_precision_is_read_from_the_call():
    exact = cost_of(gemm(), weight_of(CHIPS["NVIDIA H100 80GB HBM3"])).flops
    assert exact == pytest.approx(2 * 4 * 128 * 64 * 256 * 989 / 67)
    named = GEMM.replace("ALG_UNSET", "ALG_DOT_TF32_TF32_F32")
    rounded = cost_of(gemm(named), weight_of(CHIPS["NVIDIA H100 80GB HBM3"])).flops
    assert rounded == pytest.approx(2 * 4 * 128 * 64 * 256 * 989 / 494)


def test_a_tpu_counts_passes():
    for chip in (None, CHIPS["TPU v5 lite"]):
        weight = weight_of(chip)
        assert weight is passes_of_tpu
        assert [weight("f32", name) for name in ("default", "high", "highest")] == [1, 3, 6]
