"""The mesh on 8 virtual devices."""

import jax
import numpy as np
import pytest

from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh, over_data, put, replicated


@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [(-1, 1, (8, 1)), (-1, 4, (2, 4)), (2, -1, (2, 4)), (8, 1, (8, 1)), (4, 2, (4, 2))],
)
def test_minus_one_takes_what_is_left(data, model, expected):
    mesh = make_mesh(data, model)
    assert (mesh.shape["data"], mesh.shape["model"]) == expected


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (-1, -1, "both -1"),
        (-1, 3, "8 devices cannot be divided by a mesh axis of 3"),
        (-1, 0, "mesh axis of 0"),
        (2, 2, "expects 4 devices, got 8"),
    ],
)
def test_impossible_meshes_are_one_line(data, model, message):
    with pytest.raises(UserError, match=message):
        make_mesh(data, model)


def test_arrays_lie_as_told():
    mesh = make_mesh(devices=jax.devices()[:4])
    array = put(np.arange(8.0), over_data(mesh))
    assert [shard.data.shape for shard in array.addressable_shards] == [(2,)] * 4
    assert put(np.arange(8.0), replicated(mesh)).addressable_shards[0].data.shape == (8,)
