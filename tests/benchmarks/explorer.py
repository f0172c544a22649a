"""The report at full size: how long it takes to write, how big it is, how fast the page answers.

    python tests/benchmarks/explorer.py [--concepts=32000] [--sets=8] [--images=2000]
        [--workdir=DIR]

Makes measures of simulated codes (`simulator.py`; images that are not there, maps of where concepts
fire), runs `compare` and `report` on them, and opens the page in headless Chromium from disk. Of
every action it prints the seconds until the page is idle again and the longest task of the main
thread meanwhile, which is how long a frame can take. Pictures (thumbnails, and the maps of where
concepts fire that lie over them) are counted apart from the other data. --workdir keeps the
measures, and uses those that are there. Exit status 3 where a number misses what is asked of it.
"""

import argparse
import pathlib
import resource
import shutil
import sys
import tempfile
import time

import numpy as np
import scipy.sparse as sp
from etils import epath
from playwright import sync_api
from simulator import draw_world

from bsjax import presets
from bsjax.core.artifacts import read_manifest, write_manifest
from bsjax.core.errors import GATE_FAILED
from bsjax.data.captions import ImageRecord
from bsjax.results.measures import (
    COOCCURRENCE,
    IMAGE_CODES,
    write_concepts,
    write_images,
    write_top_images,
)
from bsjax.stages.compare import compare
from bsjax.stages.report import report
from bsjax.stats import streaming

