"""What happens to damaged artifacts, to killed runs and to two runs at once?

    python tests/benchmarks/faults.py [--flips=60] [--kills=4] [--images=16] [--workdir=DIR]

Makes a small run of the scenes world and a small training, then
(a) flips single bits of every file of every stage, and truncates, removes and swaps it; whoever
    reads it next must say so in one line that names the file, or make it anew, or come to the same
    numbers (a few bytes of some formats mean nothing);
(b) does the same to the partial results of interrupted stages, which go on from there;
(c) kills stages by SIGKILL at events of writing and starts them again: the same numbers, and no
    temporary file is left;
(d) starts two runs in one workdir.
Prints a table; exit status 3 where anything went by silently or ended in a traceback.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from bsjax.core import checksums, lock
from bsjax.core.artifacts import TEMPORARY, check_files, require_manifest
from bsjax.core.errors import GATE_FAILED, Preempted, UserError

REPO = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = ("tried", "told", "survived", "silent", "tracebacks", "leftovers")
STAGES = ("generate", "measure", "compare", "report", "train_sae")


class Table:
    """Outcomes by kind of fault."""

    def __init__(self):
        self.rows: dict[str, Counter] = {}
        self.examples: list[str] = []

    def add(self, kind: str, outcome: str, what: str = "", n: int = 1) -> None:
        row = self.rows.setdefault(kind, Counter())
        row[outcome] += n
        if outcome != "leftovers":
            row["tried"] += n
        if outcome in ("silent", "tracebacks", "leftovers") and n:
            self.examples.append(f"{outcome}: {kind}: {what}")

    def show(self) -> int:
        total = Counter()
        lines = [f"{'kind':<44}" + "".join(f"{name:>12}" for name in COLUMNS)]
        for kind, row in self.rows.items():
            total.update(row)
            lines.append(f"{kind:<44}" + "".join(f"{row[name]:>12}" for name in COLUMNS))
        lines.append(f"{'all':<44}" + "".join(f"{total[name]:>12}" for name in COLUMNS))
        sys.stdout.write("\n".join([*lines, *self.examples[:40]]) + "\n")
        return GATE_FAILED if total["silent"] or total["tracebacks"] or total["leftovers"] else 0


def digest(*parts: object) -> str:
    """Of arrays, bytes, and what has a repr of its content."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            sha.update(f"{part.dtype} {part.shape}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        else:
            sha.update(part if isinstance(part, bytes) else repr(part).encode())
    return sha.hexdigest()


def configs(n_images: int, workdir: pathlib.Path):
    """The experiment, and the training of an SAE."""
    get_config = runpy.run_path(str(REPO / "configs" / "scenes.py"))["get_config"]
    config = get_config(f"limit={n_images}")
    config.generator.steps = 2
    config.generator.images_per_shard, config.generator.batch_per_device = 8, 2
    config.encoder.batch_per_device = config.measure.images_per_shard = 4
    config.compare.bootstrap = min(config.compare.bootstrap, 20)
    training = get_config("train_sae")
    training.real.limit = n_images
    train = training.train
    train.n_concepts = train.n_candidates = 32
    train.tokens_per_step, train.steps, train.judge_tokens = 256, 6, 256
    train.candidate_tokens, train.candidate_iterations = 512, 2
    train.look_every, train.checkpoint_every, train.keep_checkpoints = 1, 2, 3
    train.supply, train.token_store = "store", str(workdir / "tokens")
    train.shard_images = 8
    return config, training


# What a stage that reads these files makes of them ----------------------------------------------


def read_images(config, workdir: pathlib.Path) -> str:
    from bsjax.stages import inputs

    arm = inputs.load_arms(config, workdir)[1]
    return digest(
        arm.digest, arm.notes, *((r.key, r.caption, r.read()) for r in arm.images.records)
    )


def read_measures(config, workdir: pathlib.Path) -> str:
    from bsjax.report.tables import read_comparisons
    from bsjax.stages import compare

    parts = []
    for name in ("real", "scenes"):
        folder = workdir / "measures" / name
        manifest = require_manifest(folder, "measure")
        measured = compare._read(folder, manifest)
        parts += [manifest["counts"], manifest["notes"], manifest["bad_images"]]
        parts += [measured.concepts.to_pydict(), measured.images.to_pydict(), measured.top_rows]
        parts += [measured.codes.data, measured.codes.indices, measured.codes.indptr]
    comparison = read_comparisons(workdir, ["scenes"])[0]
    for arm in (comparison.real, comparison.generated):
        parts += [arm.maps, arm.special, arm.cooccurrence.data, arm.paths, arm.resize, arm.crop]
    return digest(*parts)


