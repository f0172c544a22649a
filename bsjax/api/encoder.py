"""Vision encoders: images -> tokens."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bsjax.analysis.engine import matmul_precision
from bsjax.api.arguments import in_arguments, naming_arguments
from bsjax.api.images import list_images
from bsjax.convert.dinov2 import RANDOM, LoadedEncoder, load_dinov2, variant_of
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh, over_data, put, replicated
from bsjax.core.ranges import DTYPES
from bsjax.data.captions import BadImage, check_bad
from bsjax.data.images import iterate_batches
from bsjax.models.dinov2 import VARIANTS, DinoV2, normalise_images, token_grid
from bsjax.stages.inputs import encoder_notes

NAMES = {"encoder.weights": "source"}
PAPER_PATCH, PAPER_RESIZE, PAPER_CROP = 14, 256, 224


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A vision encoder ready for inference, with its preprocessing.

    Attributes:
      loaded: module, parameters (host arrays, float32) and where they come from.
      resize: pixels of the short side (bicubic, antialiased).
      crop: pixels of the centre crop.
      dtype: of the products: float32 or bfloat16.
    """

    loaded: LoadedEncoder
    resize: int
    crop: int
    dtype: str

    def __repr__(self) -> str:
        return (
            f"Encoder({self.variant} of {self.source}: {self.grid.n_tokens} tokens x {self.width},"
            f" resize {self.resize}, crop {self.crop}, {self.dtype})"
        )

    @property
    def model(self) -> DinoV2:
        """The Flax module."""
        return self.loaded.model

    @property
    def params(self) -> Any:
        """Its parameters."""
        return self.loaded.params

    @property
    def variant(self) -> str:
        """Name of its sizes."""
        return self.loaded.variant

    @property
    def source(self) -> str:
        """What it was loaded from."""
        return self.loaded.source

    @property
    def digest(self) -> str:
        """Tells its weights from others."""
        return self.loaded.digest

    @property
    def width(self) -> int:
        """Features a token, D."""
        return self.model.config.width

    @property
    def grid(self) -> Grid:
        """How the T tokens of an image lie: class token, registers, patches row by row."""
        return token_grid(self.model.config, self.crop, self.crop)

    @property
    def notes(self) -> list[str]:
        """Warnings that belong beside every number made with it."""
        return [in_arguments(note) for note in encoder_notes(self.loaded)]

    def encode(self, images: Any, *, batch_per_device: int = -1) -> np.ndarray:
        """Tokens of images, after the final LayerNorm.

        Args:
          images: as `bsjax.measure` takes them.
          batch_per_device: images a step on each device; -1: 1 on a CPU, 32 on accelerators.

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
        batches = iterate_batches(records, resize=self.resize, crop=self.crop, batch_size=n)
        for batch in batches:
            bad += [BadImage(records[row].key, reason) for row, reason in batch.bad]
            pixels = put(batch.images, over_data(mesh))
            tokens = _tokens(params, pixels, self.model, matmul_precision(self.dtype))
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
    """Loads a vision encoder.

    Args:
      source: hub id, folder in the hub's layout, `.safetensors` or `.pth` file, or `random:SEED`.
      variant: name of its sizes, such as "vitb14_reg"; None: as the weights tell.
      dtype: of the products, "float32" or "bfloat16".
      resize: pixels of the short side; None: 256, the paper's (arXiv:2506.19708).
      crop: pixels of the centre crop, a multiple of the patch size; None: 224, the paper's.

    Raises:
      UserError: no such weights, of another model, damaged, or a size that cannot be.
    """
    source = str(source)
    if dtype not in DTYPES:
        raise UserError(f"{{dtype}}={dtype!r}: expected one of {', '.join(DTYPES)}", "dtype")
    with naming_arguments(NAMES):
        if variant is None and source.startswith(RANDOM):
            raise UserError(
                f"{source} tells no sizes; set {{variant}} to one of {', '.join(VARIANTS)}",
                "variant",
            )
        variant = variant or variant_of(source)
    resize, crop = _preprocessing(variant, resize, crop)
    with naming_arguments(NAMES):
        loaded = load_dinov2(variant, source, jnp.dtype(dtype))
    return Encoder(loaded, resize, crop, dtype)


def _preprocessing(variant: str, resize: int | None, crop: int | None) -> tuple[int, int]:
    """Sides in pixels: as given, else the paper's, else what the model was trained on."""
    if variant not in VARIANTS:
        raise UserError(
            f"{{variant}}={variant!r}: expected one of {', '.join(VARIANTS)}", "variant"
        )
    config = VARIANTS[variant]
    side = config.patch_size * config.pretrain_grid
    is_paper = config.patch_size == PAPER_PATCH
    crop = crop or (PAPER_CROP if is_paper else side)
    resize = resize or max(PAPER_RESIZE if is_paper else side, crop)
    if crop < 1 or crop % config.patch_size:
        raise UserError(
            f"{{crop}}={crop}: expected a multiple of {config.patch_size}, the side of a patch",
            "crop",
        )
    if resize < crop:
        raise UserError(f"{{resize}}={resize}: expected at least {{crop}}={crop}", "resize", "crop")
    return resize, crop


def batch_size(batch_per_device: int, mesh: jax.sharding.Mesh) -> int:
    """Images a step of all devices: one image's tokens fit a CPU's caches."""
    if batch_per_device == -1:
        batch_per_device = 1 if mesh.devices.flat[0].platform == "cpu" else 32
    if batch_per_device < 1:
        raise UserError(
            f"{{batch_per_device}}={batch_per_device}: expected 1 or more, or -1",
            "batch_per_device",
        )
    return batch_per_device * mesh.shape["data"]


def _apply(params: Any, images: jax.Array, model: DinoV2, precision: str) -> jax.Array:
    with jax.default_matmul_precision(precision):
        return model.apply({"params": params}, normalise_images(images))


_tokens = jax.jit(_apply, static_argnums=(2, 3))
