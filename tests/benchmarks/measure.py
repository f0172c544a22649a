"""Images a second of bsjax's measure step against the reference's way, back to back on one machine.

    python tests/benchmarks/measure.py [--images=16] [--concepts=32000] [--skip-dense]

Ours: the jitted step of `bsjax measure` with sparse co-occurrence on the host. Theirs: DINOv2-base
with registers in torch (transformers), torch SAE, Z^T Z dense (as the reference code) and sparse.
Random weights; time does not depend on them beyond the number of active codes, which both share.
"""

import argparse
import functools
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import torch
import transformers

from bsjax.convert.dinov2 import load_dinov2
from bsjax.models.dinov2 import VARIANTS, normalise_images, token_grid
from bsjax.sae.encoder import init_encoder, pre_codes, threshold_codes
from bsjax.stages.measure import measure_step
from bsjax.stats import sparse_codes, streaming
from bsjax.stats.cooccurrence import cooccurrence

BATCH, THRESHOLD = 8, 3.6  # a threshold at which random codes have about 5 active a token


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def ours(images, loaded, sae, n_concepts):
    grid = token_grid(VARIANTS["vitb14_reg"], 224, 224)
    step = jax.jit(
        functools.partial(
            measure_step, model=loaded.model, grid=grid, n_kept=64, precision="highest"
        )
    )
    mask, top = np.ones(BATCH, bool), streaming.init_top_images(n_concepts, 12)
    seconds, codes, fires = 0.0, [], 0
    for i in range(-BATCH, len(images), BATCH):  # the first round compiles and is not counted
        batch = images[max(i, 0) : max(i, 0) + BATCH]
        start = time.perf_counter()
        rows = np.arange(BATCH, dtype=np.int32) + i
        new, statistics, compact, _ = jax.device_get(
            step(loaded.params, sae, np.float32(THRESHOLD), top, batch, mask, rows)
        )
        part = sparse_codes.to_csr(compact, mask, n_concepts)
        if i >= 0:
            codes.append(part)
            fires += int(statistics.fires.sum())
            seconds += time.perf_counter() - start
            top = new
    _, pairs = timed(cooccurrence, sp.csr_array(sp.vstack(codes, format="csr")))
    return (seconds + pairs) / len(images), pairs / len(images), fires


def phases(images, loaded, sae):
    """Seconds an image of the encoder and of the SAE alone."""
    encode = jax.jit(lambda p, x: loaded.model.apply({"params": p}, normalise_images(x)))
    tokens = encode(loaded.params, images[:BATCH]).block_until_ready()
    _, dino = timed(lambda: encode(loaded.params, images[:BATCH]).block_until_ready())
    flat = tokens.reshape(-1, tokens.shape[-1])
    code = jax.jit(lambda s, x: threshold_codes(pre_codes(s, x), THRESHOLD))
    code(sae, flat).block_until_ready()
    _, sae_time = timed(lambda: code(sae, flat).block_until_ready())
    return dino / BATCH, sae_time / BATCH


@torch.no_grad()
def theirs(images, sae, n_concepts):
    """Seconds an image of everything but Z^T Z, of the sparse one, and the codes of 10 images."""
    settings = transformers.Dinov2WithRegistersConfig(image_size=518)
    model = transformers.Dinov2WithRegistersModel(settings).eval()
    kernel, bias = (torch.from_numpy(np.array(sae[name])) for name in ("kernel", "bias"))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    model(torch.zeros(1, 3, 224, 224))
    seconds = sparse = 0.0
    last = None
    for i in range(0, len(images), BATCH):
        start = time.perf_counter()
        pixels = torch.from_numpy(images[i : i + BATCH]).permute(0, 3, 1, 2) / 255
        tokens = model((pixels - mean) / std).last_hidden_state.reshape(-1, 768)
        pre = torch.nn.functional.layer_norm(tokens @ kernel + bias, (n_concepts,))
        codes = torch.relu(pre)
        codes = codes * (codes >= THRESHOLD)
        codes.reshape(BATCH, -1, n_concepts).sum(1).mean(0), (codes > 0).sum(0)
        seconds += time.perf_counter() - start
        last, spent = timed(lambda codes=codes: sp.csr_array(codes.numpy()))
        _, product = timed(cooccurrence, last)
        sparse += spent + product
    return seconds / len(images), sparse / len(images), codes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--concepts", type=int, default=32_000)
    parser.add_argument("--skip-dense", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.images, 224, 224, 3)).astype(np.uint8)
    loaded = load_dinov2("vitb14_reg", "random:0")
    sae = jax.tree.map(np.asarray, init_encoder(jax.random.key(0), 768, args.concepts))
    mine, pairs, fires = ours(images, loaded, jax.tree.map(jnp.asarray, sae), args.concepts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    dino, sae_time = phases(images, loaded, sae)
    print(f"ours: {1 / mine:.2f} images/s, peak memory {peak:.2f} GB")
    print(f"  active codes a token {fires / (len(images) * 261):.1f}")
    print(f"  seconds an image: DINOv2 {dino:.3f}, SAE encode {sae_time:.3f}, pairs {pairs:.4f},")
    print(f"  the rest (statistics, top images, transfer) {mine - dino - sae_time - pairs:.3f}")
    torch_time, sparse, codes = theirs(images, sae, args.concepts)
    print(f"torch with sparse Z^T Z: {1 / (torch_time + sparse):.2f} images/s")
    print(f"RATIO ours / torch with sparse Z^T Z: {(torch_time + sparse) / mine:.2f}x")
    if not args.skip_dense:
        # The reference multiplies batches of 10 images; 8 here, scaled by the number of images.
        _, dense = timed(lambda: codes.T @ codes)
        dense /= BATCH
        print(f"torch with dense Z^T Z: {1 / (torch_time + dense):.3f} images/s")
        print(f"RATIO ours / the reference's way: {(torch_time + dense) / mine:.2f}x")


if __name__ == "__main__":
    main()
