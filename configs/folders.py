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

import pathlib

import bsjax
from bsjax import presets
from bsjax.core.config import parse_arg

EMOJI = pathlib.Path(bsjax.__file__).parent / "assets" / "emoji"


def get_config(arg: str = ""):
    arg = parse_arg(arg, demo=False, tiny=False)
    cfg = presets.experiment()
    if not (arg.demo or arg.tiny):
        return cfg

    cfg.real.path = str(EMOJI / "real")
    cfg.generated.path = str(EMOJI / "generated")
    cfg.encoder = presets.dinov2("vits14_reg", "random:0")
    cfg.train.n_concepts = cfg.train.n_candidates = 256
    cfg.train.loss = "mse"
    cfg.train.peak_learning_rate = 1e-2
    cfg.train.steps = 300
    cfg.train.tokens_per_step = 1024
    cfg.train.max_tokens = 30_000
    cfg.measure.images_per_shard = 64
    if arg.tiny:
        cfg.real.limit = cfg.generated.limit = 40
        cfg.encoder.resize = cfg.encoder.crop = 112
        cfg.train.n_concepts = cfg.train.n_candidates = 64
        cfg.train.steps = 50
        cfg.train.tokens_per_step = 512
        cfg.measure.images_per_shard = 16
    return cfg
