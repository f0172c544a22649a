"""Image encoders behind one protocol: DINOv2, CLIP, SigLIP, and classes of your own."""

from bsjax.encoders.loading import load_encoder
from bsjax.encoders.protocol import Backbone, Encoder

__all__ = ["Backbone", "Encoder", "load_encoder"]
