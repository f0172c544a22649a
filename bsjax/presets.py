"""Config fragments that experiments share: the default of every key.

What a key means, its unit and what it may be stand in `core.ranges`.
"""

import pathlib

import ml_collections
from ml_collections import config_dict

from bsjax.core.config import parse_arg

EMOJI = pathlib.Path(__file__).parent / "assets" / "emoji"
SCENES = pathlib.Path(__file__).parent / "assets" / "scenes"


def experiment() -> ml_collections.ConfigDict:
    """All sections of an experiment with the paper's settings; configs/*.py fill in the rest."""
    cfg = ml_collections.ConfigDict()
    cfg.seed = 0
    cfg.overwrite = False

    cfg.mesh = ml_collections.ConfigDict()
    cfg.mesh.data = -1
    cfg.mesh.model = 1

    cfg.real = image_source()
    cfg.generated = image_source()
    cfg.generator = no_generator()

    cfg.encoder = dinov2("vitb14_reg", "facebook/dinov2-with-registers-base")

    cfg.sae = ml_collections.ConfigDict()
    cfg.sae.weights = ""
    cfg.sae.threshold = config_dict.placeholder(float)

    cfg.train = rasae_training()

    cfg.plan = ml_collections.ConfigDict()
    cfg.plan.stage = "train_sae"
    cfg.plan.topology = ""
    cfg.plan.epoch_tokens = 0
    cfg.plan.local = True
    cfg.plan.fixed_mesh = False

    cfg.measure = ml_collections.ConfigDict()
    cfg.measure.top_images = 12
    cfg.measure.rank_concept = -1
    cfg.measure.images_per_shard = 256
    cfg.measure.controls = ""

    cfg.compare = ml_collections.ConfigDict()
    cfg.compare.form = "relative"
    cfg.compare.temperature = 0.4
    cfg.compare.margin = 1.5
    cfg.compare.aligned = 2.0
    cfg.compare.fdr = 0.05
    cfg.compare.confirm = 0.0
    cfg.compare.clusters = "auto"
    cfg.compare.pairs = "auto"

    cfg.report = ml_collections.ConfigDict()
    cfg.report.style = "light"
    return cfg


def pixart(variant: str, weights: str, pixels: int) -> ml_collections.ConfigDict:
    """PixArt-alpha with its pipeline's defaults: 20 DPM-Solver steps, guidance 4.5."""
    generator = no_generator()
    generator.name = generator.set = "pixart"
    generator.variant, generator.weights = variant, weights
    generator.steps, generator.guidance = 20, 4.5
    generator.height = generator.width = pixels
    return generator


def kandinsky(variant: str, weights: str, prior_weights: str) -> ml_collections.ConfigDict:
    """Kandinsky with its pipelines' defaults: 25 prior steps, 100 DDIM steps, guidance 4."""
    generator = no_generator()
    generator.name, generator.set = "kandinsky", variant
    generator.variant, generator.weights = variant, weights
    generator.prior_weights = prior_weights
    generator.steps, generator.guidance = 100, 4.0
    return generator


def on_what_it_draws(generator: ml_collections.ConfigDict, arg: str) -> ml_collections.ConfigDict:
    """The experiment on a generator's images, with the options :paper and :tiny.

    Raises:
      UserError: another option.
    """
    chosen = parse_arg(arg, paper=False, tiny=False)
    cfg = experiment()
    cfg.generator = generator
    if chosen.paper:
        at_the_papers_size(cfg.generator)
    if chosen.tiny:
        on_emoji(cfg, is_tiny=True)
        in_small(cfg.generator)
    return cfg


def at_the_papers_size(generator: ml_collections.ConfigDict) -> None:
    """512 x 512 pixels: what the paper's code (arXiv:2506.19708) asks of every pipeline."""
    generator.height = generator.width = 512


def on_emoji(cfg: ml_collections.ConfigDict, is_tiny: bool) -> None:
    """The experiment on the 200 emoji that come with bsjax, with untrained features; or on 40."""
    cfg.real.path = str(EMOJI / "real")
    cfg.encoder = dinov2("vits14_reg", "random:0")
    cfg.train.n_concepts = cfg.train.n_candidates = 256
    cfg.train.loss = "mse"
    cfg.train.peak_learning_rate = 1e-2
    cfg.train.steps = 300
    cfg.train.tokens_per_step = 1024
    cfg.train.max_tokens = 30_000
    cfg.measure.images_per_shard = 64
    if is_tiny:
        cfg.real.limit = 40
        cfg.encoder.resize = cfg.encoder.crop = 112
        cfg.train.n_concepts = cfg.train.n_candidates = 64
        cfg.train.steps = 50
        cfg.train.tokens_per_step = 512
        cfg.measure.images_per_shard = 16


def on_scenes(cfg: ml_collections.ConfigDict, n_captions: int) -> None:
    """The scenes world with the networks that come with bsjax."""
    cfg.real.source, cfg.real.path, cfg.real.limit = "scenes", "1", n_captions
    cfg.encoder = dinov2("vitxs8_reg", str(SCENES / "encoder"))
    cfg.encoder.resize = cfg.encoder.crop = 64
    cfg.encoder.batch_per_device = 20
    cfg.sae.weights = str(SCENES / "sae")
    cfg.generator = stable_diffusion("scenes", "scenes", str(SCENES / "generator"))
    cfg.generator.steps, cfg.generator.guidance = 20, 1.5
    cfg.generator.height = cfg.generator.width = 64
    cfg.generator.dtype = "float32"
    cfg.generator.batch_per_device = 50
    cfg.generator.images_per_shard = 250


