"""Captions ranked by a concept: which prompts bring it out, and how reliably.

Reads measures/<set>/; writes measures/<set>/ranking-<concept>.csv, one row per caption. With
several images per caption (`generator.samples`) this is the paper's stress test.
"""

import numpy as np
from absl import logging

from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.results.measures import read_measured
from bsjax.results.ranking import write_ranking


def rank(folder: AnyPath, concept: int) -> None:
    """Writes the ranking of one measured set.

    Columns: caption, images, mean_energy (of the concept, over its images), sd_energy, share_shown
    (of its images that show the concept at all); highest mean first.

    Raises:
      UserError: no such concept, or a file that is not what `measure` wrote.
    """
    measured = read_measured(folder)
    codes = measured.codes.tocsc()
    if not 0 <= concept < codes.shape[1]:
        raise UserError(
            f"measure.rank_concept={concept}: expected 0 to {codes.shape[1] - 1}; set"
            " --config.measure.rank_concept"
        )
    captions = np.asarray(measured.captions)
    energy = codes[:, [concept]].toarray()[:, 0].astype(np.float64)
    names, group = np.unique(captions, return_inverse=True)
    n = np.bincount(group)
    mean = np.bincount(group, energy) / n
    variance = np.bincount(group, np.square(energy - mean[group])) / np.maximum(n - 1, 1)
    shown = np.bincount(group, energy > 0) / n
    order = np.lexsort((names, -mean))
    columns = {
        "caption": names, "images": n, "mean_energy": mean, "sd_energy": np.sqrt(variance),
        "share_shown": shown,
    }  # fmt: skip
    ranked = {name: values[order].tolist() for name, values in columns.items()}
    path = write_ranking(folder, concept, ranked)
    best = ", ".join(repr(str(names[i])) for i in order[:3])
    logging.info("concept %d is strongest for %s; all in %s", concept, best, path)
