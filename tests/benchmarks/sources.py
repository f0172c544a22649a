"""How fast each source is read, beside the library that wrote it, and how fast a million is listed.

    python tests/benchmarks/sources.py --n=5000 --listed=1000000

Both read every image's bytes and first caption, in order, one after the other in one process; the
ratio is the library's time over that of bsjax (1 or more: bsjax is no slower). Opening and listing
count on both sides. Listing a million rows runs in a process of its own, whose peak memory is told.
"""

import argparse
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

REPEATS = 3


def items_of(n, size):
    """Names, bytes that stand for images, captions."""
    rng = np.random.default_rng(0)
    for i in range(n):
        yield f"{i:09d}", rng.bytes(size), [f"a caption of image {i}"]


def by_bsjax(path):
    from bsjax.data.recognise import list_images

    images, _ = list_images("auto", path)
    return sum(len(record.read()) + len(record.caption) for record in images.records)


def by_webdataset(path):
    import webdataset

    shards = sorted(map(str, pathlib.Path(path).glob("*.tar")))
    rows = webdataset.WebDataset(shards, shardshuffle=False)
    return sum(len(row["png"]) + len(json.loads(row["json"])["caption"]) for row in rows)


def by_saved_dataset(path):
    import datasets

    rows = datasets.load_from_disk(path).cast_column("image", datasets.Image(decode=False))
    return sum(len(row["image"]["bytes"]) + len(row["caption"][0]) for row in rows)


def by_parquet(path):
    """As datasets streams it, without a conversion before."""
    import datasets

    rows = datasets.load_dataset(path, split="train", streaming=True)
    rows = rows.cast_column("image", datasets.Image(decode=False))
    return sum(len(row["image"]["bytes"]) + len(row["caption"][0]) for row in rows)


def by_array_record(path):
    import msgpack
    from array_record.python import array_record_data_source

    files = sorted(map(str, pathlib.Path(path).glob("*.array_record*")))
    source = array_record_data_source.ArrayRecordDataSource(files)
    found = (msgpack.unpackb(source[i]) for i in range(len(source)))
    return sum(len(row["image"]) + len(row["caption"][0]) for row in found)


def by_tfds(path):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split="train", decoders=decoders)
    rows = (source[i] for i in range(len(source)))
    return sum(len(row["image"]) + len(row["caption"]) for row in rows)


def by_image_folder(path):
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=path, split="train", streaming=True)
    rows = rows.cast_column("image", datasets.Image(decode=False))
    total = 0
    for row in rows:
        data = row["image"]["bytes"] or pathlib.Path(row["image"]["path"]).read_bytes()
        total += len(data) + len(row["text"][0])
    return total


def by_json(path):
    """As pycocotools does: the file whole, then a file an image."""
    content = json.loads(pathlib.Path(path).read_text())
    captions = {}
    for each in content["annotations"]:
        captions.setdefault(each["image_id"], []).append(each["caption"])
    root = pathlib.Path(path).parents[1] / "val2017"
    return sum(
        len((root / image["file_name"]).read_bytes()) + len(captions[image["id"]][0])
        for image in content["images"]
    )


def sources(folder, n, size):
    """(name, path, the library's own way)."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from tests.data import written

    items = list(items_of(n, size))
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


def best(read, path):
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        total = read(path)
        found.append(time.perf_counter() - start)
    return min(found), total


def compare(n, size):
    with tempfile.TemporaryDirectory() as folder:
        for name, path, read in sources(pathlib.Path(folder), n, size):
            (own, total), (theirs, expected) = best(by_bsjax, path), best(read, path)
            assert total == expected, name
            sys.stdout.write(
                f"{name:18} bsjax {n / own:9.0f} images/s, library {n / theirs:9.0f} images/s,"
                f" ratio {theirs / own:.2f}\n"
            )
            sys.stdout.flush()


LISTING = """
import resource, sys, time
from bsjax.data.recognise import list_images
start = time.perf_counter()
images, _ = list_images("auto", sys.argv[1])
keys = [record.key for record in images.records]
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(f"{len(keys)} rows listed in {seconds:.1f} s, peak memory {peak:.2f} GB")
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
        for name in ("shards", "all.parquet", "all.jsonl", "all.csv"):
            done = subprocess.run([sys.executable, "-c", LISTING, str(root / name)],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            sys.stdout.write(f"{name:18} {done.stdout}")
            sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000, help="images of each source; 0: none")
    parser.add_argument("--size", type=int, default=20_000, help="bytes of an image")
    parser.add_argument("--listed", type=int, default=0, help="rows to list; 0: none")
    given = parser.parse_args()
    if given.n:
        compare(given.n, given.size)
    if given.listed:
        list_many(given.listed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sys.stdout.write(f"peak memory {peak:.2f} GB\n")


if __name__ == "__main__":
    main()
