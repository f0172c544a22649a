"""Images per second of bsjax's measure loop against the reference's way, back to back.

    python tests/benchmarks/measure.py [--images=20] [--concepts=32000] [--batch=-1] [--skip-dense]

Both read the same 512-pixel JPEG files. Ours: the loop of `bsjax measure` from files to finished
shards, co-occurrence included, after a first image that compiles. Theirs: PIL, DINOv2-base with
registers in torch (transformers), a torch SAE, energies and fires, and Z^T Z of 10 images a time:
dense as in the reference code, or sparse as here. Random weights; time depends on them only through
the number of active codes, which both share.
"""

import argparse
import pathlib
import resource
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import torch
import transformers
from PIL import Image

from bsjax import presets
from bsjax.core.logs import PhaseTimer
from bsjax.data.captions import list_folder
from bsjax.data.images import decode_rgb, resize_crop
from bsjax.encoders import load_encoder
from bsjax.experiment import inputs
from bsjax.results.shards import ShardStore
from bsjax.sae.encoder import init_encoder, pre_codes, threshold_codes
from bsjax.stages.measure import build_engine, measure_arm
from bsjax.stats.cooccurrence import cooccurrence

THRESHOLD = 3.6  # random codes then have about 5 active per token, as the published SAE
REFERENCE_BATCH = 10
VARIANT = "vitb14_reg"


def write_images(folder, n_images):
    """Smooth random JPEG files of 512 x 512."""
    rng = np.random.default_rng(0)
    for i in range(n_images):
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8))
        coarse.resize((512, 512), Image.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)


def ours(folder, n_images, loaded, sae, batch, workdir):
    """Seconds per image of the whole loop and of its phases as the host sees them."""
    config = presets.experiment()
    config.encoder.batch_per_device = batch
    engine = build_engine(config, loaded, loaded.params, sae, THRESHOLD)

    def run(name, limit):
        arm = inputs.Arm(name, "real", list_folder(str(folder), limit), "")
        store = ShardStore(workdir / name, engine.n_concepts, engine.grid)
        timer = PhaseTimer()
        started = time.perf_counter()
        bad = measure_arm(config, arm, engine, store, timer)
        seconds = time.perf_counter() - started
        counts = store.finish(arm.images.records, bad)
        return seconds, timer.seconds, counts

    run("warm", 1)
    seconds, phases, counts = run("timed", n_images)
    phases = {name: spent / n_images for name, spent in phases.items()}
    return seconds / n_images, phases, counts, engine.batch_size


def device_phases(files, loaded, sae, batch):
    """Seconds per image of decoding, of the encoder and of the SAE, each alone."""

    def median(function):
        function()
        times = []
        for _ in range(5):
            started = time.perf_counter()
            jax.block_until_ready(function())
            times.append(time.perf_counter() - started)
        return float(np.median(times))

    decode = median(lambda: [resize_crop(decode_rgb(f.read_bytes()), 256, 224) for f in files])
    images = np.stack([resize_crop(decode_rgb(f.read_bytes()), 256, 224) for f in files[:batch]])
    encode = jax.jit(loaded.apply)
    tokens = encode(loaded.params, images)
    flat = tokens.reshape(-1, tokens.shape[-1])
    code = jax.jit(lambda s, x: jnp.max(threshold_codes(pre_codes(s, x), THRESHOLD)))
    dino = median(lambda: encode(loaded.params, images))
    return decode / len(files), dino / batch, median(lambda: code(sae, flat)) / batch


@torch.no_grad()
def theirs(files, sae, n_concepts, dense):
    """Seconds per image by phase."""
    settings = transformers.Dinov2WithRegistersConfig(image_size=518)
    model = transformers.Dinov2WithRegistersModel(settings).eval()
    kernel, bias = (torch.from_numpy(np.array(sae[name])) for name in ("kernel", "bias"))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    model(torch.zeros(1, 3, 224, 224))
    timer = PhaseTimer()
    for i in range(0, len(files), REFERENCE_BATCH):
        at = time.perf_counter()
        images = [_preprocess(file) for file in files[i : i + REFERENCE_BATCH]]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
        at = timer.add("decode", at)
        tokens = model((pixels - mean) / std).last_hidden_state.reshape(-1, 768)
        at = timer.add("DINOv2", at)
        pre = torch.nn.functional.layer_norm(tokens @ kernel + bias, (n_concepts,))
        codes = torch.relu(pre)
        codes = codes * (codes >= THRESHOLD)
        at = timer.add("SAE encode", at)
        codes.reshape(len(images), -1, n_concepts).sum(1), (codes > 0).sum(0)
        at = timer.add("statistics", at)
        cooccurrence(sp.csr_array(codes.numpy()))
        timer.add("sparse Z^T Z", at)
    if dense:  # timed on one batch of 10 and scaled: it costs the same for every batch
        at = time.perf_counter()
        codes.T @ codes
        timer.add("dense Z^T Z", at)
        timer.seconds["dense Z^T Z"] *= len(files) / len(images)
    return {phase: seconds / len(files) for phase, seconds in timer.seconds.items()}


def _preprocess(file):
    image = Image.open(file).convert("RGB").resize((256, 256), Image.BICUBIC)
    return np.asarray(image.crop((16, 16, 240, 240)))


def table(phases):
    return ", ".join(f"{phase} {seconds:.4f}" for phase, seconds in phases.items())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--concepts", type=int, default=32_000)
    parser.add_argument("--batch", type=int, default=-1, help="ours; -1: as the stage chooses")
    parser.add_argument("--skip-dense", action="store_true")
    args = parser.parse_args()
    if args.images % REFERENCE_BATCH:
        parser.error(f"--images={args.images}: expected a multiple of {REFERENCE_BATCH}")
    loaded = load_encoder("random:0", variant=VARIANT)
    sae = jax.tree.map(np.asarray, init_encoder(jax.random.key(0), 768, args.concepts))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "images").mkdir()
        write_images(folder / "images", args.images)
        files = sorted((folder / "images").iterdir())
        mine, phases, counts, batch = ours(
            folder, args.images, loaded, sae, args.batch, folder / "work"
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        decode, dino, code = device_phases(files, loaded, sae, min(batch, len(files)))
        torch_phases = theirs(files, sae, args.concepts, not args.skip_dense)
    print(f"ours, batch {batch}: {1 / mine:.2f} images/s, peak memory {peak:.2f} GB,")
    print(f"  {counts['active_per_token']:.1f} active codes per token")
    print(f"  seconds per image, of the loop: {table(phases)}")
    print(f"  seconds per image, alone: decode {decode:.4f} (in threads beside the device),")
    print(
        f"  DINOv2 {dino:.4f}, SAE encode {code:.4f}; statistics {max(mine - dino - code, 0):.4f}"
    )
    dense = torch_phases.pop("dense Z^T Z", None)
    with_sparse = sum(torch_phases.values())
    print(f"torch with sparse Z^T Z: {1 / with_sparse:.2f} images/s ({table(torch_phases)})")
    print(f"RATIO ours / torch with sparse Z^T Z: {with_sparse / mine:.2f}x")
    if dense is not None:
        with_dense = with_sparse - torch_phases["sparse Z^T Z"] + dense
        print(f"torch with dense Z^T Z: {1 / with_dense:.3f} images/s (dense Z^T Z {dense:.3f})")
        print(f"RATIO ours / the reference's way: {with_dense / mine:.2f}x")


if __name__ == "__main__":
    main()
