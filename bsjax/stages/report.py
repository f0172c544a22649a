"""report: measures and comparisons -> report/index.html, figures and tables.

Reads every comparison in the workdir; always written anew, which takes seconds.
"""

import pathlib

import ml_collections
from absl import logging

from bsjax.core.artifacts import MANIFEST
from bsjax.core.errors import UserError
from bsjax.data.images import thumbnail
from bsjax.report.page import write_report


def report(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes the report over all finished comparisons of the workdir."""
    del config
    sets = sorted(path.parent.name for path in (workdir / "comparisons").glob(f"*/{MANIFEST}"))
    if not sets:
        raise UserError(f"{workdir / 'comparisons'} holds no comparison; run `bsjax compare` first")
    logging.info("report: %s", write_report(workdir, sets, thumbnail))
