"""DINOv2 as an encoder; see models/dinov2.py and convert/dinov2.py."""

from typing import Any, ClassVar

import jax.numpy as jnp

from bsjax.convert.dinov2 import FLAG, notes_on, open_dinov2
from bsjax.convert.encoder_files import RANDOM, abstract_params, random_params
from bsjax.core.dims import Grid
from bsjax.core.preprocessing import Preprocessing
from bsjax.encoders.protocol import Weights
from bsjax.models import dinov2

PAPER_PATCH, PAPER = 14, Preprocessing(256, 224)


class DinoV2Encoder:
    """Class token, registers where the variant has them, patches; all behind the last norm.

    The paper's preprocessing (arXiv:2506.19708), METHOD 2.1; of a variant with other patches than
    the published ones the images that it was trained on.
    """

    VARIANTS: ClassVar = dinov2.VARIANTS
    MODEL_TYPES: ClassVar = ("dinov2", "dinov2_with_registers")

    def __init__(self, weights: str, variant: str | None, dtype: str):
        self._weights, self._opened = weights, None
        self.variant, self.interpolation = variant or "", ""
        if not weights or weights.startswith(RANDOM):
            self.model = dinov2.DinoV2(self.VARIANTS[self.variant], jnp.dtype(dtype))
        else:
            self._opened = open_dinov2(variant, weights, jnp.dtype(dtype))
            self._opened.check(weights)
            self.model, self.variant = self._opened.model, self._opened.variant
            self.interpolation = self._opened.interpolation
        config = self.model.config
        self.width, self.patch_size = config.width, config.patch_size
        side = config.patch_size * config.pretrain_grid
        self.preprocessing = (
            PAPER if config.patch_size == PAPER_PATCH else Preprocessing(side, side)
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about its weights."""
        return notes_on(self.variant, self._weights, self.interpolation)

    def grid(self, height: int, width: int) -> Grid:
        """As the protocol."""
        return self.model.config.grid(height, width)

    def abstract_params(self) -> Any:
        """As the protocol."""
        return abstract_params(self.model)

    def load_params(self) -> Weights:
        """As the protocol; the digest is of the weight files alone, or the seed."""
        if self._opened is None:
            return Weights(random_params(self.model, self._weights, FLAG), self._weights)
        loaded = self._opened.read(self._weights)
        return Weights(loaded.params, loaded.digest)

    def apply(self, params, images):
        """As the protocol."""
        return self.model.apply({"params": params}, dinov2.normalise_images(images))
