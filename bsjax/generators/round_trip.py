"""A generator's own autoencoder with both halves: what drawing through it does to a real image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, UInt8

from bsjax.convert.tables import convert_by_name
from bsjax.convert.tensors import open_folder
from bsjax.core.artifacts import hash_json
from bsjax.core.errors import UserError
from bsjax.core.mesh import DATA
from bsjax.core.precision import matmul_precision
from bsjax.generators.loading import Opened, quick_digest
from bsjax.generators.protocol import Generator, RoundTrip, Samples, as_samples, flag_of
from bsjax.generators.random_weights import RANDOM, random_component


class OpenedRoundTrip(NamedTuple):
    """A round trip whose parameters are not read yet."""

    round_trip: RoundTrip
    digest: str  # tells its weights and config from others
    read_params: Callable[[], Any]  # -> host arrays


def round_trip_of(generator: Generator, name: str) -> RoundTrip:
    """The round trip through a generator's autoencoder.

    Args:
      generator: the system.
      name: of it, for the message.

    Raises:
      UserError: it has none, or one that cannot be built.
    """
    make = getattr(generator, "round_trip", None)
    if make is None:
        raise UserError(
            f"measure.controls=vae: {name} has no round_trip() through an autoencoder of its own;"
            " leave out vae in --control, or add that method"
        )
    return make()


def open_round_trip(opened: Opened, name: str, weights: str) -> OpenedRoundTrip:
    """Finds both halves of the autoencoder in the weights; reads no tensor.

    Args:
      opened: the generator, from its weights.
      name: of the generator.
      weights: of its main repository: hub id, folder or random:SEED.

    Raises:
      UserError: there is no autoencoder, or its encoding half is missing or of another form.
    """
    trip = round_trip_of(opened.generator, name)
    dtype, component = jnp.dtype(opened.generator.settings.dtype), trip.component
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), component.shapes)
    if weights.startswith(RANDOM):
        return OpenedRoundTrip(
            trip, opened.digest, lambda: random_component(trip.name, shapes, weights, dtype)
        )
    flag = flag_of(component.repository)
    source = open_folder(
        opened.roots[component.repository] / component.folder, component.stems, flag
    )
    digest = hash_json([opened.configs.get(trip.name), quick_digest(source)])

    def read() -> Any:
        return convert_by_name(
            source, shapes, str(source.files[0].parent), component.renames, component.ignored,
            f"set {flag} to weights with both halves of the autoencoder",
        )  # fmt: skip

    return OpenedRoundTrip(trip, digest, read)


def jit_round_trip(trip: RoundTrip, dtype: str, mesh: Mesh) -> Callable[..., Samples]:
    """(parameters, images [B, H, W, 3] of whole levels) -> samples; each device has its rows."""

    def local(params: Any, images: UInt8[Array, "B H W 3"]) -> Samples:
        with jax.default_matmul_precision(matmul_precision(dtype)):
            return as_samples(trip.apply(params, images.astype(jnp.float32) / 127.5 - 1))

    return jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(P(), P(DATA)), out_specs=P(DATA), check_vma=False)
    )
