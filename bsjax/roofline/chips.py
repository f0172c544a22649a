"""Accelerators that `plan` knows: what a chip does per second, and holds."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.experimental import topologies

from bsjax.core.errors import UserError
from bsjax.roofline import gpus
from bsjax.roofline.compiled import Cost, Weight, passes_of_tpu


class Chip(NamedTuple):
    """Peak numbers of one chip, from the maker's published specifications."""

    flops: float  # bfloat16 multiply-adds count twice
    memory: float  # bytes
    bandwidth: float  # bytes/s of main memory
    interconnect: float  # bytes/s that leave and enter the chip over all its links
    f32_flops: float = 0.0  # float32 products, where the chip has them (0: by bfloat16 passes)
    tf32_flops: float = 0.0  # float32 operands rounded to TF32


# cloud.google.com/tpu/docs: v4, v5e, v5p, v6e.
# NVIDIA's data sheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core GPU" (the
# SXM columns), "L4 Tensor Core GPU": rates without sparsity; NVLink, of the L4 PCIe 4.0 x16, in
# both directions together.
CHIPS = {
    "TPU v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16e9, 819e9, 200e9),
    "TPU v5": Chip(459e12, 95e9, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32e9, 1640e9, 448e9),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80e9, 2039e9, 600e9, 19.5e12, 156e12),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40e9, 1555e9, 600e9, 19.5e12, 156e12),
    "NVIDIA L4": Chip(121e12, 24e9, 300e9, 64e9, 30.3e12, 60e12),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80e9, 3350e9, 900e9, 67e12, 494e12),
    "NVIDIA H200": Chip(989e12, 141e9, 4800e9, 900e9, 67e12, 494e12),
}
# A ring over one mesh axis runs along some of a TPU's links alone; through NVLink's switches it
# sends over all, which is half of what they carry both ways.
SHARE_OF_LINKS = 0.5
# Of a GPU's memory jax takes so much, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
GPU_SHARE = 0.75


def devices_of(topology: str) -> list[jax.Device]:
    """Devices of a topology, on a machine without any: TPUs ("v5e:2x4") by libtpu, GPUs ("h100:8").

    Raises:
      UserError: no libtpu or no plug-in for CUDA, or no such topology.
    """
    if gpus.is_gpu(topology):
        return gpus.gpus_of(topology)
    # Else libtpu waits for the metadata server of a cloud machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # No chip is touched: two may compile at once, and beside a program that runs on chips.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # The plug-in raises many types.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--topology={topology} cannot be compiled for ({reason[:200]}); expected a TPU"
            f" topology such as v5e:2x4, or GPUs such as h100:8 (of {', '.join(gpus.CARDS)}), and"
            ' libtpu: pip install ".[plan]" in the clone'
        ) from error


def share_of_chip(devices: Sequence[jax.Device]) -> tuple[Chip, int]:
    """What one device has of its chip (v4 chips show as two), and the number of chips.

    Raises:
      UserError: a chip that is not in the table.
    """
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise UserError(
            f"the peak numbers of {kind!r} are not known; set --topology to one of"
            f" {', '.join(CHIPS)}"
        )
    n_chips = len(devices)
    if devices[0].platform == "tpu":
        n_chips = len({tuple(device.coords) for device in devices})
    share = n_chips / len(devices)
    return Chip(*(share * number for number in CHIPS[kind])), n_chips


def usable_memory(chip: Chip) -> float:
    """Bytes that programs may take: on a GPU jax leaves a part to others."""
    if not chip.f32_flops:
        return chip.memory
    return chip.memory * float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or GPU_SHARE)


def weight_of(chip: Chip | None) -> Weight:
    """How often an operation of a product counts on that chip (see `compiled.cost_of`)."""
    if chip is None or not chip.f32_flops:
        return passes_of_tpu
    exact, rounded = chip.flops / chip.f32_flops, chip.flops / chip.tf32_flops

    def weight(dtype: str, precision: str) -> float:
        if algorithm := re.fullmatch(r"(bf16|tf32)_\1_f32(?:_x(\d))?", precision):
            once = 1.0 if algorithm[1] == "bf16" else rounded
            return once * int(algorithm[2] or 1)
        if dtype in ("f32", "f64"):  # "high" is TF32 too, unlike on a TPU
            return exact if precision == "highest" or dtype == "f64" else rounded
        return 1.0

    return weight


def roofline(cost: Cost, chip: Chip) -> dict[str, float]:
    """Seconds that a run takes at least, by what limits it.

    All-reduces send 2 (n - 1) / n of the array along a ring, gathers and scatters half of that.
    """
    exchange = 0.0
    for (kind, n), size in cost.collectives.items():
        rounds = 2 if kind == "all-reduce" else 1
        exchange += rounds * (n - 1) / n * size / (SHARE_OF_LINKS * chip.interconnect)
    return {
        "compute": cost.flops / chip.flops,
        "memory": cost.bytes / chip.bandwidth,
        "exchange": exchange,
    }
