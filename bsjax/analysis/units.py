"""Which pairs count as one, and what the control takes for repetitions, as a method has it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from bsjax.core.errors import UserError
from bsjax.stats import clusters, comparison


class Units(NamedTuple):
    """Labels [n] of pairs, numbered from 0."""

    labels: np.ndarray  # of the clusters that count once
    repeats: np.ndarray  # of what repeats one another, whatever is taken as a cluster


def find_units(
    mode: str,
    real: sp.csr_array,
    captions: Sequence[str] | None,
    twins: np.ndarray | None = None,
    given: Sequence[Any] | np.ndarray | None = None,
    links: np.ndarray | None = None,
) -> Units:
    """Clusters of pairs.

    Args:
      mode: "caption", "image", "auto" (either) or "none".
      real: codes [n, K] of the real images.
      captions: of the pairs; None where there are none.
      twins: rows [M, 2] whose real images are near duplicates, where that is known from patches.
      given: labels of whoever knows what repeats what, in the place of all that.
      links: rows [M, 2] of pairs that are known to repeat one another.

    Raises:
      UserError: all pairs are one cluster.
    """
    if given is not None:
        labels = repeats = clusters.number(given)
    else:
        # The control swaps what repeats one another whatever is taken as a cluster, so that it
        # tells where too little is.
        repeats = labels = clusters.find_clusters(captions, real, twins=twins, known=links)
        if mode == "none":
            labels = np.arange(real.shape[0])
        elif mode == "image" or (mode == "caption" and captions is None):
            labels = clusters.find_clusters(None, real, twins=twins, known=links)
        elif mode == "caption":
            labels = clusters.find_clusters(captions, None, known=links)
    if labels.max() + 1 < comparison.LEAST_UNITS:
        what = "given label" if given is not None else "caption or real image"
        raise UserError(
            f"all {len(labels)} pairs are of one {what}, so they are one cluster; expected at least"
            f" {comparison.LEAST_UNITS}: add other captions, or set {{clusters}}=none if the images"
            " are independent",
            "clusters",
        )
    return Units(labels, repeats)
