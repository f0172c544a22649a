"""Every program of bsjax compiled for a GPU that is not here: memory, work, kernels called.

    pip install ".[plan-gpu]"
    JAX_PLATFORMS=cpu python tests/benchmarks/gpu_compile.py [NAME ...] [--topology=h100:1]

Prints a row of a table in Markdown for each program as it comes, after two rows of attention alone
without and with cuDNN's kernel. Compiled for, not run on: a roofline is the least time that the
card's published rates allow.
"""

import argparse
import collections
import functools
import pathlib
import re
import runpy
import time

import jax
import jax.numpy as jnp

from bsjax.core.mesh import make_mesh, replicated
from bsjax.experiment import inputs
from bsjax.experiment.recipe import make_recipe
from bsjax.models import attention
from bsjax.roofline.chips import devices_of, roofline, share_of_chip, weight_of
from bsjax.roofline.compiled import cost_of
from bsjax.roofline.gpus import compile_anywhere
from bsjax.sae import candidates, quality
from bsjax.stages import plan
from bsjax.stats import copies

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
WIDTH, CONCEPTS = 768, 32_000
# Kernels that are no products: sorts and the like, and what only names a value.
SHOWN = re.compile(r"__(cublas|cudnn)\$\w+(\$\w+)*|__triton\w*")


def load_config(name):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]("")


def shaped(mesh, *dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype, sharding=replicated(mesh))


def attend(form, mesh):
    """Stable Diffusion's largest attention, two rows for each of 8 images."""
    q = shaped(mesh, 16, 4096, 8, 40, dtype=jnp.bfloat16)
    return jax.jit(form).lower(q, q, q)


def measured(dtype, mesh):
    config = load_config("rasae_imagenet")
    config.encoder.dtype = dtype
    return plan._lower_measure(config, mesh)


def trained(loss, which, mesh):
    """A step of 16,384 tokens, as many as overcomplete's default recipes take at most."""
    config = load_config("rasae_imagenet")
    config.train.loss, config.train.tokens_per_step = loss, 16_384
    made = make_recipe(config, mesh, 10**9)
    return plan._lower_train(config, mesh, made, getattr(made, which))


def drawn(name, mesh):
    generator = inputs.generator_to_plan(load_config(name))
    return plan._lower_generate(generator, mesh, 8)


def written(name, mesh):
    return plan._lower_text(inputs.generator_to_plan(load_config(name)), mesh)


def likeness(mesh):
    """compare's search for copies: 32 images against 8 others each."""

    def sketch(*n):
        return copies.Sketch(
            shaped(mesh, *n, 16, 16, WIDTH, dtype=jnp.int8),
            shaped(mesh, *n),
            shaped(mesh, *n, WIDTH),
        )

    return copies.find_likeness.lower(sketch(32), sketch(32, 8), shaped(mesh, WIDTH))


def lloyd(mesh):
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
    tokens, weights = shaped(mesh, 1 << 20, WIDTH), shaped(mesh, 1 << 20)
    return candidates._lloyd.lower(key, tokens, weights, shaped(mesh, CONCEPTS, WIDTH), mesh)


def cosines(mesh):
    atoms = shaped(mesh, CONCEPTS, WIDTH)
    return quality._largest_cosine.lower(atoms, atoms, True, 1024)


PROGRAMS = {
    "attention, plain": functools.partial(attend, attention._attention_in_parts),
    "attention": functools.partial(attend, attention.attention),
    "measure f32": functools.partial(measured, "float32"),
    "measure bf16": functools.partial(measured, "bfloat16"),
    "train bf16": functools.partial(trained, "aux", "low"),
    "train f32": functools.partial(trained, "aux", "full"),
    "train mse bf16": functools.partial(trained, "mse", "low"),
    "train mse f32": functools.partial(trained, "mse", "full"),
    "candidates": lloyd,
    "SAE quality": cosines,
    "copies": likeness,
    "sd15": functools.partial(drawn, "sd15"),
    "sd21": functools.partial(drawn, "sd21"),
    "pixart": functools.partial(drawn, "pixart"),
    "pixart text": functools.partial(written, "pixart"),
    "kandinsky21": functools.partial(drawn, "kandinsky21"),
}


def kernels_of(text):
    """Kernels called and how often they are written down, loops once."""
    found = collections.Counter(match[0] for match in SHOWN.finditer(text))
    return ", ".join(f"`{name}` {n}" for name, n in sorted(found.items())) or "none"


def row_of(name, lower, mesh, chip):
    started = time.perf_counter()
    compiled, options = compile_anywhere(lower(mesh))
    seconds = time.perf_counter() - started
    text, memory = compiled.as_text(), compiled.memory_analysis()
    cost = cost_of(text, weight_of(chip))
    times = {kind: 1e3 * value for kind, value in roofline(cost, chip).items()}
    cells = (
        name,
        f"{memory.argument_size_in_bytes / 1e9:.2f}",
        f"{memory.temp_size_in_bytes / 1e9:.2f}",
        f"{cost.flops / 1e12:.2f}",
        f"{cost.bytes / 1e9:.1f}",
        f"{times['compute']:.1f} / {times['memory']:.1f}",
        kernels_of(text) + (f"; {options}" if options else ""),
        f"{seconds:.0f} s",
    )
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PROGRAMS)}; default: all")
    parser.add_argument("--topology", default="h100:1")
    args = parser.parse_args()
    devices = devices_of(args.topology)
    chip, _ = share_of_chip(devices)
    mesh = make_mesh(-1, 1, devices)
    title = (
        "program", "arguments, GB", "temporaries, GB", "TFLOP", "GB accessed",
        "ms by compute / memory", "kernels in the text", "compiled in",
    )  # fmt: skip
    print("| " + " | ".join(title) + " |\n" + "|---" * len(title) + "|", flush=True)
    for name in args.names or PROGRAMS:
        print(row_of(name, PROGRAMS[name], mesh, chip), flush=True)


if __name__ == "__main__":
    main()
