"""CLIP's image tower as an encoder: class token and patches (arXiv:2103.00020).

Tokens are transformers' CLIPVisionModel's `last_hidden_state`: those of the last block. The norm
and the projection behind, which CLIP has for its class token alone, are no part of them.
"""

from typing import ClassVar

from bsjax.encoders.vision import VisionTower
from bsjax.models.vision_transformer import ClipVision, clip_config


class ClipEncoder(VisionTower):
    """openai/clip-vit-base-patch32 and its like.

    The crop is OpenAI's own, by torchvision's rule. Where an odd number of pixels is cut away,
    transformers' slow image processor may lie one pixel beside it.
    """

    VARIANTS: ClassVar = {
        "clip_vitb32": clip_config(768, 12, patch_size=32),
        "clip_vitb16": clip_config(768, 12, patch_size=16),
        "clip_vitl14": clip_config(1024, 24, patch_size=14),
        "clip_vitl14_336": clip_config(1024, 24, patch_size=14, image_size=336),
    }
    MODEL_TYPES: ClassVar = ("clip", "clip_vision_model")
    MODULE: ClassVar = ClipVision
    MEAN: ClassVar = (0.48145466, 0.4578275, 0.40821073)
    STD: ClassVar = (0.26862954, 0.26130258, 0.27577711)
    IS_WHOLE: ClassVar = False
