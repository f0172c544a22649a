"""Two folders of captioned images: what does the generated one show too rarely or too often?

Real images with captions in one folder, images that a model made from those captions in another,
paired by file name. Encoder and SAE are the paper's (arXiv:2506.19708): DINOv2 ViT-B/14 with
registers and the published RA-SAE with 32,000 concepts.

    bsjax run --config=configs/folders.py --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k \
        --config.real.path=REAL --config.generated.path=GENERATED --workdir=runs/mine

Options behind the colon:
    :demo   200 emoji drawn by two vendors, which come with bsjax; untrained features. About three
            minutes on two CPU cores.
    :tiny   the same with 40 pairs and 64 concepts, under a minute.
"""

from bsjax import presets
from bsjax.core.config import parse_arg


def get_config(arg: str = ""):
    arg = parse_arg(arg, demo=False, tiny=False)
    cfg = presets.experiment()
    if not (arg.demo or arg.tiny):
        return cfg

    presets.on_emoji(cfg, arg.tiny)
    cfg.generated.path = str(presets.EMOJI / "generated")
    cfg.generated.limit = cfg.real.limit
    return cfg
