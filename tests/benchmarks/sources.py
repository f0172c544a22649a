"""How fast each source is read, beside the library that wrote it, and how fast a million is listed.

    python tests/benchmarks/sources.py --n=5000 --listed=1000000
    python tests/benchmarks/sources.py --n=1000 --decoded

Both read every image's first caption and its bytes, or with --decoded its RGB pixels, which the
library decodes in its own way; in order, one after the other in one process. The ratio is the
library's time over that of bsjax (1 or more: bsjax is no slower). Opening and listing count on both
sides. Listing a million rows with their captions, and pairing them with as many generated images by
name and by name with a sample's number, run in processes of their own, whose peak memory is told.
"""

import argparse
import io
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

REPEATS = 3


def items_of(n, size, is_decoded):
    """Names, bytes that stand for images, or JPEGs of photographs, captions."""
    rng = np.random.default_rng(0)
    for i in range(n):
        data = jpeg_of(photograph(rng, 500, 375)) if is_decoded else rng.bytes(size)
        yield f"{i:09d}", data, [f"a caption of image {i}"]


def photograph(rng, width, height):
    """Smooth colours with some grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 6, smooth.shape).astype(np.int16)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def jpeg_of(image):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90)
    return file.getvalue()


def n_values(image, is_decoded):
    """Bytes of an encoded image; with `is_decoded` pixels times channels, decoded if need be."""
    if not is_decoded:
        return len(image)
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    if isinstance(image, Image.Image):
        image = image.convert("RGB")
    return np.asarray(image).size


def by_bsjax(path, is_decoded):
    from bsjax.data.decode import decode_rgb
    from bsjax.data.recognise import list_images

    images, _ = list_images("auto", path)
    if not is_decoded:
        return sum(len(record.read()) + len(record.caption) for record in images.records)
    return sum(
        np.asarray(decode_rgb(record.read())).size + len(record.caption)
        for record in images.records
    )


def by_webdataset(path, is_decoded):
    import webdataset

    shards = sorted(map(str, pathlib.Path(path).glob("*.tar")))
    rows = webdataset.WebDataset(shards, shardshuffle=False)
    return sum(
        n_values(row["png"], is_decoded) + len(json.loads(row["json"])["caption"]) for row in rows
    )


def of_datasets(rows, is_decoded, caption="caption"):
    import datasets

    if not is_decoded:
        rows = rows.cast_column("image", datasets.Image(decode=False))
    total = 0
    for row in rows:
        image = row["image"]
        if isinstance(image, dict):
            image = image["bytes"] or pathlib.Path(image["path"]).read_bytes()
        total += n_values(image, is_decoded) + len(row[caption][0])
    return total


def by_saved_dataset(path, is_decoded):
    import datasets

    return of_datasets(datasets.load_from_disk(path), is_decoded)


def by_parquet(path, is_decoded):
    """As datasets streams it, without a conversion before."""
    import datasets

    return of_datasets(datasets.load_dataset(path, split="train", streaming=True), is_decoded)


def by_array_record(path, is_decoded):
    import msgpack
    from array_record.python import array_record_data_source

    files = sorted(map(str, pathlib.Path(path).glob("*.array_record*")))
    source = array_record_data_source.ArrayRecordDataSource(files)
    found = (msgpack.unpackb(source[i]) for i in range(len(source)))
    return sum(n_values(row["image"], is_decoded) + len(row["caption"][0]) for row in found)


def by_tfds(path, is_decoded):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    decoders = None if is_decoded else {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split="train", decoders=decoders)
    rows = (source[i] for i in range(len(source)))
    return sum(n_values(row["image"], is_decoded) + len(row["caption"]) for row in rows)


def by_image_folder(path, is_decoded):
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=path, split="train", streaming=True)
    return of_datasets(rows, is_decoded, "text")


def by_json(path, is_decoded):
    """As pycocotools does: the file whole, then a file an image."""
    content = json.loads(pathlib.Path(path).read_text())
    captions = {}
    for each in content["annotations"]:
        captions.setdefault(each["image_id"], []).append(each["caption"])
    root = pathlib.Path(path).parents[1] / "val2017"
    return sum(
        n_values((root / image["file_name"]).read_bytes(), is_decoded)
        + len(captions[image["id"]][0])
        for image in content["images"]
    )


def sources(folder, items):
    """(name, path, the library's own way)."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from tests.data import written

    made = {
        "img2dataset tars": (lambda f, i: written.img2dataset_tars(f, i, 1000), by_webdataset),
        "datasets saved": (written.hf_saved, by_saved_dataset),
        "datasets parquet": (written.hf_parquet, by_parquet),
        "image folder": (written.hf_image_folder, by_image_folder),
        "coco": (written.coco, by_json),
        "arrayrecord": (written.array_records, by_array_record),
        "tfds": (written.tfds_prepared, by_tfds),
    }
    for name, (write, read) in made.items():
        place = folder / name.replace(" ", "_")
        place.mkdir()
        yield name, write(place, items), read


def compare(n, size, is_decoded):
    items = list(items_of(n, size, is_decoded))
    with tempfile.TemporaryDirectory() as folder:
        for name, path, read in sources(pathlib.Path(folder), items):
            own, theirs = [], []
            for _ in range(REPEATS):  # in turns: the machine may slow down
                totals = set()
                for way, seconds in ((by_bsjax, own), (read, theirs)):
                    start = time.perf_counter()
                    totals.add(way(path, is_decoded))
                    seconds.append(time.perf_counter() - start)
                assert len(totals) == 1, f"{name}: {totals}"
            sys.stdout.write(
                f"{name:18} bsjax {n / min(own):9.0f} images/s, library {n / min(theirs):9.0f}"
                f" images/s, ratio {min(theirs) / min(own):.2f}\n"
            )
            sys.stdout.flush()


LISTING = """
import resource, sys, time
from bsjax.data.pairing import Named, pair_images
from bsjax.data.recognise import list_images

def named(path, ending=""):
    images, _ = list_images("auto", path)
    return Named([record.key + ending for record in images.records],
                 [record.caption for record in images.records])

start, ending = time.perf_counter(), sys.argv[2:]
found = named(sys.argv[1])
told = f"{len(found.keys)} rows listed"
if ending:
    pairs = pair_images(found, named(sys.argv[1], *ending))
    told = f"twice {told} and {len(pairs.rows_real)} pairs found by {pairs.by}"
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(f"{told} in {seconds:.1f} s, peak memory {peak:.2f} GB")
"""


def list_many(n):
    """Parquet files with images, and tables of names: parquet, JSONL and CSV."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "shards").mkdir()
        for shard in range(10):
            part = pa.table({"image": [b"x"] * (n // 10), "caption": ["a caption"] * (n // 10)})
            pq.write_table(part, root / "shards" / f"{shard}.parquet", row_group_size=10_000)
        names = [f"{i // 1000:04d}/{i:07d}.jpg" for i in range(n)]
        for start in range(0, n, 1000):
            (root / f"{start // 1000:04d}").mkdir()
        for name in names:
            (root / name).touch()
        captions = [f"a caption of some length, of image {i}" for i in range(n)]
        pq.write_table(pa.table({"file_name": names, "text": captions}), root / "all.parquet")
        rows = zip(names, captions, strict=True)
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
        (root / "all.jsonl").write_text("\n".join(lines))
        lines = [f'{name},"{text}"' for name, text in zip(names, captions, strict=True)]
        (root / "all.csv").write_text("\n".join(["file_name,text", *lines]))
        asked = [(name,) for name in ("shards", "all.parquet", "all.jsonl", "all.csv")]
        for name, *ending in [*asked, ("all.parquet", ""), ("all.parquet", "_0")]:
            done = subprocess.run([sys.executable, "-c", LISTING, str(root / name), *ending],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            sys.stdout.write(f"{name:18} {done.stdout}")
            sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000, help="images of each source; 0: none")
    parser.add_argument("--size", type=int, default=20_000, help="bytes of an image")
    parser.add_argument("--decoded", action="store_true", help="pixels in place of bytes")
    parser.add_argument("--listed", type=int, default=0, help="rows to list and pair; 0: none")
    given = parser.parse_args()
    if given.n:
        compare(given.n, given.size, given.decoded)
    if given.listed:
        list_many(given.listed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sys.stdout.write(f"peak memory {peak:.2f} GB\n")


if __name__ == "__main__":
    main()
