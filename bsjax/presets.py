"""Config fragments that experiments share. Every key has its default, unit and meaning here."""

import pathlib

import ml_collections
from ml_collections import config_dict

EMOJI = pathlib.Path(__file__).parent / "assets" / "emoji"
SCENES = pathlib.Path(__file__).parent / "assets" / "scenes"


def experiment() -> ml_collections.ConfigDict:
    """All sections of an experiment with the paper's settings; configs/*.py fill in the rest."""
    cfg = ml_collections.ConfigDict()
    cfg.seed = 0
    cfg.overwrite = False  # make anew what another config made

    cfg.mesh = ml_collections.ConfigDict()
    cfg.mesh.data = -1  # devices over which images are divided; -1: all that model leaves
    cfg.mesh.model = 1  # devices over which concepts are divided (training)

    cfg.real = image_source()
    cfg.generated = image_source()  # images made elsewhere from the captions of the real ones
    cfg.generator = no_generator()

    cfg.encoder = dinov2("vitb14_reg", "facebook/dinov2-with-registers-base")

    cfg.sae = ml_collections.ConfigDict()
    cfg.sae.weights = ""  # .pth as published | sae folder of a workdir | hub id; "": train one here
    cfg.sae.threshold = config_dict.placeholder(float)  # None: the checkpoint's own, else 0.829

    cfg.train = rasae_training()

    cfg.plan = ml_collections.ConfigDict()
    cfg.plan.stage = "train_sae"  # train_sae | generate | measure
    cfg.plan.topology = ""  # TPU topologies, with commas: v5e:2x4,v5e:4x4
    cfg.plan.epoch_tokens = 0  # tokens that an epoch will have, where train.steps is -1
    cfg.plan.local = True  # compile for this machine's devices too
    cfg.plan.fixed_mesh = False  # only the shape in cfg.mesh instead of all

    cfg.measure = ml_collections.ConfigDict()
    cfg.measure.top_images = 12  # images kept a concept
    cfg.measure.rank_concept = -1  # rank captions by this concept; -1: do not
    cfg.measure.images_per_shard = 256  # an interrupted run repeats at most so many images

    cfg.compare = ml_collections.ConfigDict()
    cfg.compare.form = "relative"  # relative | difference
    cfg.compare.temperature = 0.4  # the reference code has 0.4 for relative, 0.8 for difference
    cfg.compare.suppressed = 0.1  # delta below is suppressed
    cfg.compare.exaggerated = 0.9  # delta above is exaggerated
    cfg.compare.fdr = 0.05  # false discovery rate of the verdicts
    cfg.compare.min_images = 10  # pairs that must show a concept before it is judged
    cfg.compare.bootstrap = 0  # resamples for intervals of relative; 0: delta method
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
    cfg.compare.suppressed, cfg.compare.exaggerated = 0.25, 0.75


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
    source.source = "folder"  # folder | arrayrecord | parquet | tfds
    source.path = ""  # folder | ArrayRecord or parquet files (a pattern) | name of a tfds dataset
    source.split = "train"  # tfds; a folder of parquet files named train-*.parquet, test-*.parquet
    source.caption_field = ""  # where captions are; "": caption, text, TEXT, prompt or captions
    source.image_field = ""  # where images are; "": image, jpg, png, webp, img or image_bytes
    source.captions = "first"  # first | all: of an image's several captions, each with the image
    source.follow_links = True  # folder: images may be links that leave it; captions never may
    source.limit = -1  # first so many images; -1: all
    source.max_bad = 0.01  # largest share of unreadable images before the run stops
    source.max_unpaired = 0.1  # largest share without a partner in the other set, if made elsewhere
    source.workers = -1  # processes that decode; -1: chosen by platform, 0: threads only
    return source


def no_generator() -> ml_collections.ConfigDict:
    """Images made elsewhere lie in cfg.generated.path; every key that a generator has."""
    generator = ml_collections.ConfigDict()
    generator.name = "none"  # stable_diffusion | pixart | kandinsky | none
    generator.set = ""  # name of its images' folder
    generator.variant = ""  # which released shape; only for plan and random weights
    generator.weights = ""  # hub id | folder in the hub's layout | random:SEED
    generator.revision = ""  # of the hub repository; "": the main branch
    generator.unet_weights = ""  # another repository for the UNet; "": the same
    generator.prior_weights = ""  # Kandinsky: the repository of the prior
    generator.steps = 50
    generator.guidance = 7.5  # classifier-free; 1: none
    generator.prior_steps = 25  # Kandinsky
    generator.prior_guidance = 4.0
    generator.height = 512  # pixels
    generator.width = 512
    generator.dtype = "bfloat16"  # float32 | bfloat16, of products; samples stay float32
    generator.batch_per_device = -1  # images; -1: 1 on a CPU, 8 on accelerators
    generator.images_per_shard = 64
    generator.prompts = ""  # file with a prompt a line, instead of the real images' captions
    generator.samples = 1  # images a line of that file
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
    encoder.weights = weights  # hub id | folder | .safetensors | .pth | random:SEED
    encoder.resize = 256  # pixels of the short side; -1: all of an image becomes crop x crop
    encoder.crop = 224  # pixels of the centre crop, a multiple of the patch size
    encoder.dtype = "float32"  # of the matmuls; parameters and statistics stay float32
    encoder.batch_per_device = -1  # images; -1: 1 on a CPU (fits its caches), 32 on accelerators
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
    train.n_candidates = 2048  # k-means centroids of tokens
    train.candidate_iterations = 10
    train.candidate_tokens = 200_000  # sample that the centroids are fitted to
    train.n_active = 5  # concepts a token, on average over a batch
    train.relax_radius = 1.0  # same unit as features
    train.loss = "aux"  # mse | aux
    train.activation = "batch_topk"  # batch_topk | topk | jumprelu
    train.encoder_init = "xavier"  # as published | candidates: each concept starts at its atom
    train.l1_weight = 0.0  # times the mean over tokens of the summed codes (jumprelu needs it)
    train.tokens_per_step = 4096
    train.accumulate = 1  # micro-batches a step, each with a top-k of its own
    train.steps = 2000  # -1: as many as train.epochs takes
    train.epochs = -1.0  # over all tokens; counts where steps is -1
    train.compute_dtype = "float32"  # of the matmuls; masters, sums and optimizer stay float32
    train.full_precision_share = 0.2  # of the steps, the last: in float32 whatever compute_dtype
    train.full_precision = "highest"  # float32 products: highest | high (TPU: 3 bfloat16 ones)
    train.init_from = ""  # RA-SAE to go on from: published .pth | hub id | export; "": from scratch
    train.peak_learning_rate = 5e-4
    train.final_learning_rate = 1e-6
    train.warmup_share = 0.05  # of the steps
    train.weight_decay = 1e-4
    train.supply = "memory"  # memory | store (on disk, written once) | images (encoded as it goes)
    train.max_tokens = 200_000  # supply=memory: tokens held, sampled evenly over the images
    train.token_store = ""  # supply=store: its folder
    train.shard_images = -1  # supply=store: images a shard; -1: as many as make 0.5 GB
    train.compare_with = ""  # sae folder of another seed, for quality.json's stability
    train.judge_tokens = 4096  # sample that quality.json is measured on
    train.look_every = 20  # steps between two looks at the metrics; a look waits for the devices
    train.checkpoint_every = 1000  # steps
    train.keep_checkpoints = 3
    return train
