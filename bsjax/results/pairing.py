"""Which images of two measured sets belong together."""

from collections.abc import Hashable, Sequence

import numpy as np

from bsjax.data.pairing import Named, Pairing, draw_pairs, pair_images
from bsjax.results.columns import CLUSTER
from bsjax.results.measures import Measured
from bsjax.stats import clusters


def clusters_of(measured: Measured) -> list[str]:
    """[n] key of what each image repeats: the image with another caption, the caption drawn anew;
    its own where it repeats none."""
    is_told = CLUSTER in measured.images.column_names
    return measured.images[CLUSTER].to_pylist() if is_told else measured.keys


def named(measured: Measured) -> Named:
    """What the images of a measured set are paired by."""
    return Named(measured.keys, measured.captions, clusters_of(measured))


def pair_measured(
    real: Measured, generated: Measured, mode: str = "auto", seed: int = 0
) -> Pairing:
    """Which images of two measured sets belong together.

    Args:
      real: the real images.
      generated: the generated ones.
      mode: "auto": by names, else by captions; "none": of different captions, by lot.
      seed: of the lot.

    Raises:
      UserError: none do.
    """
    if mode != "none":
        return pair_images(named(real), named(generated))
    labels = tuple(
        clusters.find_clusters(arm.captions, arm.codes, known=_links(clusters_of(arm)))
        for arm in (real, generated)
    )
    return draw_pairs(named(real), named(generated), labels, seed)


def known_links(real: Measured, pairing: Pairing) -> np.ndarray:
    """Pairs of pairs [M, 2] of one real image, also where it is there with several captions; of
    pairs by lot those of one cluster."""
    if pairing.labels is not None:
        return _links(pairing.labels.tolist())
    told_by = clusters_of(real)
    told = _links([told_by[row] for row in pairing.rows_real.tolist()])
    return np.concatenate([pairing.links, told])


def _links(labels: Sequence[Hashable]) -> np.ndarray:
    first: dict[Hashable, int] = {}
    found = [(first.setdefault(label, row), row) for row, label in enumerate(labels)]
    return np.array([each for each in found if each[0] != each[1]], np.int64).reshape(-1, 2)
