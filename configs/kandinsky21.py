"""Kandinsky 2.1, a prior and a UNet for its embeddings: what does it show too rarely or too often?

Draws an image for the caption of each real one, 512 x 512, 25 steps of the prior and 100 DDIM
steps, guidance 4: the pipelines' defaults, as in the paper (arXiv:2506.19708).

    bsjax run --config=configs/kandinsky21.py --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k \
        --config.real.path=REAL --workdir=runs/kandinsky21

Weights: kandinsky-community/kandinsky-2-1 and kandinsky-2-1-prior, or local copies in
--config.generator.weights and --config.generator.prior_weights.

Options behind the colon:
    :paper  512 x 512 by name, which is the size here anyway.
    :tiny   40 emoji captions, 64 x 64 pixels, networks of the same kind in small with random
            weights: noise, to see that all of it runs. About a minute on two CPU cores.
With :paper,tiny the tiny size holds.
"""

from bsjax import presets


def get_config(arg: str = ""):
    generator = presets.kandinsky(
        "kandinsky21",
        "kandinsky-community/kandinsky-2-1",
        "kandinsky-community/kandinsky-2-1-prior",
    )
    return presets.on_what_it_draws(generator, arg)
