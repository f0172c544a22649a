"""faults.py: damage to the artifacts of finished stages and to what interrupted ones leave."""

import contextlib
import json
import pathlib
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

import fault_readers as readers
import numpy as np
from fault_table import Table, digest

from bsjax.core import checksums
from bsjax.core.errors import Preempted, UserError


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


def finished(
    config, training, workdir, other, n: int, table: Table, kinds: Sequence[str] = ()
) -> None:
    """Faults in the artifacts of finished stages; of some kinds alone where any are named."""
    from bsjax.experiment import inputs

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
        ("images", lambda: readers.read_images(config, workdir),
         files_of(workdir / "images" / "scenes")),
        ("measures", lambda: readers.read_measures(config, workdir), measured),
        ("comparisons", lambda: readers.read_comparison(config, workdir),
         files_of(workdir / "comparisons" / "scenes")),
        ("statistics of a comparison", lambda: readers.read_statistics(config, workdir),
         files_of(workdir / "comparisons" / "scenes")),
        ("two models", lambda: readers.read_moved(config, workdir), files_of(workdir / "models")),
        ("replications", lambda: readers.read_replication(config, workdir),
         files_of(workdir / "replications")),
        ("sae, for measure", lambda: readers.read_sae(training, encoder, workdir), weights),
        ("sae, for convert", lambda: readers.read_training(workdir), read),
        ("sae, the rest", lambda: readers.read_rest(workdir / "sae", "train_sae"), rest),
        ("tokens", lambda: readers.read_tokens(training, workdir), files_of(workdir / "tokens")),
    ):  # fmt: skip
        if not kinds or kind in kinds:
            damage(reader, files, other, workdir, n, table, kind)
    if kinds:
        return
    layout = [workdir / "report" / "layout.npz"]
    damage(
        lambda: readers.read_layout(config, workdir),
        layout,
        None,
        workdir,
        n,
        table,
        "report's map",
    )


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
    from bsjax.experiment import inputs
    from bsjax.results.shards import ShardStore
    from bsjax.stages import generate, measure, train_sae

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
        shards = [
            (path.name, path.read_bytes()) for path in sorted(store.partial.glob("shard-*.npz"))
        ]
        state = digest(progress.bad, runs, shards)
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
