"""SigLIP's and SigLIP 2's image tower as an encoder: patches alone (arXiv:2502.14786).

Tokens are transformers' SiglipVisionModel's `last_hidden_state`: those behind the last norm, before
the head that pools them. SigLIP 2 of a fixed size has SigLIP's layout; NaFlex has another.
"""

from typing import ClassVar

from bsjax.encoders.vision import VisionTower
from bsjax.models.vision_transformer import SiglipVision, siglip_config

# width, depth, heads, MLP width; so400m is the shape that arXiv:2305.13035 found.
SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giant": (1536, 40, 16, 6144),
}
# (SIZE, N) -> pixels of an image, as in google/siglip-SIZE-patchN-224 and google/siglip2-.
RELEASED = {
    ("base", 16): (224, 256, 384, 512),
    ("base", 32): (256,),
    ("large", 16): (256, 384, 512),
    ("so400m", 14): (224, 384),
    ("so400m", 16): (256, 384, 512),
    ("giant", 16): (256, 384),
}


class SiglipEncoder(VisionTower):
    """google/siglip2-base-patch16-224 and its like; that one is the variant siglip_base16_224.

    SigLIP and SigLIP 2 differ in their weights, and by preprocessor_config.json in how images are
    resized: SigLIP bicubically, SigLIP 2 bilinearly.
    """

    VARIANTS: ClassVar = {
        f"siglip_{size}{patch}_{pixels}": siglip_config(*SIZES[size], patch, pixels)
        for (size, patch), all_pixels in RELEASED.items()
        for pixels in all_pixels
    }
    MODEL_TYPES: ClassVar = ("siglip", "siglip_vision_model")
    MODULE: ClassVar = SiglipVision
    MEAN: ClassVar = (0.5, 0.5, 0.5)
    STD: ClassVar = (0.5, 0.5, 0.5)
    IS_WHOLE: ClassVar = True