def read_comparison(config, workdir: pathlib.Path) -> str:
    from bsjax.report.tables import read_comparisons
    from bsjax.stages.run import summarise

    found = read_comparisons(workdir, ["scenes"])[0]
    text = summarise(workdir, "scenes").replace(str(workdir), "")
    return digest(found.columns, found.datapoints, found.manifest, text)


def read_layout(config, workdir: pathlib.Path) -> str:
    from bsjax.convert.rasae import load_rasae
    from bsjax.report import layout

    sae = load_rasae(config.sae.weights)
    path = workdir / "report" / layout.FILE
    whole = (workdir / "layout.whole").read_bytes()
    made = layout.umap_places
    # What is made anew is what was made before: the same seed.
    layout.umap_places = lambda _: np.load(workdir / "layout.whole")["places"]
    try:
        return digest(layout.place_concepts(workdir / "report", sae.dictionary, sae.digest))
    finally:
        layout.umap_places = made
        path.write_bytes(whole)


def read_sae(training, encoder, workdir: pathlib.Path) -> str:
    from bsjax.stages import inputs

    loaded, threshold = inputs.load_sae(training, workdir, encoder)
    return digest(loaded.encoder, loaded.dictionary, threshold)


def read_training(workdir: pathlib.Path) -> str:
    from bsjax.stages import convert

    convert.export_sae(workdir)
    exported = workdir / "sae" / "overcomplete.safetensors"
    content = exported.read_bytes()
    exported.unlink()
    return digest(content)


def read_rest(folder: pathlib.Path, stage: str) -> str:
    """What no stage reads, but a person might: by the manifest alone."""
    check_files(folder, require_manifest(folder, stage))
    return ""


