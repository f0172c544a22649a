"""FLOPs of the kernels of cuBLAS and cuDNN that programs for GPUs call, from the shapes alone."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

# Calls of these libraries whose work is counted here; others do no products.
LIBRARIES = ("__cublas$", "__cudnn$")
# cuDNN writes no norm or product of another kind in our programs.
GEMMS = ("__cublas$gemm", "__cublas$lt$matmul")
CONVOLUTIONS = ("__cudnn$convForward", "__cudnn$convBiasActivationForward")
ATTENTION = "__cudnn$fmha"


class Product(NamedTuple):
    """Of a kernel: operations as if each counted once, and what makes them count more."""

    flops: float
    precision: str  # default | high | highest, or the name of an algorithm


def target_of(rest: str) -> str:
    """The library's name for the kernel of a custom call; what follows the operands is given."""
    found = re.search(r'custom_call_target="([^"]*)"', rest)
    return found[1] if found else ""


def gemm(rest: str, left: Sequence[int], out: Sequence[int]) -> Product:
    """A product of matrices by cuBLAS."""
    contracted = re.search(r'"lhs_contracting_dimensions":\s*\[([^\]]*)\]', rest)[1]
    n = math.prod(left[int(place)] for place in re.findall(r"\d+", contracted))
    precision = re.search(r'"operand_precision":\s*\["(\w+)"', rest)
    algorithm = re.search(r'"algorithm":\s*"ALG_DOT_(\w+)"', rest)
    name = algorithm[1] if algorithm else precision[1] if precision else "default"
    return Product(2.0 * math.prod(out) * n, name.lower())


def attention(rest: str, query: Sequence[int]) -> Product:
    """Both products of cuDNN's flash attention, over all keys."""
    scores = re.search(r'"intermediate_tensor_shape":.*?"dimensions":\s*\[([^\]]*)\]', rest)[1]
    n = math.prod(int(size) for size in re.findall(r"\d+", scores))  # B H Q S
    if "backward" in target_of(rest).lower():
        raise ValueError("the work of a backward attention is not known")
    return Product(2 * 2.0 * n * query[-1], "default")
