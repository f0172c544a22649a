"""The one device mesh ("data", "model") and how arrays lie on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bsjax.core.errors import UserError

DATA = "data"
MODEL = "model"


def images_per_step(per_device: int, mesh: Mesh, on_accelerators: int) -> int:
    """Images that all devices work on at once.

    Args:
      per_device: images on each; -1: one on a CPU, whose caches one image's tokens fit.
      mesh: over whose data axis images are divided.
      on_accelerators: what -1 stands for there.
    """
    if per_device == -1:
        per_device = 1 if mesh.devices.flat[0].platform == "cpu" else on_accelerators
    return per_device * mesh.shape[DATA]


def make_mesh(data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh; -1 takes the devices that the other axis leaves.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    n_devices = len(devices)
    shape = {"data": data, "model": model}
    free = [axis for axis, size in shape.items() if size == -1]
    if len(free) > 1:
        raise UserError(
            "mesh.data and mesh.model are both -1; set --config.mesh.data or --config.mesh.model"
        )
    if free:
        other = shape["model" if free[0] == "data" else "data"]
        if other < 1 or n_devices % other:
            raise UserError(
                f"{n_devices} devices cannot be divided by a mesh axis of {other}; set"
                " --config.mesh.data and --config.mesh.model to factors of it"
            )
        shape[free[0]] = n_devices // other
    if shape["data"] * shape["model"] != n_devices:
        raise UserError(
            f"mesh {shape['data']} x {shape['model']} (data x model) expects"
            f" {shape['data'] * shape['model']} devices, got {n_devices}; set --config.mesh.data=-1"
        )
    grid = np.asarray(devices).reshape(shape["data"], shape["model"])
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """The first dimension is divided over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Moves host arrays to the devices of `sharding`."""
    return jax.device_put(tree, sharding)


def place_shapes(shapes: Any, shardings: Any) -> Any:
    """Shapes and dtypes with where they will lie, to compile for or to restore into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def divide(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Lays an array that every host holds over the devices; each takes its part alone."""
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
