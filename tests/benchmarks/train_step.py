"""Seconds of one RA-SAE training step against overcomplete 0.3.0's, back to back on one machine.

    pip install --no-deps overcomplete==0.3.0 einops
    python tests/benchmarks/train_step.py [--tokens=4096] [--concepts=4096] [--steps=8]

AdamW, loss mse, 5 active concepts per token, as many candidates as concepts. Rounds alternate
between the two; the median step of all rounds counts. Both start at the same parameters and print
the first loss, which shows that they do the same work. Peak memory is that of a process of its own
for each.
"""

import argparse
import functools
import json
import pathlib
import re
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import torch

from bsjax.core.mesh import make_mesh
from bsjax.sae.gradient import Objective
from bsjax.sae.train_step import init_state, train_step

# The folder above the tests, which is not on the path of a script that lies in them.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
from tests import overcomplete  # noqa: E402

N_ACTIVE, LEARNING_RATE, WEIGHT_DECAY = 5, 5e-4, 1e-4


def start(args):
    """Parameters, candidates and tokens that both train with."""
    keys = jax.random.split(jax.random.key(0), 3)
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    C = jax.random.normal(keys[0], (args.concepts, args.width))
    tokens = jax.random.normal(keys[1], (args.tokens, args.width))
    return init_state(keys[2], C, args.concepts, optimizer), optimizer, C, tokens


def ours(args):
    """A function that makes one step and returns its loss."""
    state, optimizer, C, tokens = start(args)

    step = functools.partial(
        train_step,
        objective=Objective(n_active=N_ACTIVE, is_compact=not args.masked),
        optimizer=optimizer,
        mesh=make_mesh(1, 1, jax.devices()[:1]),
    )
    step = jax.jit(step, donate_argnums=0)
    held = [state]
    del state

    def once():
        held[0], metrics = step(held[0], tokens[None], C)
        return float(jax.block_until_ready((held[0], metrics))[1].loss)

    return once


def theirs(args):
    try:
        sae = overcomplete.load()
    except ModuleNotFoundError as error:
        sys.exit(str(error))
    state, _, C, tokens = start(args)
    encoder = sae.MLPEncoder(args.width, args.concepts, norm_layer=torch.nn.LayerNorm)
    model = sae.BatchTopKSAE(
        args.width, args.concepts, top_k=N_ACTIVE * args.tokens, encoder_module=encoder
    )
    model.dictionary = sae.RelaxedArchetypalDictionary(
        args.width, args.concepts, torch.from_numpy(np.array(C)), delta=1.0
    )
    linear, norm = model.encoder.final_block[:2]
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.array(state.params["encoder"]["kernel"].T)))
        linear.bias.zero_(), norm.weight.fill_(1.0), norm.bias.zero_()
    tokens = torch.from_numpy(np.array(tokens))
    del state, C
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=WEIGHT_DECAY
    )

    def once():
        optimizer.zero_grad()
        _, _, x_hat = model(tokens)
        loss = torch.nn.functional.mse_loss(x_hat, tokens)
        loss.backward()
        optimizer.step()
        return loss.item()

    return once


def peak_of(name):
    """Peak memory in GB of a process that makes three steps of one kind."""
    command = [sys.executable, *sys.argv, f"--alone={name}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--concepts", type=int, default=4096)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--masked", action="store_true", help="ours as accelerators do it")
    parser.add_argument("--alone", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    kinds = {"ours": ours, "theirs": theirs}
    if args.alone:
        once = kinds[args.alone](args)
        for _ in range(3):
            once()
        # Not ru_maxrss: a child inherits that of the process that started it.
        status = pathlib.Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e6)
        return
    steps = {name: make(args) for name, make in kinds.items()}
    first = {name: once() for name, once in steps.items()}  # compiles
    seconds = {name: [] for name in steps}
    for _ in range(args.steps):
        for name, once in steps.items():
            started = time.perf_counter()
            once()
            seconds[name].append(time.perf_counter() - started)
    del steps
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, median in medians.items():
        low, high = min(seconds[name]), max(seconds[name])
        print(
            f"{name}: {median:.3f} s a step ({low:.3f} to {high:.3f}), first loss"
            f" {first[name]:.6f}, peak memory {peak_of(name):.2f} GB"
        )
    print(f"RATIO ours / overcomplete: {medians['theirs'] / medians['ours']:.2f}x")


if __name__ == "__main__":
    main()
