"""The published RA-SAE: 32,000 concepts over DINOv2 tokens of ImageNet-1k (arXiv:2506.19708).

The recipe of the model card (`matybohacek/RA-SAE-DINOv2-32k`): all 261 tokens of 1.28 million
images, 50 epochs (1.67e10 tokens), 5 active concepts per token by batch top-k, AdamW with weight
decay 1e-4, 5 % warm-up and cosine from 5e-4 to 1e-6, mixed precision with the last ten epochs in
float32, MSE plus the auxiliary loss that revives dead concepts. The batch size is not published;
here 65,536 tokens.

    bsjax train_sae --config=configs/rasae_imagenet.py --workdir=gs://BUCKET/rasae \
        --config.train.token_store=/mnt/disks/tokens

Hardware, compiled for and by roofline (`bsjax plan`, not measured): v5e:2x4 1.6 hours, v5e:4x4 1.2
hours, v5e:8x8 0.3 hours, with 3 to 6 GB of 16 GB per chip.
Disk: the token store takes 513 GB (`train.supply=images` needs none, but encodes every epoch
anew). Expected quality: nobody has run this yet; the published SAE has 9.99 fires per token over
one pass, one dead concept and three that fire on more than a tenth of all tokens.

`imagenet2012` must have been prepared by tensorflow-datasets in the ArrayRecord format; any folder,
ArrayRecord or parquet of images does as well (--config.real.source, --config.real.path).

Options behind the colon:
    :tiny   64 concepts on 40 emoji that come with bsjax, untrained features; under a minute.
"""

from bsjax import presets
from bsjax.core.config import parse_arg

N_IMAGES, TOKENS_PER_IMAGE, EPOCHS = 1_281_167, 261, 50.0


def get_config(arg: str = ""):
    arg = parse_arg(arg, tiny=False)
    cfg = presets.experiment()

    cfg.real.source = "tfds"
    cfg.real.path = "imagenet2012"
    cfg.real.split = "train"
    cfg.encoder = presets.dinov2("vitb14_reg", "facebook/dinov2-with-registers-base")
    cfg.encoder.dtype = "bfloat16"

    train = cfg.train
    train.supply = "store"
    train.n_concepts = train.n_candidates = 32_000
    train.candidate_tokens = 2_000_000
    train.n_active = 5
    train.relax_radius = 1.0
    train.loss = "aux"
    train.tokens_per_step = 65_536
    train.steps, train.epochs = -1, EPOCHS
    train.peak_learning_rate, train.final_learning_rate = 5e-4, 1e-6
    train.warmup_share = 0.05
    train.weight_decay = 1e-4
    train.compute_dtype = "bfloat16"
    train.full_precision_share = 0.2
    train.full_precision = "high"
    train.look_every = 100
    train.checkpoint_every = 5000
    cfg.mesh.data, cfg.mesh.model = -1, 8
    cfg.plan.epoch_tokens = N_IMAGES * TOKENS_PER_IMAGE

    if arg.tiny:
        cfg.real.source, cfg.real.path, cfg.real.limit = "folder", str(presets.EMOJI / "real"), 40
        cfg.encoder = presets.dinov2("vits14_reg", "random:0")
        cfg.encoder.resize = cfg.encoder.crop = 112
        train.supply = "memory"
        train.n_concepts = train.n_candidates = 64
        train.candidate_tokens = 2000
        train.tokens_per_step = 512
        train.steps = 50
        train.peak_learning_rate = 1e-2
        train.look_every = train.checkpoint_every = 20
        cfg.mesh.model = 1
    return cfg
