"""What every encoder is: a pure function from images to tokens, and how these lie.

To plug in another one, write a class with the methods of `Backbone` anywhere that Python can
import, and name it: --config.encoder.variant=my_module:MyClass. tests/encoders/patch_colours.py is
an example. To give it to everyone, add VARIANTS and MODEL_TYPES and a line in `registry.FAMILIES`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from bsjax.convert.encoder_files import RANDOM
from bsjax.core.dims import Grid
from bsjax.core.preprocessing import Preprocessing

# What a class must have, as `registry.require_whole` holds it to.
METHODS = ("grid", "abstract_params", "load_params", "apply")
ATTRIBUTES = ("width", "patch_size", "preprocessing")


def encode_images(
    params: Any, images: Array, apply: Callable[..., Array], precision: str
) -> Float[Array, "B T D"]:
    """Images, resized and cropped, to tokens: what every step that encodes is traced from.

    Args:
      params: of the encoder.
      images: uint8 [B, H, W, 3].
      apply: the encoder's.
      precision: of its products, as `core.precision.matmul_precision` names it.
    """
    with jax.default_matmul_precision(precision):
        return apply(params, images)


class Weights(NamedTuple):
    """Parameters as they were read."""

    params: Any  # nested dict of host arrays, float32
    digest: str  # tells them, and whatever else decides the tokens, from others


@runtime_checkable
class Backbone(Protocol):
    """An encoder whose parameters are not read.

    Made by `Class(weights, variant, dtype)`, which reads headers and configs at most and raises
    UserError for weights that are not its own:

      weights: what the user named: hub id, folder, file, random:SEED. "" asks for the sizes of
        `variant` alone (`bsjax plan`); it may raise UserError.
      variant: a key of VARIANTS; None, in a family with MODEL_TYPES: what the weights say. A
        plug-in gets its own name, module:Class.
      dtype: "float32" or "bfloat16", of the matmuls.

    Attributes:
      width: D, features per token.
      patch_size: pixels of a patch's side.
      preprocessing: what it was trained with; the user may ask for another resize and crop.

    A class may also have `notes`, lines for log, manifest and report; `variant`, what it found
    itself to be; and `is_particular`, whether it is worth a note that images are shown otherwise
    than in its training. A family has VARIANTS, names -> sizes with width, patch_size and `grid`,
    and MODEL_TYPES of config.json.
    """

    width: int
    patch_size: int
    preprocessing: Preprocessing

    def grid(self, height: int, width: int) -> Grid:
        """The roles of the tokens of a height x width image, in their order.

        Raises:
          ValueError: the patches do not divide it; says what would.
        """

    def abstract_params(self) -> Any:
        """ShapeDtypeStructs of the parameters; nothing is computed."""

    def load_params(self) -> Weights:
        """Reads or draws the parameters.

        Raises:
          UserError: damaged files.
        """

    def apply(self, params: Any, images: UInt8[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        """Tokens in float32, as `grid` has them; pure, and each image for itself.

        Scales and normalises the pixels, too.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder with its parameters, as `load_encoder` gives it.

    Attributes:
      backbone: what computes.
      params: host arrays, float32.
      variant: its name: a released one, module:Class, or its sizes in words.
      source: the weights that the user named.
      digest: tells tokens of other parameters apart.
      preprocessing: of the images: the backbone's own, with the user's resize and crop.
      notes: remarks for log, manifest and report.
      dtype: of the matmuls: float32 or bfloat16.
    """

    backbone: Backbone
    params: Any
    variant: str
    source: str
    digest: str
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()
    dtype: str = "float32"

    def apply(
        self, params: Any, images: UInt8[Array | np.ndarray, "B H W 3"]
    ) -> Float[Array, "B T D"]:
        """Images, resized and cropped, to tokens; pure. Takes host arrays, too."""
        return self.backbone.apply(jax.tree.map(jnp.asarray, params), jnp.asarray(images))

    def grid(self, height: int | None = None, width: int | None = None) -> Grid:
        """How tokens lie; of the crop unless another size is given."""
        crop = self.preprocessing.crop
        return self.backbone.grid(height or crop, width or crop)

    @property
    def resize(self) -> int:
        """Pixels of the short side; -1: all of an image becomes crop x crop."""
        return self.preprocessing.resize

    @property
    def crop(self) -> int:
        """Pixels of the square that is left."""
        return self.preprocessing.crop

    @property
    def width(self) -> int:
        """D, features per token."""
        return self.backbone.width

    @property
    def patch_size(self) -> int:
        """Pixels of a patch's side."""
        return self.backbone.patch_size

    @property
    def is_random(self) -> bool:
        """Whether nobody trained it."""
        return self.source.startswith(RANDOM)

    @property
    def model(self) -> Any:
        """The flax module below the backbone, where there is one; it takes normalised pixels."""
        return getattr(self.backbone, "model", self.backbone)

    @property
    def interpolation(self) -> str:
        """How position embeddings are fitted to other sizes, where that is worth a note."""
        return getattr(self.backbone, "interpolation", "")
