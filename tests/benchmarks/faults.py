"""What happens to damaged artifacts, to killed runs and to two runs at once?

    python tests/benchmarks/faults.py [--flips=60] [--kinds=A,B] [--kills=4] [--stages=A,B]
        [--images=16] [--workdir=DIR]

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
import os
import pathlib
import sys
import tempfile

import jax
from absl import logging
from fault_damage import finished, interrupted
from fault_kills import STAGES, kills, two_runs
from fault_table import Table, compare_more, configs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=60, help="of single bits, a file")
    parser.add_argument("--kinds", default="", help="of finished artifacts, as the table says")
    parser.add_argument("--kills", type=int, default=4, help="of each stage")
    parser.add_argument("--stages", default=",".join(STAGES), help="that are killed")
    parser.add_argument("--images", type=int, default=16, help="16 or more: a shard has 4")
    parser.add_argument("--workdir", type=pathlib.Path)
    chosen = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_platforms", "cpu")
    logging.set_verbosity(logging.FATAL)
    from etils import epath

    from bsjax import pipeline

    table = Table()
    if chosen.workdir:
        chosen.workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.workdir) as name:
        root = pathlib.Path(name)
        workdir, other = root / "run", root / "other"
        config, training = configs(chosen.images, workdir)
        foreign, foreign_training = configs(chosen.images, other)
        foreign.seed = foreign_training.seed = 1
        config.measure.controls = foreign.measure.controls = "jpeg"
        for cfg, cfg_training, folder in (
            (config, training, workdir), (foreign, foreign_training, other),
        ):  # fmt: skip
            for stage in ("generate", "measure", "compare", "report"):
                pipeline.BY_NAME[stage].load()(cfg, epath.Path(folder))
            pipeline.BY_NAME["train_sae"].load()(cfg_training, epath.Path(folder))
        compare_more(config, workdir, root / "twin")
        if chosen.flips:
            kinds = [kind.strip() for kind in chosen.kinds.split(",") if kind.strip()]
            finished(config, training, workdir, other, chosen.flips, table, kinds)
            if not kinds:
                interrupted(config, training, workdir, chosen.flips, table)
        if chosen.kills:
            kills(chosen.stages.split(","), root, chosen.images, chosen.kills, table)
        two_runs(root, chosen.images, table)
    return table.show()


if __name__ == "__main__":
    sys.exit(main())
