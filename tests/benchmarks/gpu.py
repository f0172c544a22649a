"""bsjax against torch on one NVIDIA GPU, back to back, in bfloat16, with random weights.

    pip install ".[cuda12]" && pip install --no-deps overcomplete==0.3.0 einops
    python tests/benchmarks/gpu.py [measure sd15 sd15-8 pixart train] [--rounds=5] [--tiny]

Theirs: transformers, diffusers and overcomplete 0.3.0 with torch.compile (a build of torch for
CUDA) and scaled_dot_product_attention, channels last. Networks have the released sizes; nothing is
downloaded. Rounds alternate between the two, the median of each counts, and a ratio above 1 means
that ours is faster. --tiny runs all of it in small on a CPU, which says nothing about speed.
"""

import argparse
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

# The two share the card: none may take all memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

from bsjax.analysis.engine import FIRST_KEPT, jit_measure
from bsjax.core.mesh import make_mesh
from bsjax.core.rng import seed_key
from bsjax.encoders import load_encoder
from bsjax.generators import loading, released
from bsjax.generators.protocol import Settings
from bsjax.generators.random_weights import random_params
from bsjax.sae.encoder import init_encoder
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import init_state, train_step
from bsjax.stages.generate import jit_sample
from bsjax.stats import streaming

# The folder above the tests, which is not on the path of a script that lies in them.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
from tests import overcomplete  # noqa: E402

HALF, THRESHOLD, N_ACTIVE = torch.bfloat16, 3.6, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """One comparison: how many of what a call makes, and the two calls, each to its end."""

    n: int
    unit: str
    ours: Callable[[], object]
    theirs: Callable[[], object]


class Torch(NamedTuple):
    """Where torch computes, and how it compiles."""

    device: str
    backend: str

    def compile(self, function):
        return torch.compile(function, backend=self.backend)

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def built(self, model, dtype=HALF):
        model = model.eval().requires_grad_(False)
        return model.to(self.device, dtype, memory_format=torch.channels_last)

    def tensor(self, array, dtype=None):
        return torch.from_numpy(np.array(array)).to(self.device, dtype)


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def measure(where, is_tiny):
    """uint8 images to energies and fires: DINOv2-B with registers, the SAE in float32."""
    n, n_concepts, variant = (2, 64, "vits14_reg") if is_tiny else (32, 32_000, "vitb14_reg")
    images = RNG.integers(0, 256, (n, 224, 224, 3)).astype(np.uint8)
    encoder = load_encoder("random:0", variant=variant, dtype="bfloat16")
    sae = init_encoder(jax.random.key(0), encoder.width, n_concepts)
    top = streaming.init_top_images(n_concepts, 9)
    step = jit_measure(encoder, encoder.grid(224, 224), one_device())
    params = jax.tree.map(jnp.asarray, encoder.params)
    inputs = jnp.asarray(images), jnp.ones(n, bool), jnp.arange(n, dtype=jnp.int32)

    def ours():
        kept = min(FIRST_KEPT, n_concepts)
        made = step(
            params, sae, jnp.float32(THRESHOLD), top, *inputs, n_kept=kept, precision="default"
        )
        return jax.block_until_ready(made)

    width = encoder.width
    settings = transformers.Dinov2WithRegistersConfig(
        image_size=518, hidden_size=width, num_attention_heads=width // 64,
        attn_implementation="sdpa",
    )  # fmt: skip
    model = where.built(transformers.Dinov2WithRegistersModel(settings))
    kernel, bias = (where.tensor(sae[name]) for name in ("kernel", "bias"))
    mean, std = (where.tensor(each)[:, None, None] for each in (np.float32(MEAN), np.float32(STD)))
    pixels = where.tensor(images)

    @where.compile
    def codes(pixels):
        x = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
        tokens = model(x.to(HALF)).last_hidden_state.float()
        z = torch.nn.functional.layer_norm(tokens @ kernel + bias, (n_concepts,))
        z = torch.relu(z)
        z = z * (z >= THRESHOLD)
        # As the reference measures it: by image and over patches, and how often a concept fires.
        return z.sum(1), z[:, 5:].mean(1), (z > 0).sum((0, 1))

    @torch.no_grad()
    def theirs():
        codes(pixels)
        where.synchronize()

    return Case(n, "images/s", ours, theirs)


