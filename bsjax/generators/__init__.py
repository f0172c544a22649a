"""Text-to-image systems: caption -> image."""

from diffusers.utils import logging

# Each Flax class of diffusers says at every turn that 0.40 drops it; pyproject.toml pins 0.39.
logging.set_verbosity_error()
