"""A generator whose half precision overflows for some captions, and float32 for one."""

import jax.numpy as jnp

from bsjax.generators.protocol import Samples
from tests.generators.stripes import Stripes


class Unstable(Stripes):
    def sample(self, params, batch, keys):
        samples = super().sample(params, batch, keys)
        first = batch["colours"][:, 0]
        is_bad = first < 20
        if self.settings.dtype == "bfloat16":
            is_bad = first < 120
        images = jnp.where(is_bad[:, None, None, None], 0, samples.images)
        return Samples(images, ~is_bad)
