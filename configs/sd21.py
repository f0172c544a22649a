"""Stable Diffusion 2.1, which predicts velocities: what does it show too rarely or too often?

Draws an image for the caption of each real one, 768 x 768, 50 DDIM steps, guidance 7.5: the
pipeline's defaults. The paper (arXiv:2506.19708) differs in the size: it asks for 512 x 512, which
this model was not trained on.

    bsjax run --config=configs/sd21.py --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k \
        --config.real.path=REAL --workdir=runs/sd21

Weights: stabilityai/stable-diffusion-2-1, or a mirror or a local copy of it in
--config.generator.weights. For stable-diffusion-2-1-base add --config.generator.height=512
--config.generator.width=512.

Options behind the colon:
    :paper  512 x 512, as in the paper.
    :tiny   40 emoji captions, 64 x 64 pixels, a UNet of the same kind in small with
            random weights: noise, to see that all of it runs. About a minute on two CPU cores.
With :paper,tiny the tiny size holds.
"""

from bsjax import presets


def get_config(arg: str = ""):
    generator = presets.stable_diffusion("sd21", "sd21", "stabilityai/stable-diffusion-2-1")
    generator.height = generator.width = 768
    return presets.on_what_it_draws(generator, arg)
