"""faults.py: its table of outcomes, and the small experiment that faults happen to."""

import hashlib
import pathlib
import runpy
import shutil
import sys
from collections import Counter

import numpy as np

from bsjax.core.errors import GATE_FAILED

REPO = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = ("tried", "told", "survived", "silent", "tracebacks", "leftovers")


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


def compare_more(config, workdir: pathlib.Path, twin: pathlib.Path) -> None:
    """A second generated set, held against the first, and a replication by another threshold.

    Args:
      config: of the first set, which is compared.
      workdir: of the run.
      twin: workdir that is made, of the same images under another SAE.
    """
    from etils import epath

    from bsjax.stages import compare, generate, measure

    more = config.copy_and_resolve_references()
    more.generator.set, more.generator.steps, more.measure.controls = "more", 3, ""
    for stage in (generate.generate, measure.measure):
        stage(more, epath.Path(workdir))
    compare.compare(more, epath.Path(workdir), against="scenes")
    shutil.copytree(workdir / "images" / "scenes", twin / "images" / "scenes")
    other = config.copy_and_resolve_references()
    other.sae.threshold, other.measure.controls = 0.3, ""
    for stage in (measure.measure, compare.compare):
        stage(other, epath.Path(twin))
    compare.compare(config, epath.Path(workdir), replicate=str(twin))
