"""Scenes: a text-to-image model with planted gaps. Does bsjax find them?

A small world of captioned pictures, drawn by a program; a Stable Diffusion in small that learned it
with gaps planted (bsjax/planted/planted.json); a DINOv2 and an RA-SAE trained on it. All weights
come with bsjax, and everything runs through the code that the large models run through.

    bsjax run --config=configs/scenes.py --workdir=runs/scenes

500 captions, 64 x 64 pixels, 20 DPM-Solver++ steps, guidance 1.5. A few minutes on two CPU cores.
Verdicts are given by the same margin as everywhere.

Options behind the colon:
    :tiny       40 captions, under a minute
    :limit=N    as many captions
    :train_sae  for `bsjax train_sae`: how the RA-SAE that comes with bsjax was trained
"""

from bsjax import presets
from bsjax.core.config import parse_arg


def get_config(arg: str = ""):
    arg = parse_arg(arg, tiny=False, limit=500, train_sae=False)
    cfg = presets.experiment()
    presets.on_scenes(cfg, 40 if arg.tiny else arg.limit)
    if arg.train_sae:
        presets.scenes_training(cfg)
    return cfg
