"""The released sizes: parameter counts, and every tensor that torch's class names is consumed.

torch's modules are built on the meta device, where they take no memory.
"""

import diffusers
import jax
import pytest
import torch
import transformers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

from bsjax.convert.tables import match_names
from bsjax.generators import loading, released
from bsjax.generators.protocol import Settings

SETTINGS = Settings(steps=20, guidance=4.0, height=512, width=512, dtype="float32")


def clip_text(projection=False):
    def build(config):
        config = transformers.CLIPTextConfig(**config)
        if projection:
            return transformers.CLIPTextModelWithProjection(config)
        return transformers.CLIPTextModel(config)

    return build


def vae(config):
    return diffusers.AutoencoderKL(**config)


def kandinsky_unet(config):
    return diffusers.UNet2DConditionModel(**config)


def movq(config):
    return diffusers.VQModel(**config, num_vq_embeddings=16384)


# System, variant, component: torch's class, its parameters (all of them, as released), and how many
# of them generating takes. Sources: SD 1.5 and 2.1 UNets 859.5 M and 865.9 M (model cards), VAE
# 83.7 M, CLIP-L text 123.1 M, OpenCLIP-H text without its last layer 340.4 M; PixArt 0.6 B
# (arXiv:2310.00426, table 2), T5-XXL encoder 4.76 B; Kandinsky UNet 1.22 B, prior 1 B, MoVQ 67 M,
# XLM-R 560 M (arXiv:2310.03502, table 1).
COMPONENTS = {
    ("stable_diffusion", "sd15", "unet"): (
        lambda config: diffusers.UNet2DConditionModel(**config), 859_520_964, 859_520_964,
    ),
    ("stable_diffusion", "sd21", "unet"): (
        lambda config: diffusers.UNet2DConditionModel(**config), 865_910_724, 865_910_724,
    ),
    ("stable_diffusion", "sd15", "vae"): (vae, 83_653_863, 49_490_199),
    ("stable_diffusion", "sd15", "text_encoder"): (clip_text(), 123_060_480, 123_060_480),
    ("stable_diffusion", "sd21", "text_encoder"): (clip_text(), 340_387_840, 340_387_840),
    ("pixart", "pixart_1024", "transformer"): (
        lambda config: diffusers.PixArtTransformer2DModel(**config),
        611_349_152, 611_349_152,
    ),
    ("pixart", "pixart_512", "transformer"): (
        lambda config: diffusers.PixArtTransformer2DModel(**config),
        610_856_096, 610_856_096,
    ),
    ("pixart", "pixart_1024", "text_encoder"): (
        lambda config: transformers.T5EncoderModel(transformers.T5Config(**config)),
        4_762_310_656, 4_762_310_656,
    ),
    ("kandinsky", "kandinsky21", "prior"): (
        lambda config: diffusers.PriorTransformer(**config), 1_022_030_080, 1_022_030_080,
    ),
    ("kandinsky", "kandinsky21", "clip_text"): (clip_text(True), 123_650_304, 123_650_304),
    ("kandinsky", "kandinsky21", "clip_image"): (
        lambda config: transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(**config)
        ),
        303_966_208, 303_966_208,
    ),
    ("kandinsky", "kandinsky21", "text_encoder"): (
        lambda config: MultilingualCLIP(MCLIPConfig(**config)),
        560_677_632, 559_628_032,
    ),
    ("kandinsky", "kandinsky21", "unet"): (kandinsky_unet, 1_228_661_768, 1_228_661_768),
    ("kandinsky", "kandinsky21", "movq"): (movq, 67_832_495, 40_369_175),
}  # fmt: skip


@pytest.mark.parametrize("key", COMPONENTS, ids="/".join)
def test_every_released_parameter_is_consumed(key):
    system, variant, name = key
    make, n_released, n_used = COMPONENTS[key]
    config = released.RELEASED[system][variant][name]
    with torch.device("meta"):
        model = make(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == n_released
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    component = loading.build(system, variant, SETTINGS).components[name]
    leaves = jax.tree.leaves(component.shapes)
    assert sum(leaf.size for leaf in leaves) == n_used
    found = match_names(shapes, component.shapes, name, component.renames, component.ignored)
    assert len(found) == len(set(found.values())) == len(leaves)