def scenes_training(cfg: ml_collections.ConfigDict) -> None:
    """The RA-SAE of the scenes world."""
    cfg.sae.weights = ""
    cfg.generator = no_generator()
    cfg.real.path, cfg.real.limit = "2", 4000
    train = cfg.train
    train.n_concepts = train.n_candidates = 512
    train.encoder_init = "candidates"
    train.n_active = 9  # as pure concepts as R2 above 0.8 leaves room for; chosen on real scenes
    train.loss = "mse"  # no concept dies, and the revival of dead ones costs 0.07 of R2
    train.relax_radius = 4.0
    train.tokens_per_step = 2048
    train.steps = 1500
    train.peak_learning_rate = 1e-3
    train.max_tokens = 280_000
    train.judge_tokens = 60_000


def in_small(generator: ml_collections.ConfigDict) -> None:
    """A generator of the same kind in small with random weights: it draws noise, in seconds."""
    generator.variant += "_tiny"
    generator.weights = "random:0"
    generator.unet_weights = generator.prior_weights = ""
    generator.steps = generator.prior_steps = 4
    generator.height = generator.width = 64
    generator.dtype = "float32"
    generator.batch_per_device = 4
    generator.images_per_shard = 16


def image_source() -> ml_collections.ConfigDict:
    """A set of captioned images."""
    source = ml_collections.ConfigDict()
    source.source = "auto"
    source.path = ""
    source.split = "train"
    source.caption_field = ""
    source.image_field = ""
    source.image_root = ""
    source.prompts = ""
    source.captions = "first"
    source.follow_links = True
    source.limit = -1
    source.max_bad = 0.01
    source.max_unpaired = 0.1
    source.workers = -1
    return source


def no_generator() -> ml_collections.ConfigDict:
    """Images made elsewhere lie in cfg.generated.path; every key that a generator has."""
    generator = ml_collections.ConfigDict()
    generator.name = "none"
    generator.set = ""
    generator.variant = ""
    generator.weights = ""
    generator.revision = ""
    generator.unet_weights = ""
    generator.prior_weights = ""
    generator.steps = 50
    generator.guidance = 7.5
    generator.prior_steps = 25
    generator.prior_guidance = 4.0
    generator.height = 512
    generator.width = 512
    generator.dtype = "bfloat16"
    generator.batch_per_device = -1
    generator.images_per_shard = 64
    generator.prompts = ""
    generator.samples = 1
    return generator


def stable_diffusion(name: str, variant: str, weights: str) -> ml_collections.ConfigDict:
    """Stable Diffusion with its pipeline's defaults: 50 steps, guidance 7.5."""
    generator = no_generator()
    generator.name = "stable_diffusion"
    generator.set, generator.variant, generator.weights = name, variant, weights
    return generator


def dinov2(variant: str, weights: str) -> ml_collections.ConfigDict:
    """A DINOv2 encoder with the paper's preprocessing.

    The variant is a name out of the table of encoders (bsjax/encoders/registry.py): vits14, vitb14,
    vitl14 or vitg14, with _reg for registers; clip_vitb32, clip_vitb16, clip_vitl14 ...;
    siglip_base16_224 ...; or a class of your own, module:Class; or "": what config.json of the
    weights says.
    """
    encoder = ml_collections.ConfigDict()
    encoder.variant = variant
    encoder.weights = weights
    encoder.resize = 256
    encoder.crop = 224
    encoder.dtype = "float32"
    encoder.batch_per_device = -1
    return encoder


def clip(variant: str, weights: str, pixels: int = 224) -> ml_collections.ConfigDict:
    """A CLIP image tower (openai/clip-vit-base-patch32 ...) with its own preprocessing."""
    encoder = dinov2(variant, weights)
    encoder.resize = encoder.crop = pixels
    return encoder


def siglip(variant: str, weights: str, pixels: int = 224) -> ml_collections.ConfigDict:
    """A SigLIP or SigLIP 2 image tower (google/siglip2-base-patch16-224 ...), shown whole images.

    No SAE is published for it: train one (`bsjax train_sae`).
    """
    encoder = dinov2(variant, weights)
    encoder.resize, encoder.crop = -1, pixels
    return encoder


def rasae_training() -> ml_collections.ConfigDict:
    """A small RA-SAE, trained where none is given."""
    train = ml_collections.ConfigDict()
    train.n_concepts = 2048
    train.n_candidates = 2048
    train.candidate_iterations = 10
    train.candidate_tokens = 200_000
    train.n_active = 5
    train.relax_radius = 1.0
    train.loss = "aux"
    train.activation = "batch_topk"
    train.encoder_init = "xavier"
    train.l1_weight = 0.0
    train.tokens_per_step = 4096
    train.accumulate = 1
    train.steps = 2000
    train.epochs = -1.0
    train.compute_dtype = "float32"
    train.full_precision_share = 0.2
    train.full_precision = "highest"
    train.init_from = ""
    train.peak_learning_rate = 5e-4
    train.final_learning_rate = 1e-6
    train.warmup_share = 0.05
    train.weight_decay = 1e-4
    train.supply = "memory"
    train.max_tokens = 200_000
    train.token_store = ""
    train.shard_images = -1
    train.compare_with = ""
    train.judge_tokens = 4096
    train.look_every = 20
    train.checkpoint_every = 1000
    train.keep_checkpoints = 3
    return train
