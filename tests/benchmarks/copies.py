"""Are copies told from other drawings of the same caption? On scenes, whose truth is known.

    python tests/benchmarks/copies.py [--images=1000] [--sizes]

Real scenes; each drawn again from the same caption by another seed; and copies of it: as JPEG,
shifted by a pixel to the right, or to the right and down, or mirrored. Of each kind two sets are
measured and compared, every other image a copy, the rest drawn again, so that each scene is once
the one and once the other. Prints AUROC of the scores of datapoints.parquet, and what they cost;
with --sizes also for other sizes of the sketch.
"""

import argparse
import io
import time

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

import bsjax
from bsjax.core.logs import quiet_libraries
from bsjax.data import scenes
from bsjax.presets import SCENES
from bsjax.stats import copies

SEED, OTHER_SEED = 1, 77  # of the real scenes, and of those drawn again
QUALITY = 88
SIZES = (32, 64, 96, 128)
TOLD = ("shifted", "mirrored")  # of other sizes
SCORES = {  # larger: more like a copy
    "mean difference (paper)": lambda t: -np.abs(t["mean_difference"]),
    "absolute difference": lambda t: -t["absolute_difference"],
    "code cosine": lambda t: t["cosine"],
    "patch similarity": lambda t: t["patch_similarity"],
    "z": lambda t: t["z"],
}


def as_jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(buffer).convert("RGB"))


def shifted(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Further down and to the right; the edge is repeated."""
    padded = np.pad(image, ((rows, 0), (columns, 0), (0, 0)), mode="edge")
    return padded[: image.shape[0], : image.shape[1]]


KINDS = {
    "JPEG": as_jpeg,
    "shifted": lambda image: as_jpeg(shifted(image, 0, 1)),
    "mirrored": lambda image: as_jpeg(image[:, ::-1]),
    "both ways": lambda image: as_jpeg(shifted(image, 1, 1)),
}


def draw(n: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Captions, real scenes and those drawn again."""
    real = [scenes.scene(SEED, row) for row in range(n)]
    again = (
        scenes.render(s.factors, scenes.generator(OTHER_SEED, i))[0] for i, s in enumerate(real)
    )
    return [s.caption for s in real], np.stack([s.image for s in real]), np.stack(list(again))


def columns(result) -> dict[str, np.ndarray]:
    """The table of pairs in the order of the real images."""
    table = result.pairs.sort_by("row_real")
    names = ("mean_difference", "absolute_difference", "cosine", "patch_similarity", "z")
    return {name: table[name].to_numpy() for name in names}


def judge(captions, real, again, kinds=tuple(KINDS)) -> dict[str, dict[str, float]]:
    """AUROC of each score for each kind of copy."""
    tools = bsjax.load_encoder(str(SCENES / "encoder")), bsjax.load_sae(str(SCENES / "sae"))
    n = len(real)

    def measure(images):
        return bsjax.measure(list(images), *tools, captions=captions, batch_per_device=20)

    measured, found = measure(real), {}
    for kind in kinds:
        copied = np.stack([KINDS[kind](image) for image in real])
        labels, tables = [], []
        for turn in range(2):
            is_copy = np.arange(n) % 2 == turn
            mixed = measure(np.where(is_copy[:, None, None, None], copied, again))
            tables.append(columns(bsjax.compare(measured, mixed)))
            labels.append(is_copy)
        both = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        found[kind] = {
            name: float(roc_auc_score(np.concatenate(labels), score(both)))
            for name, score in SCORES.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--sizes", action="store_true")
    arguments = parser.parse_args()
    quiet_libraries()
    started = time.perf_counter()
    drawn = draw(arguments.images)
    found = judge(*drawn)
    print(f"AUROC against scenes drawn again, {arguments.images} images")
    print(f"    {'score':<24}" + "".join(f"{kind:>11}" for kind in KINDS))
    for name in SCORES:
        print(f"    {name:<24}" + "".join(f"{found[kind][name]:>11.4f}" for kind in KINDS))
    print(f"    {time.perf_counter() - started:.0f} s")
    if arguments.sizes:
        for copies.N_DIMS in SIZES:
            copies.projection.cache_clear()
            found = judge(*drawn, TOLD)
            told = ", ".join(f"{kind} {found[kind]['z']:.4f}" for kind in TOLD)
            print(f"    {copies.N_DIMS} dimensions: z {told}")


if __name__ == "__main__":
    main()
