"""Text-to-image systems: caption -> image."""

import os

# Each Flax class of diffusers says at every turn that 0.40 drops it; pyproject.toml pins 0.39.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
