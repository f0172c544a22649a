"""Tiny CLIP and SigLIP with random weights, as torch's classes write them in the hub's layout."""

import json
import pathlib

import numpy as np
import torch
import transformers

VISION = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 8,
    "projection_size": 32,
}


def make(kind: str, folder: pathlib.Path, both: bool = False, safe: bool = True, **changes):
    """Writes a tower, alone or with the text's; gives torch's image tower of these weights."""
    torch.manual_seed(0)
    vision = VISION | changes
    names = {"clip": "CLIP", "siglip": "Siglip"}
    if both:
        more = {"projection_dim": 12} if kind == "clip" else {}
        settings = getattr(transformers, f"{names[kind]}Config")(
            text_config=TEXT, vision_config=vision, **more
        )
        model = getattr(transformers, f"{names[kind]}Model")(settings)
    else:
        settings = getattr(transformers, f"{names[kind]}VisionConfig")(**vision)
        model = getattr(transformers, f"{names[kind]}VisionModel")(settings)
    with torch.no_grad():
        for parameter in model.parameters():  # none stays at a trivial value
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, safe_serialization=safe)
    return model.eval().vision_model


def processor(kind: str, size: int = 32, **changes):
    """transformers' image processor for images of that size."""
    if kind == "clip":
        sizes = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
        return transformers.CLIPImageProcessor(**sizes | changes)
    return transformers.SiglipImageProcessor(**{"size": {"height": size, "width": size}} | changes)


def tokens_of_torch(tower, pixels: np.ndarray) -> np.ndarray:
    """Tokens of normalised pixels [B, 3, H, W]."""
    with torch.no_grad():
        pixels = torch.from_numpy(pixels)
        return tower(pixels, interpolate_pos_encoding=True).last_hidden_state.numpy()


def rewrite(path: pathlib.Path, change) -> None:
    """Puts `change` of a JSON file's content in its place."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
