"""Vision encoders: images -> tokens."""

import dataclasses
from typing import Any

import jax
import numpy as np

from bsjax.api.arguments import naming_arguments
from bsjax.api.images import list_images
from bsjax.core.errors import UserError
from bsjax.core.mesh import images_per_step, make_mesh, over_data, put, replicated
from bsjax.core.precision import matmul_precision
from bsjax.data.captions import BadImage, check_bad
from bsjax.data.images import iterate_batches
from bsjax.encoders import loading, protocol

NAMES = {"encoder.weights": "source", "weights": "source"}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Encoder(protocol.Encoder):
    """A vision encoder ready for inference, with its preprocessing.

    `encode` takes images as users have them; `apply` is what it computes, to be jitted.

    Attributes:
      backbone: what computes; see `bsjax.encoders.protocol.Backbone`.
      params: host arrays, float32.
      variant: its name: a released one, module:Class, or its sizes in words.
      source: what it was loaded from.
      digest: tells tokens of other parameters apart.
      preprocessing: resize, crop, mean, std, interpolation.
      notes: warnings that belong beside every number made with it.
      dtype: of the products: float32 or bfloat16.
    """

    def __repr__(self) -> str:
        return (
            f"Encoder({self.variant} of {self.source}: {self.grid().n_tokens} tokens x"
            f" {self.width}, resize {self.resize}, crop {self.crop}, {self.dtype})"
        )

    def encode(self, images: Any, *, batch_per_device: int = -1) -> np.ndarray:
        """Tokens of images, in the order that `grid` tells.

        Args:
          images: as `bsjax.measure` takes them.
          batch_per_device: images per step on each device; -1: 1 on a CPU, 32 on accelerators.

        Returns:
          [n, T, D] float32.

        Raises:
          UserError: an image cannot be used.
        """
        with naming_arguments():
            return self._encode(images, batch_per_device)

    def _encode(self, images: Any, batch_per_device: int) -> np.ndarray:
        records = list_images(images).images.records
        mesh = make_mesh()
        n = batch_size(batch_per_device, mesh)
        params, parts, bad = put(self.params, replicated(mesh)), [], []
        batches = iterate_batches(
            records,
            resize=self.resize,
            crop=self.crop,
            batch_size=n,
            interpolation=self.preprocessing.interpolation,
        )
        for batch in batches:
            bad += [BadImage(records[row].key, reason) for row, reason in batch.bad]
            pixels = put(batch.images, over_data(mesh))
            tokens = _tokens(params, pixels, self.backbone.apply, matmul_precision(self.dtype))
            parts.append(np.asarray(tokens, np.float32)[batch.mask])
        check_bad(bad, len(records), 0.0, "by leaving them out")
        return np.concatenate(parts)


def load_encoder(
    source: str,
    *,
    variant: str | None = None,
    dtype: str = "float32",
    resize: int | None = None,
    crop: int | None = None,
) -> Encoder:
    """Loads a vision encoder: DINOv2, CLIP, SigLIP, or a class of your own.

    Args:
      source: hub id, folder in the hub's layout, `.safetensors` or `.pth` file, `random:SEED`, or
        "module:Class" of an encoder that needs no weights.
      variant: name of its sizes, such as "vitb14_reg", or "module:Class"; None: as the weights
        tell.
      dtype: of the products, "float32" or "bfloat16".
      resize: pixels of the short side, or -1 for all of an image as crop x crop pixels; None: as
        the encoder was trained, or as the paper has it (arXiv:2506.19708): 256 for DINOv2.
      crop: pixels of the centre crop; None: likewise, 224 for DINOv2.

    Raises:
      UserError: no such weights, of another model, damaged, or a size that cannot be.
    """
    with naming_arguments(NAMES):
        loaded = loading.load_encoder(
            str(source), variant=variant, dtype=dtype, resize=resize, crop=crop
        )
    return Encoder(**vars(loaded))


def batch_size(batch_per_device: int, mesh: jax.sharding.Mesh) -> int:
    """Images per step of all devices: one image's tokens fit a CPU's caches."""
    if batch_per_device < 1 and batch_per_device != -1:
        raise UserError(
            f"{{batch_per_device}}={batch_per_device}: expected 1 or more, or -1; set it so",
            "batch_per_device",
        )
    return images_per_step(batch_per_device, mesh, on_accelerators=32)


_tokens = jax.jit(protocol.encode_images, static_argnums=(2, 3))
