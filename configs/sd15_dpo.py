"""Stable Diffusion 1.5 after direct preference optimisation (arXiv:2311.12908).

As configs/sd15.py, with another UNet: the paper (arXiv:2506.19708) finds fewer blindspots in it.

    bsjax run --config=configs/sd15_dpo.py --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k \
        --config.real.path=REAL --workdir=runs/sd15_dpo

Weights: the UNet of mhdang/dpo-sd1.5-text2image-v1, all else of stable-diffusion-v1-5.

Options behind the colon:
    :paper  512 x 512 by name, which is the size here anyway.
    :tiny   40 emoji captions, 64 x 64 pixels, a UNet of the same kind in small with
            random weights: noise, to see that all of it runs. About a minute on two CPU cores.
With :paper,tiny the tiny size holds.
"""

from bsjax import presets


def get_config(arg: str = ""):
    generator = presets.stable_diffusion(
        "sd15_dpo", "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    generator.unet_weights = "mhdang/dpo-sd1.5-text2image-v1"
    return presets.on_what_it_draws(generator, arg)
