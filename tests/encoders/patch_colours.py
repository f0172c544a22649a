"""An encoder of one's own: --config.encoder.variant=tests.encoders.patch_colours:PatchColours

A patch's token is its pixels, projected at random; there is no class token and nothing learned.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import Preprocessing
from bsjax.encoders.protocol import Weights


class PatchColours:
    width, patch_size = 32, 16
    preprocessing = Preprocessing(resize=64, crop=64, interpolation="bilinear")
    notes = ("Patches are told by their colours alone.",)

    def __init__(self, weights, variant, dtype):
        if not weights.startswith("random:"):
            raise UserError(f"weights={weights}: expected random:SEED")
        self.variant, self.weights = variant, weights

    def grid(self, height, width):
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"expected sides that are multiples of {self.patch_size}")
        return Grid(0, height // self.patch_size, width // self.patch_size, n_class=0)

    def abstract_params(self):
        return {"kernel": jax.ShapeDtypeStruct((3 * self.patch_size**2, self.width), jnp.float32)}

    def load_params(self):
        rng = np.random.default_rng(int(self.weights.removeprefix("random:")))
        kernel = rng.normal(size=self.abstract_params()["kernel"].shape) / self.patch_size
        return Weights({"kernel": kernel.astype(np.float32)}, digest=f"colours {self.weights}")

    def apply(self, params, images):
        (batch, height, width, _), size = images.shape, self.patch_size
        pixels = images.reshape(batch, height // size, size, width // size, size, 3) / 127.5 - 1
        patches = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, 3 * size * size)
        return patches @ params["kernel"]  # [B, P, D]