def read_tokens(training, workdir: pathlib.Path) -> str:
    from bsjax.data.token_store import BLOCK, TokenStore

    store = TokenStore(training.train.token_store)
    return digest(store.width, store.read_blocks(range(store.n_tokens // BLOCK)))


# Faults -----------------------------------------------------------------------------------------


def flips(data: bytes, n: int, rng: random.Random) -> Iterator[bytes]:
    """`data` with one bit changed, `n` times."""
    for _ in range(n):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


def outcome(read: Callable[[], str], expected: str, path: pathlib.Path, table: Table, kind: str):
    """Files one attempt to read a damaged file under what came of it."""
    checksums._known.clear()  # the same clock tick may see two flips
    try:
        found = read()
    except UserError as error:
        text = str(error)
        is_clear = "\n" not in text and (path.name in text or str(path.parent) in text)
        table.add(kind, "told" if is_clear else "tracebacks", f"{path}: {text}")
    except Exception:
        table.add(kind, "tracebacks", f"{path}: {traceback.format_exc()[-600:]}")
    else:
        table.add(kind, "survived" if found == expected else "silent", str(path))


def damage(
    read: Callable[[], str], files: list[pathlib.Path], other: pathlib.Path | None,
    root: pathlib.Path, n: int, table: Table, kind: str, restore: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Every fault to every file; `restore` brings back what the reader may have removed."""
    rng = random.Random(0)
    expected = read()
    restore()
    for i, path in enumerate(files, 1):
        sys.stderr.write(f"{kind}: file {i} of {len(files)}, {path.name}\n")
        whole = path.read_bytes()
        cut = [whole[: len(whole) // 2], b""]
        foreign = [other / path.relative_to(root)] if other is not None else []
        foreign += [sibling for sibling in files if sibling.suffix == path.suffix][:3]
        swapped = [f.read_bytes() for f in foreign if f != path and f.is_file()]
        swapped = [data for data in swapped if data != whole]
        for name, versions in (
            ("bit flips", flips(whole, n, rng) if whole else ()),
            ("truncated", cut if whole else ()), ("swapped", swapped), ("removed", [None]),
        ):  # fmt: skip
            for data in versions:
                path.unlink() if data is None else path.write_bytes(data)
                outcome(read, expected, path, table, f"{kind}: {name}")
                restore()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(whole)


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return [folder / name for name in checksums.list_files(folder)]


def finished(config, training, workdir, other, n: int, table: Table) -> None:
    """Faults in the artifacts of finished stages."""
    from bsjax.stages import inputs

    shutil.copyfile(workdir / "report" / "layout.npz", workdir / "layout.whole")
    encoder = inputs.load_encoder(training)
    trained = files_of(workdir / "sae")
    weights = [workdir / "sae" / "sae.safetensors"]
    read = [path for path in trained if "checkpoints" in path.parts or path.suffix == ".npz"]
    rest = [path for path in trained if path not in (*weights, *read)]
    measured = [
        path for name in ("real", "scenes") for path in files_of(workdir / "measures" / name)
    ]
    for kind, reader, files in (
        ("images", lambda: read_images(config, workdir), files_of(workdir / "images" / "scenes")),
        ("measures", lambda: read_measures(config, workdir), measured),
        ("comparisons", lambda: read_comparison(config, workdir),
         files_of(workdir / "comparisons" / "scenes")),
        ("sae, for measure", lambda: read_sae(training, encoder, workdir), weights),
        ("sae, for convert", lambda: read_training(workdir), read),
        ("sae, the rest", lambda: read_rest(workdir / "sae", "train_sae"), rest),
        ("tokens", lambda: read_tokens(training, workdir), files_of(workdir / "tokens")),
    ):  # fmt: skip
        damage(reader, files, other, workdir, n, table, kind)
    layout = [workdir / "report" / "layout.npz"]
    damage(lambda: read_layout(config, workdir), layout, None, workdir, n, table, "report's map")


# Interrupted stages -----------------------------------------------------------------------------


@contextlib.contextmanager
def stopped_by(owner: object, name: str, calls: int):
    """Within it, the run is taken away when `owner.name` returns for the so-manieth time."""
    function, count = getattr(owner, name), [0]

    def call(*arguments, **more):
        result = function(*arguments, **more)
        count[0] += 1
        if count[0] == calls:
            raise Preempted("stopped")
        return result

    setattr(owner, name, call)
    try:
        with contextlib.suppress(Preempted):
            yield
    finally:
        setattr(owner, name, function)


def snapshot(folder: pathlib.Path, copy: pathlib.Path) -> Callable[[], None]:
    """A function that puts a folder back as it is now."""
    shutil.copytree(folder, copy)

    def restore():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(copy, folder)

    return restore


def interrupted(config, training, workdir: pathlib.Path, n: int, table: Table) -> None:
    """Faults in partial results: what is kept of them is what was written."""
    from etils import epath

    from bsjax.core.checkpoint import Checkpoints
    from bsjax.core.dims import Grid
    from bsjax.data.image_shards import ImageShards
    from bsjax.stages import generate, inputs, measure, train_sae
    from bsjax.stages.shards import ShardStore

    work = workdir / "interrupted"
    with stopped_by(ImageShards, "add", 7):
        generate.generate(config, epath.Path(work))
    folder = work / "images" / "scenes"
    prompts = inputs.list_prompts(config).usable
    per_shard = config.generator.images_per_shard
    made: dict[int, bytes] = {}

    def read_drawn():
        shards = ImageShards(epath.Path(folder), prompts, per_shard, config.seed)
        for shard in range(shards.n_shards):
            shards.missing(shard)
            if (folder / f"shard-{shard:05d}.json").exists():
                import msgpack
                from array_record.python import array_record_data_source

                path = str(folder / f"shard-{shard:05d}.arrayrecord")
                records = array_record_data_source.ArrayRecordDataSource([path])
                found = {f["index"]: f["image"] for f in map(msgpack.unpackb, records)}
            else:
                kept = shards._open.get(shard, {})
                found = {prompts[place].index: o.png for place, o in kept.items()}
            for index, png in found.items():
                if made.setdefault(index, png) != png:
                    return "another image"
        return "as drawn"

    restore = snapshot(folder, workdir / "copy-images")
    damage(read_drawn, files_of(folder), None, work, n, table, "unfinished images", restore)

    shutil.copytree(workdir / "images", work / "images", dirs_exist_ok=True)
    with stopped_by(ShardStore, "commit", 3):
        measure.measure(config, work)
    folder = work / "measures" / "real"
    states: dict[int, str] = {}

    def read_progress():
        store = ShardStore(folder, 512, Grid(4, 8, 8))
        progress = store.resume(config.measure.top_images)
        runs = [
            (path.name, (path / "data").read_bytes(), (path / "indices").read_bytes())
            for path in sorted(store.partial.iterdir()) if path.name.startswith("pairs")
        ]  # fmt: skip
        state = digest(*progress.totals, *progress.top, progress.bad, runs)
        if states.setdefault(progress.next_row, state) != state:
            return "another state"
        return "as measured"

    restore = snapshot(folder, workdir / "copy-measures")
    whole = sorted((folder / ".partial").glob("shard-*"))
    for path in (*whole[::-1], None):  # what is left behind each shard
        read_progress()
        restore()
        for later in whole[whole.index(path) :] if path else whole:
            later.unlink()
    restore()
    files = [path for path in (folder / ".partial").rglob("*") if path.is_file()]
    damage(read_progress, files, None, work, n, table, "unfinished measures", restore)

    with stopped_by(Checkpoints, "save", 2):
        train_sae.train_sae(training, epath.Path(work))
    folder = work / "sae"
    known: dict[int, str] = {}

    def read_checkpoint():
        checkpoints = Checkpoints(folder / "checkpoints", keep=3, is_read_only=True)
        try:
            restored = checkpoints.restore(None)
        except UserError as error:
            raise UserError(f"{error} {folder}") from error
        finally:
            checkpoints.close()
        if restored is None:
            return "as trained"
        state, progress = restored
        state = digest(json.dumps(progress, sort_keys=True), *map(np.asarray, _leaves(state)))
        return "as trained" if known.setdefault(progress["next_step"], state) == state else "other"

    restore = snapshot(folder, workdir / "copy-sae")
    read_checkpoint()
    restore()
    newest = max(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    shutil.rmtree(folder / "checkpoints" / str(newest))
    if any((folder / "checkpoints").iterdir()):
        read_checkpoint()
    restore()
    files = files_of(folder / "checkpoints")
    damage(read_checkpoint, files, None, work, n, table, "checkpoints", restore)


def _leaves(tree) -> list:
    import jax

    return jax.tree.leaves(tree)


# Kills ------------------------------------------------------------------------------------------

EVENTS = ((os, "replace"), (os, "rename"), (os, "fsync"), (os, "unlink"), (os, "rmdir"))


def victim(workdir: pathlib.Path, stage: str, n_images: int, kill_at: int) -> int:
    """Runs a stage in a child that dies at an event of writing (-1: none).

    Returns:
      Exit status: below 0 if it was killed.
    """
    command = [sys.executable, __file__, f"--victim={stage}", f"--kill-at={kill_at}"]
    command += [f"--images={n_images}", f"--workdir={workdir}"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPO)}
    )
    if "Traceback" in done.stderr:
        sys.stdout.write(done.stderr[-1500:] + "\n")
        return 70
    return done.returncode


def be_victim(workdir: pathlib.Path, stage: str, n_images: int, kill_at: int) -> None:
    """The child's part: counts events, and dies before or after one."""
    import jax
    from etils import epath

    from bsjax import pipeline

    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    config, training = configs(n_images, workdir)
    count = [0]

    def dying(function):
        def call(*arguments, **more):
            if str(workdir) not in str(arguments[0]) and not isinstance(arguments[0], int):
                return function(*arguments, **more)
            count[0] += 1
            if count[0] == kill_at and kill_at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **more)
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in EVENTS:
        setattr(owner, name, dying(getattr(owner, name)))
    pathlib.Path.unlink = dying(pathlib.Path.unlink)
    with lock.hold(workdir, stage):
        chosen = training if stage == "train_sae" else config
        pipeline.BY_NAME[stage].load()(chosen, epath.Path(workdir))
    (workdir.parent / "events").write_text(str(count[0]))


def numbers(config, training, workdir: pathlib.Path, stage: str) -> str:
    """What a finished stage came to."""
    if stage == "report":
        folder = workdir / "report"
        names = [
            f for f in checksums.list_files(folder) if f.startswith("data/") or f[-5:] == ".json"
        ]
        return digest(*((f, (folder / f).read_bytes()) for f in names if f != "manifest.json"))
    read = {"generate": read_images, "measure": read_arms, "compare": read_comparison}
    if stage == "train_sae":
        return digest(
            (workdir / "sae" / "sae.safetensors").read_bytes(), read_tokens(training, workdir)
        )
    return read[stage](config, workdir)


def read_arms(config, workdir: pathlib.Path) -> str:
    from bsjax.stages import compare

    parts = []
    for name in ("real", "scenes"):
        folder = workdir / "measures" / name
        measured = compare._read(folder, require_manifest(folder, "measure"))
        parts += [measured.concepts.to_pydict(), measured.images.to_pydict(), measured.top_rows]
        parts += [measured.codes.data, measured.codes.indices]
    return digest(*parts)


def leftovers(workdir: pathlib.Path) -> list[str]:
    """What a finished run must not leave: temporary files, locks, journals, partial shards."""
    signs = (
        TEMPORARY,
        "journal-",
        lock.FILE,
        lock.PARTIAL,
        "features-of-host",
        "orbax-checkpoint-tmp",
    )
    return [str(p) for p in workdir.rglob("*") if any(sign in p.name for sign in signs)]


def kills(config, training, workdir: pathlib.Path, n_images: int, n: int, table: Table) -> None:
    """SIGKILL at `n` events of each stage, and the same command again."""
    base = workdir / "kills" / "base"
    base.mkdir(parents=True)
    for stage in STAGES:
        config, training = configs(n_images, base)
        before = workdir / "kills" / f"before-{stage}"
        shutil.copytree(base, before)
        assert victim(base, stage, n_images, -1) == 0
        expected = numbers(config, training, base, stage)
        n_events = int((base.parent / "events").read_text())
        for event in sorted({1 + i * (n_events - 1) // max(n - 1, 1) for i in range(n)}):
            work = workdir / "kills" / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(before, work)
            kind = f"killed: {stage} ({n_events} events)"
            status = victim(work, stage, n_images, event)
            again = victim(work, stage, n_images, -1)
            if status >= 0 or again != 0:
                table.add(kind, "tracebacks", f"event {event}: {status}, again {again}")
                continue
            config, training = configs(n_images, work)
            checksums._known.clear()
            is_same = numbers(config, training, work, stage) == expected
            table.add(kind, "survived" if is_same else "silent", f"event {event}")
            left = leftovers(work)
            table.add(kind, "leftovers", f"event {event}: {left[:3]}", len(left))


def two_runs(workdir: pathlib.Path, n_images: int, table: Table) -> None:
    """The second run in a workdir says who works there."""
    work = workdir / "two"
    program = [sys.executable, "-m", "bsjax.main"]
    rest = [f"--config={REPO / 'configs' / 'scenes.py'}:limit={n_images}", f"--workdir={work}"]
    rest += ["--config.generator.steps=2", "--config.generator.batch_per_device=4"]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    log = (workdir / "two.log").open("w")
    first = subprocess.Popen([*program, "generate", *rest], env=environment, stderr=log, stdout=log)
    while not (work / lock.FILE).exists() and first.poll() is None:
        time.sleep(0.01)
    second = subprocess.run(
        [*program, "measure", *rest], env=environment, capture_output=True, text=True
    )
    is_told = (
        second.returncode == 1 and f"another bsjax works here, pid {first.pid}" in second.stderr
    )
    table.add("second run in a workdir", "told" if is_told else "silent", second.stderr[-300:])
    table.add("first run beside it", "survived" if first.wait() == 0 else "tracebacks")
    left = leftovers(work)
    table.add("first run beside it", "leftovers", str(left[:3]), len(left))
    log.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=60, help="of single bits, a file")
    parser.add_argument("--kills", type=int, default=4, help="of each stage")
    parser.add_argument("--images", type=int, default=16, help="16 or more: a shard has 4")
    parser.add_argument("--workdir", type=pathlib.Path)
    parser.add_argument("--victim", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--kill-at", type=int, default=-1, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    logging.set_verbosity(logging.FATAL)
    if chosen.victim:
        be_victim(chosen.workdir, chosen.victim, chosen.images, chosen.kill_at)
        return 0
    from etils import epath

    from bsjax import pipeline

    table = Table()
    with tempfile.TemporaryDirectory(dir=chosen.workdir) as name:
        root = pathlib.Path(name)
        workdir, other = root / "run", root / "other"
        config, training = configs(chosen.images, workdir)
        foreign, foreign_training = configs(chosen.images, other)
        foreign.seed = foreign_training.seed = 1
        for cfg, cfg_training, folder in (
            (config, training, workdir), (foreign, foreign_training, other),
        ):  # fmt: skip
            for stage in ("generate", "measure", "compare", "report"):
                pipeline.BY_NAME[stage].load()(cfg, epath.Path(folder))
            pipeline.BY_NAME["train_sae"].load()(cfg_training, epath.Path(folder))
        if chosen.flips:
            finished(config, training, workdir, other, chosen.flips, table)
            interrupted(config, training, workdir, chosen.flips, table)
        if chosen.kills:
            kills(config, training, root, chosen.images, chosen.kills, table)
        two_runs(root, chosen.images, table)
    return table.show()


if __name__ == "__main__":
    sys.exit(main())