GRID, N_SPECIAL, N_TOP = 16, 5, 12
FIRES_IN = 6  # patches of an image, of a concept that it shows
PAINTED, FRAME, MEGABYTES = 2.0, 0.05, 40.0  # asked: seconds to the first paint, of a task; of data
PICTURES = ("thumbnails", "maps")  # of images, and of where concepts fire, laid over them
WORDS = np.array(
    ["red", "small", "wooden", "bird", "house", "water", "people", "dogs", "street", "hat"]
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Long tasks since the last question, and when the last one ended.
WATCH = """window.longest = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({type: "longtask", buffered: true});"""
IDLE = """() => new Promise((done) => {
  const settle = () => requestIdleCallback(() => setTimeout(done, 120), {timeout: 10000});
  requestAnimationFrame(() => requestAnimationFrame(settle));
})"""


def write_measures(workdir: epath.Path, n: int, n_concepts: int, n_sets: int) -> None:
    """Measures of n real images and of n_sets times as many generated ones."""
    captions = np.random.default_rng(0).choice(WORDS, (n, 8))
    for i in range(n_sets):
        world = draw_world(i, n, n_concepts)
        # One real arm, the first world's, serves all.
        arms = {f"model{i}": world.generated} | ({"real": world.real} if i == 0 else {})
        for name, codes in arms.items():
            if read_manifest(workdir / "measures" / name) is None:
                write_arm(workdir, name, codes, captions if name == "real" else None)


def write_arm(
    workdir: epath.Path, name: str, codes: sp.csr_array, captions: np.ndarray | None
) -> None:
    """measures/<name>/ of image codes."""
    folder, (n, n_concepts) = workdir / "measures" / name, codes.shape
    folder.mkdir(parents=True, exist_ok=True)
    texts = [""] * n if captions is None else [" ".join(row) for row in captions]
    records = [ImageRecord(f"{i:06d}", f"gone/{i}.png", text, {}) for i, text in enumerate(texts)]
    write_images(folder, records)
    sp.save_npz(folder / IMAGE_CODES, codes)
    few = codes[:200]
    sp.save_npz(folder / COOCCURRENCE, sp.csr_array(few.T @ few))
    by_concept = codes.tocsc()
    n_firing = np.diff(by_concept.indptr)
    energy = np.asarray(codes.sum(axis=0)).ravel() / n
    columns = {
        "energy": energy.astype(np.float64), "energy_sd": energy.astype(np.float64),
        "fires": n_firing * FIRES_IN, "prevalence": n_firing / n,
    }  # fmt: skip
    write_concepts(folder, columns)
    rows = streaming.top_by_energy(codes, N_TOP)
    maps = np.zeros((n_concepts, N_TOP, GRID * GRID), np.float16)
    rng = np.random.default_rng(0)
    places = rng.integers(0, GRID * GRID, (n_concepts, N_TOP, FIRES_IN))
    drawn = rng.random(places.shape, np.float32) + 0.1
    np.put_along_axis(maps, places, (drawn * (rows >= 0)[..., None]).astype(np.float16), axis=2)
    maps = maps.reshape(n_concepts, N_TOP, GRID, GRID)
    special = np.zeros((n_concepts, N_TOP, N_SPECIAL), np.float16)
    write_top_images(folder, rows.astype(np.int32), np.zeros(rows.shape, np.float32), maps, special)
    settings = {"set": name, "encoder.resize": 256, "encoder.crop": 224}
    counts = {"images": n, "special_tokens": []}
    write_manifest(
        folder, stage="measure", config=settings, parents={}, counts=counts, notes=[], bad_images=[]
    )


def megabytes(folder: pathlib.Path) -> dict[str, float]:
    """Of the page's data, by kind."""
    found: dict[str, float] = {}
    for path in (folder / "data").rglob("*"):
        if path.is_file():
            kind = path.relative_to(folder / "data").parts[0].partition(".")[0]
            found[kind] = found.get(kind, 0.0) + path.stat().st_size / 1e6
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def look(page_path: pathlib.Path) -> list[tuple[str, float, float]]:
    """(what was done, seconds until idle, longest task in seconds), in order."""
    found = []
    with sync_api.sync_playwright() as running:
        flags = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        page.add_init_script(WATCH)

        def time_of(what, action):
            page.evaluate("window.longest = 0")
            started = time.perf_counter()
            action()
            page.evaluate(IDLE)
            took = time.perf_counter() - started - 0.12
            found.append((what, took, page.evaluate("window.longest") / 1e3))

        def view(name, selector):
            page.click(f"#tab-{name}")
            page.wait_for_selector(selector)

        started = time.perf_counter()
        page.goto(page_path.as_uri())
        page.wait_for_selector("body[data-ready]")
        ready = time.perf_counter() - started
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found.append(("first paint", page.evaluate(paint) / 1e3, float("nan")))
        found.append(("findings are there", ready, page.evaluate("window.longest") / 1e3))
        time_of("concepts: open", lambda: view("table", "#rows tbody tr"))
        scroll = "document.querySelector('#rows .scroll, #rows')?.scrollBy(0, 4000)"
        time_of("concepts: scroll", lambda: page.evaluate(scroll))
        time_of(
            "concepts: all of them",
            lambda: page.get_by_role("button", name="all", exact=True).click(),
        )
        heading = "#rows thead th button, #rows thead th"
        time_of("concepts: sort", lambda: page.locator(heading).nth(4).click())
        time_of("concepts: search", lambda: page.fill("#search", "bird"))
        time_of("concepts: search no more", lambda: page.fill("#search", ""))
        time_of("concepts: open one", lambda: page.locator("#rows tbody tr").nth(3).click())
        time_of("concepts: close it", lambda: page.keyboard.press("Escape"))
        time_of("map: open", lambda: view("map", "#view .plot canvas"))
        centre = (480, 500)
        page.mouse.move(*centre)
        time_of("map: zoom", lambda: page.mouse.wheel(0, -300))
        time_of("map: pan", lambda: _drag(page, centre))
        colour = page.locator("#view select").first
        time_of("map: colour", lambda: colour.select_option(index=1))
        time_of("models: open", lambda: view("models", "#view table, #view .hint"))
        time_of("images: open", lambda: view("images", "#view figure"))
        time_of("images: more", lambda: page.get_by_role("button", name="more").last.click())
        time_of("findings: back", lambda: view("findings", "#view article"))
        browser.close()
    return found


def _drag(page, place):
    page.mouse.move(*place)
    page.mouse.down()
    for step in range(8):
        page.mouse.move(place[0] + 12 * step, place[1])
    page.mouse.up()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=32_000)
    parser.add_argument("--sets", type=int, default=8)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workdir", help="by default a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workdir = epath.Path(chosen.workdir or temporary)
        write_measures(workdir, chosen.images, chosen.concepts, chosen.sets)
        config = presets.experiment()
        config.generator.name = "stable_diffusion"
        for i in range(chosen.sets):
            config.generator.set = f"model{i}"
            _timed(f"compare model{i}", lambda: compare(config, workdir))
        _timed("report", lambda: report(config, workdir))
        sizes = megabytes(pathlib.Path(workdir) / "report")
        pictures = {kind: sizes.pop(kind, 0.0) for kind in PICTURES}
        told = ", ".join(f"{kind} {size:.1f}" for kind, size in sizes.items())
        total = sum(sizes.values())
        laid = ", ".join(f"{kind} {size:.1f}" for kind, size in pictures.items())
        print(f"data: {total:.1f} MB ({told}) and pictures: {laid}")
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")
        found = look(pathlib.Path(workdir) / "report" / "index.html")
    for what, took, longest in found:
        print(f"  {what:<24} {took:6.2f} s   longest task {1e3 * longest:5.0f} ms")
    late = [what for what, _, longest in found[2:] if longest > FRAME]
    missed = [f"longest task of {', '.join(late)}"] if late else []
    missed += ["first paint"] if found[0][1] > PAINTED else []
    missed += ["megabytes"] if total > MEGABYTES else []
    print(f"missed: {'; '.join(missed)}" if missed else "all as asked")
    return GATE_FAILED if missed else 0


def _timed(what: str, action) -> None:
    started = time.perf_counter()
    action()
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
