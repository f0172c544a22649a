"""A generator of one's own: --config.generator.name=tests.generators.stripes:Stripes

It draws stripes in a colour that the caption decides, with some noise.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from bsjax.generators.protocol import Prompts, as_samples, normal_rows


class Stripes:
    # A system with weights says here where its config files and tokenizers lie, and which networks
    # encode text in a first phase (bsjax/generators/pixart.py has all three).
    CONFIGS, TOKENIZERS, TEXT_COMPONENTS = {}, {}, ()

    def __init__(self, configs, settings, tokenizers=None):
        self.settings, self.components = settings, {}

    def prompts(self, captions):
        """Arrays with one row per caption, and how many captions were too long."""
        colours = [[zlib.crc32(f"{i}{text}".encode()) % 256 for i in range(3)] for text in captions]
        return Prompts({"colours": np.array(colours, np.float32)}, n_truncated=0)

    def abstract_prompts(self, n):
        return {"colours": jax.ShapeDtypeStruct((n, 3), jnp.float32)}

    def sample(self, params, batch, keys):
        """Pure and jittable: images in [-1, 1], each from its own row and key."""
        height, width = self.settings.height, self.settings.width
        stripes = (jnp.arange(width) // 4 % 2)[None, None, :, None]
        colours = batch["colours"][:, None, None] / 127.5 - 1
        return as_samples(stripes * colours + 0.1 * normal_rows(keys, (height, width, 3)))
