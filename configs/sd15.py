"""Stable Diffusion 1.5: what do its images show too rarely or too often?

Draws an image for the caption of each real one, 512 x 512, 50 PNDM steps, guidance 7.5: the
pipeline's defaults, as in the paper (arXiv:2506.19708) but for its safety checker. The paper's code
keeps that, and so has black images where it strikes; bsjax has none.

    bsjax run --config=configs/sd15.py --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k \
        --config.real.path=REAL --workdir=runs/sd15

Weights: stable-diffusion-v1-5/stable-diffusion-v1-5, a mirror of the repository that runwayml took
down; or a local copy in --config.generator.weights.

Options behind the colon:
    :paper  512 x 512 by name, which is the size here anyway.
    :tiny   40 emoji captions, 64 x 64 pixels, a UNet of the same kind in small with
            random weights: noise, to see that all of it runs. About a minute on two CPU cores.
With :paper,tiny the tiny size holds.
"""

from bsjax import presets


def get_config(arg: str = ""):
    generator = presets.stable_diffusion(
        "sd15", "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    return presets.on_what_it_draws(generator, arg)
