"""Decoding and resizing on one core, against torchvision and torch's DataLoader on the same files.

    python tests/benchmarks/loader.py [--images=600] [--width=640] [--height=480] [--rounds=3]
        [--feeds=v5e:1500,h100:4173]

Writes JPEGs like photographs of that size, and reads all of them in turns: bsjax's batches as
`measure` takes them, and an ImageFolder's pixels through Resize, CenterCrop and PILToTensor of
torchvision in a DataLoader; both with one core, in the process itself. Prints images a second of
each, their ratio, the largest difference of a pixel, and how many such cores feed an accelerator
that takes --feeds images a second. Needs torchvision beside torch. Exit status 3 below 1.0.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import torch
import torchvision
from PIL import Image
from sources import photograph
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bsjax.core.errors import GATE_FAILED
from bsjax.data.captions import list_folder
from bsjax.data.images import iterate_batches

RESIZE, CROP, BATCH = 256, 224, 32  # as DINOv2 has them
LEAST = 1.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--feeds", default="v5e:1500,h100:4173")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        for n in range(args.images):
            photograph(np.random.default_rng(n), args.width, args.height).save(
                folder / f"{n:05d}.jpg", quality=90
            )
        records = list_folder(place).records
        seconds = {"ours": [], "theirs": []}
        for _ in range(args.rounds):
            for name, read in (("ours", ours), ("theirs", theirs)):
                began = time.perf_counter()
                pixels = read(records)
                seconds[name].append(time.perf_counter() - began)
                assert len(pixels) == args.images
        furthest = np.abs(ours(records[:64]).astype(int) - theirs(records[:64]).astype(int)).max()
    rates = {name: args.images / min(each) for name, each in seconds.items()}
    ratio = rates["ours"] / rates["theirs"]
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{args.images} JPEGs of {args.width} x {args.height}, one core, {versions}")
    print(
        f"bsjax {rates['ours']:.0f} images/s, DataLoader {rates['theirs']:.0f}: {ratio:.2f} times"
    )
    print(f"pixels differ by {furthest} of 255 at most")
    for feed in args.feeds.split(","):
        name, rate = feed.split(":")
        print(f"{name}, {rate} images/s: {float(rate) / rates['ours']:.1f} such cores feed it")
    if ratio < LEAST:
        sys.exit(GATE_FAILED)


def ours(records):
    batches = iterate_batches(records, resize=RESIZE, crop=CROP, batch_size=BATCH)
    return np.concatenate([batch.images[batch.mask] for batch in batches])


class Files(Dataset):
    """As torchvision's ImageFolder reads."""

    def __init__(self, records):
        self.paths = [record.path for record in records]
        self.transform = transforms.Compose([
            transforms.Resize(RESIZE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(CROP),
            transforms.PILToTensor(),
        ])  # fmt: skip

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, place):
        with Image.open(self.paths[place]) as image:
            return self.transform(image.convert("RGB"))


def theirs(records):
    loader = DataLoader(Files(records), batch_size=BATCH)
    return np.concatenate([batch.permute(0, 2, 3, 1).numpy() for batch in loader])


if __name__ == "__main__":
    main()
