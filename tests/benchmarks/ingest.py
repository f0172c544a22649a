"""Ingest against a server on this machine of which a fifth goes wrong: losses, speed, memory.

    python tests/benchmarks/ingest.py [--images=1000] [--rows=1000000] [--img2dataset=PYTHON]

Serves images in a process of its own; fetches from it what a table lists and compares every
outcome with what the address stands for. Draws rows of a parquet table of --rows rows. With
--img2dataset, the Python of an environment that has it, img2dataset fetches the same good addresses
back to back. Exit status 3 where anything good was lost, a reason is wrong, or a number is missed.
"""

import argparse
import contextlib
import json
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from bsjax.core.errors import GATE_FAILED  # noqa: E402
from bsjax.ingest.candidates import draw  # noqa: E402
from bsjax.stages.ingest import Settings, ingest  # noqa: E402
from tests.ingest.server import KINDS, picture, serve  # noqa: E402

LEAST_PER_SECOND = 200
MOST_LISTING_SECONDS = 10
MOST_GROWTH = 1.3  # memory at the end, of that after a tenth
CALL = "import json, sys, img2dataset; img2dataset.download(**json.loads(sys.argv[1]))"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--img2dataset", default="")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = pathlib.Path(place)
        here, there = context.Pipe()
        server = context.Process(target=serve_until_told, args=(there, args.images), daemon=True)
        server.start()
        stack.callback(server.terminate)
        address = here.recv()
        failed = [fetch(address, folder, args.images), listing(folder, args.rows)]
        if args.img2dataset:
            compare(address, folder, args.images, args.img2dataset)
    if any(failed):
        sys.exit(GATE_FAILED)


def serve_until_told(pipe, n_images):
    for n in range(n_images * 5 // 4):
        picture(n)  # kept, so that drawing it is not timed
    with serve() as web:
        pipe.send(web.address)
        pipe.recv()


def fetch(address, folder, n_images):
    n = n_images * 5 // 4
    wrong = [kind for kind, outcome in KINDS.items() if outcome != "kept"]
    kinds = [wrong[i // 5 % len(wrong)] if i % 5 == 0 else "good" for i in range(n)]
    write_table(folder / "t.parquet", address, kinds)
    memory = Memory()
    began = time.perf_counter()
    settings = Settings(
        str(folder / "t.parquet"), images=n_images, allow_private=True, per_host=256, timeout=0.5,
        retries=1, max_megabytes=1.0,
    )  # fmt: skip
    with memory:
        manifest = ingest(folder / "w", settings)
    seconds = time.perf_counter() - began
    rows = pq.read_table(folder / "w" / "ingested" / "attrition.parquet").to_pylist()
    mistaken = [row for row in rows if row["outcome"] != KINDS[row["url"].split("/")[3]]]
    rate, counts = manifest["counts"]["kept"] / seconds, manifest["counts"]
    print(f"{counts['asked']} addresses, {counts['kept']} images: {seconds:.1f} s, {rate:.0f} a s")
    print("  ", {name: n for name, n in counts.items() if n})
    print(f"   outcomes other than the address stands for: {len(mistaken)}")
    print(
        f"   memory: {memory.early / 1e6:.0f} MB after a tenth, {memory.most / 1e6:.0f} MB at most"
    )
    return mistaken or rate < LEAST_PER_SECOND or memory.most > MOST_GROWTH * memory.early


def write_table(path, address, kinds):
    urls = [f"{address}/{kind}/{n}" for n, kind in enumerate(kinds)]
    pq.write_table(
        pa.table({"url": urls, "caption": [f"caption {n}" for n in range(len(kinds))]}), path
    )


def listing(folder, n_rows):
    rng = np.random.default_rng(0)
    path = folder / "large.parquet"
    names = rng.integers(10**12, size=n_rows)
    table = pa.table({
        "URL": [f"http://host{name % 9973}.test/{name}.jpg" for name in names.tolist()],
        "TEXT": [f"a caption of some words, number {name}" for name in names.tolist()],
        "similarity": rng.random(n_rows),
    })  # fmt: skip
    pq.write_table(table, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    drawn = draw(str(path), 40_000, 0)
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{len(drawn.candidates)} rows drawn of {n_rows}: {seconds:.1f} s, {grown:.0f} MB more")
    return seconds > MOST_LISTING_SECONDS


def compare(address, folder, n_images, python):
    write_table(folder / "good.parquet", address, ["good"] * n_images)
    settings = {
        "url_list": str(folder / "good.parquet"), "input_format": "parquet", "url_col": "url",
        "caption_col": "caption", "output_folder": str(folder / "theirs"),
        "output_format": "webdataset", "disable_all_reencoding": True, "processes_count": 2,
        "thread_count": 64, "number_sample_per_shard": 250,
    }  # fmt: skip
    began = time.perf_counter()
    subprocess.run([python, "-c", CALL, json.dumps(settings)], check=True, capture_output=True)
    theirs = time.perf_counter() - began
    began = time.perf_counter()
    told = Settings(
        str(folder / "good.parquet"), images=n_images, allow_private=True, per_host=128
    )  # fmt: skip
    ingest(folder / "ours", told)
    ours = time.perf_counter() - began
    print(
        f"{n_images} good addresses: {ours:.1f} s, img2dataset {theirs:.1f} s with the start of its"
        f" processes; {theirs / ours:.2f} times as fast (ours decodes and hashes each, too)"
    )


class Memory:
    """Memory of this process while a block runs."""

    def __enter__(self):
        self.most, self._seen, self._ended = 0, [], threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self.most = max(self._seen)
        self.early = self._seen[len(self._seen) // 10]

    def _watch(self):
        process = psutil.Process()
        while not self._ended.wait(0.05):
            self._seen.append(process.memory_info().rss)


if __name__ == "__main__":
    main()
