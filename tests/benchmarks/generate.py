"""Seconds of one call of each network against torch's, full size, back to back on one machine.

    python tests/benchmarks/generate.py [unet vae clip t5 pixart prior kandinsky movq] [--rounds=3]

float32, random weights: torch's, read by our converter, so that the outputs can be compared too.
The denoisers get two rows, as guidance asks for; 64 x 64 latents, 512 x 512 pixels; T5-XXL has 2 of
its 24 blocks here. Rounds alternate between the two; the fastest round of each counts. Ratios above
1 mean that ours is faster.
"""

import argparse
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from bsjax.convert.tables import convert_by_name
from bsjax.convert.tensors import TensorSource
from bsjax.generators import loading, released
from bsjax.generators.protocol import Settings

# The folder above the tests, which is not on the path of a script that lies in them.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
from tests.generators.test_full_size import COMPONENTS  # noqa: E402

SETTINGS = Settings(steps=20, guidance=4.0, height=512, width=512, dtype="float32")
RNG = np.random.default_rng(0)
MASK = np.arange(120)[None] < np.array([[120], [40]])


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def chw(array):
    return np.moveaxis(array, -1, 1)


# Each: its component; inputs; ours(module, variables, inputs), theirs(model, tensors of inputs).
def unet():
    def ours(module, variables, x, context):
        time = jnp.full(2, 321.0)
        return jnp.moveaxis(module.apply(variables, x, time, context), -1, 1)

    def theirs(model, x, context):
        return model(x.permute(0, 3, 1, 2), 321, context).sample

    key = ("stable_diffusion", "sd15", "unet")
    return key, (normal(2, 64, 64, 4), normal(2, 77, 768)), ours, theirs


def vae():
    def ours(module, variables, x):
        return module.apply(variables, x, method=module.decode).sample

    def theirs(model, x):
        return model.decode(x.permute(0, 3, 1, 2)).sample

    return ("stable_diffusion", "sd15", "vae"), (normal(1, 64, 64, 4),), ours, theirs


def clip():
    ids = RNG.integers(0, 49407, (8, 77))

    def ours(module, variables, ids):
        positions = jnp.broadcast_to(jnp.arange(77), ids.shape)
        return module.apply(variables, ids, jnp.ones_like(ids), positions)[0]

    def theirs(model, ids):
        return model(ids).last_hidden_state

    return ("stable_diffusion", "sd15", "text_encoder"), (ids,), ours, theirs


def t5():
    def ours(module, variables, ids, mask):
        return module.apply(variables, ids, mask)

    def theirs(model, ids, mask):
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    ids = RNG.integers(0, 32000, (2, 120))
    return ("pixart", "pixart_1024", "text_encoder"), (ids, MASK), ours, theirs


def pixart():
    def ours(module, variables, x, context, mask):
        t, size, ratio = jnp.full(2, 321.0), jnp.full((2, 2), 512.0), jnp.ones((2, 1))
        output = module.apply(variables, x, t, context, mask, size, ratio)
        return jnp.moveaxis(output, -1, 1)

    def theirs(model, x, context, mask):
        conditions = {"resolution": None, "aspect_ratio": None}
        return model(
            x.permute(0, 3, 1, 2), context, torch.tensor([321, 321]), conditions,
            encoder_attention_mask=mask,
        ).sample  # fmt: skip

    inputs = (normal(2, 64, 64, 4), normal(2, 120, 4096), MASK)
    return ("pixart", "pixart_512", "transformer"), inputs, ours, theirs


def prior():
    def ours(module, variables, x, embedding, text, mask):
        return module.apply(variables, x, jnp.full(2, 321.0), embedding, text, mask)

    def theirs(model, x, embedding, text, mask):
        return model(x, 321, embedding, text, mask).predicted_image_embedding

    inputs = (normal(2, 768), normal(2, 768), normal(2, 77, 768), MASK[:, :77])
    return ("kandinsky", "kandinsky21", "prior"), inputs, ours, theirs


def kandinsky():
    def ours(module, variables, x, text, embedding, image):
        output = module.apply(variables, x, jnp.full(2, 321.0), text, embedding, image)
        return jnp.moveaxis(output, -1, 1)

    def theirs(model, x, text, embedding, image):
        added = {"text_embeds": embedding, "image_embeds": image}
        return model(x.permute(0, 3, 1, 2), 321, text, added_cond_kwargs=added).sample

    inputs = (normal(2, 64, 64, 4), normal(2, 77, 1024), normal(2, 768), normal(2, 768))
    return ("kandinsky", "kandinsky21", "unet"), inputs, ours, theirs


def movq():
    def ours(module, variables, x):
        return jnp.moveaxis(module.apply(variables, x), -1, 1)

    def theirs(model, x):
        return model.decode(x.permute(0, 3, 1, 2), force_not_quantize=True).sample

    return ("kandinsky", "kandinsky21", "movq"), (normal(1, 64, 64, 4),), ours, theirs


CASES = {each.__name__: each for each in (unet, vae, clip, t5, pixart, prior, kandinsky, movq)}


def compare(name, rounds):
    (system, variant, part), inputs, ours, theirs = CASES[name]()
    config = dict(released.RELEASED[system][variant][part])
    if name == "t5":
        config["num_layers"] = 2
        changed = released.RELEASED[system][variant] | {part: config}
        released.RELEASED[system] = released.RELEASED[system] | {variant: changed}
    torch.manual_seed(0)
    model = COMPONENTS[system, variant, part][0](config).eval()
    component = loading.build(system, variant, SETTINGS).components[part]
    state = model.state_dict()
    source = TensorSource(
        {key: tuple(value.shape) for key, value in state.items()},
        lambda key: state[key].numpy(), (),
    )  # fmt: skip
    params = convert_by_name(source, component.shapes, name, component.renames, component.ignored)
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    del params
    step = jax.jit(lambda variables, *inputs: ours(component.module, variables, *inputs))
    arrays = [jnp.asarray(array) for array in inputs]
    started = time.perf_counter()
    output = np.asarray(step(variables, *arrays))
    compiled = time.perf_counter() - started
    seconds = {"ours": [], "torch": []}
    with torch.no_grad():
        for _ in range(rounds):
            started = time.perf_counter()
            expected = theirs(model, *tensors(*inputs))
            seconds["torch"].append(time.perf_counter() - started)
            started = time.perf_counter()
            jax.block_until_ready(step(variables, *arrays))
            seconds["ours"].append(time.perf_counter() - started)
    best = {who: min(times) for who, times in seconds.items()}
    difference = np.abs(output - expected.numpy()).max()
    print(
        f"{name:10s} ours {best['ours']:7.3f} s  torch {best['torch']:7.3f} s  RATIO torch / ours"
        f" {best['torch'] / best['ours']:.2f}  (compiled in {compiled:.0f} s; largest difference"
        f" {difference:.1e} of {np.abs(expected.numpy()).max():.2g})",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for name in args.names or CASES:
        compare(name, args.rounds)


if __name__ == "__main__":
    main()