def sampler(system, variant, settings, n):
    """A call that draws n images by ours."""
    generator = loading.build(system, variant, settings)
    names = [name for name in generator.components if name not in generator.TEXT_COMPONENTS]
    params = jax.tree.map(jnp.asarray, random_params(generator, "random:0", names))

    def filled(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype)
        return jnp.ones(leaf.shape, leaf.dtype)

    batch = jax.tree.map(filled, generator.abstract_prompts(n))
    sample = jit_sample(generator, one_device())
    indices = jnp.arange(n, dtype=jnp.int32)
    return lambda: jax.block_until_ready(sample(params, seed_key(0), batch, indices))


def scheduler_of(config):
    return getattr(diffusers, config["_class_name"]).from_config(config)


def compile_parts(where, pipe, denoiser):
    pipe.set_progress_bar_config(disable=True)
    setattr(pipe, denoiser, where.compile(getattr(pipe, denoiser)))
    pipe.vae.decode = where.compile(pipe.vae.decode)
    return pipe


def stable_diffusion(where, is_tiny, n):
    """Stable Diffusion 1.5: 512 pixels, 50 steps of PNDM, guidance."""
    variant, side, steps = ("sd15_tiny", 64, 4) if is_tiny else ("sd15", 512, 50)
    ours = sampler("stable_diffusion", variant, Settings(steps, 7.5, side, side, "bfloat16"), n)
    config = released.RELEASED["stable_diffusion"][variant]
    text = where.built(
        transformers.CLIPTextModel(transformers.CLIPTextConfig(**config["text_encoder"]))
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=where.built(diffusers.AutoencoderKL(**config["vae"])), text_encoder=text,
        tokenizer=None, unet=where.built(diffusers.UNet2DConditionModel(**config["unet"])),
        scheduler=scheduler_of(config["scheduler"]), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe = compile_parts(where, pipe, "unet")
    ids = torch.ones((n, 77), dtype=torch.int64, device=where.device)

    @torch.no_grad()
    def theirs():
        features = text(ids).last_hidden_state
        pipe(
            prompt_embeds=features, negative_prompt_embeds=features, num_inference_steps=steps,
            guidance_scale=7.5, height=side, width=side, output_type="pt",
        )  # fmt: skip
        where.synchronize()

    return Case(n, "images/s", ours, theirs)


def pixart(where, is_tiny, n):
    """PixArt-alpha 1024: 20 steps, guidance, from the features of captions."""
    variant, side, steps = ("pixart_1024_tiny", 64, 4) if is_tiny else ("pixart_1024", 1024, 20)
    ours = sampler("pixart", variant, Settings(steps, 4.5, side, side, "bfloat16"), n)
    config = released.RELEASED["pixart"][variant]
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None, text_encoder=None,
        vae=where.built(diffusers.AutoencoderKL(**config["vae"])),
        transformer=where.built(diffusers.PixArtTransformer2DModel(**config["transformer"])),
        scheduler=scheduler_of(config["scheduler"]),
    )  # fmt: skip
    pipe = compile_parts(where, pipe, "transformer")
    width = config["transformer"]["caption_channels"]
    features = where.tensor(RNG.normal(size=(n, 120, width)), HALF)
    mask = torch.ones((n, 120), dtype=torch.int64, device=where.device)

    @torch.no_grad()
    def theirs():
        pipe(
            prompt=None, negative_prompt=None, prompt_embeds=features, prompt_attention_mask=mask,
            negative_prompt_embeds=features, negative_prompt_attention_mask=mask,
            num_inference_steps=steps, guidance_scale=4.5, height=side, width=side,
            use_resolution_binning=False, output_type="pt",
        )  # fmt: skip
        where.synchronize()

    return Case(n, "images/s", ours, theirs)


