"""NVIDIA's GPUs, as `plan` compiles for them on a machine that has none."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from bsjax.core.errors import UserError

LARGEST = 1024  # GPUs of a topology: beyond, a typing mistake is more likely


class Card(NamedTuple):
    """What the compiler asks of a card, beside the rates in `chips.CHIPS`.

    Sources: NVIDIA's data sheets and architecture white papers of each card (multiprocessors, L2,
    clock), CUDA C++ programming guide, table of compute capabilities (threads, shared memory).
    """

    kind: str  # as the driver names it
    capability: tuple[int, int]
    n_cores: int  # multiprocessors
    clock_ghz: float
    l2_bytes: int
    threads_per_core: int
    fpus_per_core: int
    shared_per_core: int  # bytes
    shared_per_block: int  # bytes, at most, if asked for
    memory: int  # bytes as the driver tells it
    bandwidth: float  # bytes/s


MB = 1 << 20
CARDS: Mapping[str, Card] = {
    "a100": Card("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 40 * MB, 2048, 64, 167936, 166912,
                 85_095_874_560, 2.039e12),
    "a100-40gb": Card("NVIDIA A100-SXM4-40GB", (8, 0), 108, 1.41, 40 * MB, 2048, 64, 167936,
                      166912, 42_297_786_368, 1.555e12),
    "l4": Card("NVIDIA L4", (8, 9), 58, 2.04, 48 * MB, 1536, 128, 102400, 101376,
               23_580_639_232, 0.3e12),
    "h100": Card("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 50 * MB, 2048, 128, 233472, 232448,
                 84_978_434_048, 3.35e12),
    "h200": Card("NVIDIA H200", (9, 0), 132, 1.98, 50 * MB, 2048, 128, 233472, 232448,
                 150_109_028_352, 4.8e12),
}  # fmt: skip

TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared_per_core} threads_per_core_limit: {threads_per_core}
  core_count: {n_cores} fpus_per_core: {fpus_per_core} block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: {l2_bytes} clock_rate_ghz: {clock_ghz} device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_per_block}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: {cudnn} patch: 0 }}
device_description_str: "{kind}"
"""
CUDNN = 8  # minor version: what the oldest jax that bsjax allows is built for
NO_TRITON = {"xla_gpu_enable_triton_gemm": False}


def is_gpu(topology: str) -> bool:
    """Whether a topology names a card of `CARDS`, as "h100:8" does."""
    return topology.split(":")[0] in CARDS


def target_config(card: Card) -> str:
    """The card as the compiler reads it: a GpuTargetConfigProto of XLA as text."""
    major, minor = card.capability
    return TARGET.format(**card._asdict(), major=major, minor=minor, cudnn=CUDNN)


def gpus_of(topology: str) -> list[jax.Device]:
    """Devices of "h100:8" on a machine without any, by jax's plug-in for CUDA.

    Raises:
      UserError: no such number, or no plug-in.
    """
    name, _, number = topology.partition(":")
    number = number or "1"
    if not number.isdecimal() or not 1 <= int(number) <= LARGEST:
        raise UserError(
            f"--topology={topology}: expected a number of GPUs from 1 to {LARGEST}, as in {name}:8"
        )
    # Else the plug-in refuses where the driver is absent.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    grid = f"1x1x{number}"
    try:
        return list(
            topologies.get_topology_desc(
                platform="cuda",
                topology_name=grid,
                topology=grid,
                target_config=target_config(CARDS[name]),
            ).devices
        )
    except (NotImplementedError, ImportError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--topology={topology} cannot be compiled for ({reason[:200]}); expected jax's plug-in"
            ' for CUDA: pip install ".[plan-gpu]" in the clone'
        ) from error


def compile_anywhere(lowered: Any) -> tuple[Any, str]:
    """The program of what `jax.jit(...).lower` gave, and the option of the compiler that it took.

    Without a GPU to try tiles on, XLA finds none for some of the products that it writes with
    Triton; those of cuBLAS, which it then takes, do the same work.
    """
    try:
        return lowered.compile(), ""
    except jax.errors.JaxRuntimeError as error:
        if "Couldn't find output tile sizes" not in str(error):
            raise
    options = ", ".join(f"{name}={str(value).lower()}" for name, value in NO_TRITON.items())
    return lowered.compile(compiler_options=NO_TRITON), options
