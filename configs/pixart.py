"""PixArt-alpha, a transformer with T5 text: what does it show too rarely or too often?

Draws an image for the caption of each real one, 1024 x 1024, 20 DPM-Solver++ steps, guidance 4.5:
the pipeline's defaults. The paper (arXiv:2506.19708) differs in the size: it asks for 512 x 512,
for which the pipeline draws 1024 x 1024 and shrinks that. T5-XXL encodes all captions first,
divided over all devices, and leaves memory before the transformer comes.

    bsjax run --config=configs/pixart.py --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k \
        --config.real.path=REAL --workdir=runs/pixart

Weights: PixArt-alpha/PixArt-XL-2-1024-MS, or a local copy in --config.generator.weights. For
PixArt-XL-2-512x512 add --config.generator.height=512 --config.generator.width=512.

Options behind the colon:
    :paper  512 x 512, as in the paper.
    :tiny   40 emoji captions, 64 x 64 pixels, a transformer of the same kind in small with random
            weights: noise, to see that all of it runs. About a minute on two CPU cores.
With :paper,tiny the tiny size holds.
"""

from bsjax import presets


def get_config(arg: str = ""):
    generator = presets.pixart("pixart_1024", "PixArt-alpha/PixArt-XL-2-1024-MS", 1024)
    return presets.on_what_it_draws(generator, arg)