def train(where, is_tiny):
    """An RA-SAE step: 32,000 concepts and candidates, 16,384 tokens of width 768, AdamW."""
    n_tokens, n_concepts, width = (64, 32, 16) if is_tiny else (16_384, 32_000, 768)
    keys = jax.random.split(jax.random.key(0), 3)
    optimizer = optax.adamw(5e-4, weight_decay=1e-4)
    C = jax.random.normal(keys[0], (n_concepts, width))
    tokens = jax.random.normal(keys[1], (n_tokens, width))
    # As `train_sae` chooses on one GPU.
    objective = Objective(n_active=N_ACTIVE, compute_dtype="bfloat16", is_compact=True)
    step = functools.partial(
        train_step, objective=objective, optimizer=optimizer, mesh=one_device()
    )
    step = jax.jit(step, donate_argnums=0)
    held = [init_state(keys[2], C, n_concepts, optimizer)]

    def ours():
        held[0], metrics = step(held[0], tokens[None], C)
        return jax.block_until_ready((held[0], metrics))

    sae = overcomplete.load()
    encoder = sae.MLPEncoder(width, n_concepts, norm_layer=torch.nn.LayerNorm)
    model = sae.BatchTopKSAE(
        width, n_concepts, top_k=N_ACTIVE * n_tokens, encoder_module=encoder, device=where.device
    )
    points = where.tensor(C)
    model.dictionary = sae.RelaxedArchetypalDictionary(
        width, n_concepts, points, delta=1.0, device=where.device
    )
    model = model.to(where.device).train()
    descent = torch.optim.AdamW(
        model.parameters(), lr=5e-4, weight_decay=1e-4, fused=where.device == "cuda"
    )
    x = where.tensor(tokens)

    @where.compile
    def loss_of(x):
        with torch.autocast(where.device, HALF):
            return torch.nn.functional.mse_loss(model(x)[2].float(), x)

    def theirs():
        descent.zero_grad()
        loss_of(x).backward()
        descent.step()
        where.synchronize()

    return Case(1, "steps/s", ours, theirs)


CASES = {
    "measure": measure,
    "sd15": functools.partial(stable_diffusion, n=1),
    "sd15-8": functools.partial(stable_diffusion, n=8),
    "pixart": functools.partial(pixart, n=1),
    "train": train,
}


def timed(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def row_of(name, where, rounds, is_tiny):
    case = CASES[name](where, is_tiny)
    first = {"ours": timed(case.ours), "theirs": timed(case.theirs)}  # compiles
    seconds = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for who, call in (("theirs", case.theirs), ("ours", case.ours)):
            seconds[who].append(timed(call))
    rates = {who: case.n / float(np.median(times)) for who, times in seconds.items()}
    compiled = f"{first['ours']:.0f} / {first['theirs']:.0f} s"
    return (
        f"| {name} | {rates['ours']:.2f} | {rates['theirs']:.2f} {case.unit} |"
        f" {rates['ours'] / rates['theirs']:.2f} | {compiled} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="in small on a CPU: that it runs")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --tiny shows on a CPU that this script runs")
    where = Torch("cpu", "eager") if args.tiny else Torch("cuda", "inductor")
    card = "tiny, on a CPU" if args.tiny else torch.cuda.get_device_name()
    print(f"{card}; jax {jax.__version__} on {jax.devices()[0].device_kind}, torch"
          f" {torch.__version__}, median of {args.rounds} rounds")  # fmt: skip
    print(
        "| what | ours | theirs | ours / theirs | first call, ours / theirs |\n" + "|---" * 5 + "|"
    )
    for name in args.names or CASES:
        print(row_of(name, where, args.rounds, args.tiny), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
