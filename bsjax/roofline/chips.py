"""Accelerators that `plan` knows: what a chip does per second, and holds."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.experimental import topologies

from bsjax.core.errors import UserError
from bsjax.roofline.compiled import Cost


class Chip(NamedTuple):
    """Peak numbers of one chip, from the maker's published specifications."""

    flops: float  # bfloat16 multiply-adds count twice
    memory: float  # bytes
    bandwidth: float  # bytes/s of main memory
    interconnect: float  # bytes/s that leave the chip over all its links


# cloud.google.com/tpu/docs: v4, v5e, v5p, v6e.
CHIPS = {
    "TPU v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16e9, 819e9, 200e9),
    "TPU v5": Chip(459e12, 95e9, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32e9, 1640e9, 448e9),
}
# A ring over one mesh axis runs along some of the links alone.
SHARE_OF_LINKS = 0.5


def devices_of(topology: str) -> list[jax.Device]:
    """Devices of a TPU topology ("v5e:2x4"), on a machine without any, by libtpu.

    Raises:
      UserError: no libtpu, or no such topology.
    """
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
            ' topology such as v5e:2x4, and libtpu: pip install ".[plan]" in the clone'
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
    n_chips = len({tuple(device.coords) for device in devices})
    share = n_chips / len(devices)
    return Chip(*(share * number for number in CHIPS[kind])), n_chips


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
