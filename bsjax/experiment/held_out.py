"""Captions of the data set that a comparison did not use: those behind real.limit."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from bsjax.experiment import inputs

LOOKED_AT = 4096  # records looked at, at most: a caption may have to be read from a file
BLOCK = 256  # captions given at once


class HeldOut(NamedTuple):
    """Records whose image was not measured, in random order."""

    records: Sequence[Any]
    keys: frozenset[str]  # that were measured
    captions: frozenset[str]  # that were compared
    seed: int  # of the order, since sources are often sorted
    digest: str  # of the listing

    def blocks(self) -> Iterator[list[tuple[str, Any]]]:
        """Captions with their records, none compared and each once, some at a time as they are
        read."""
        order = np.random.default_rng(self.seed).permutation(len(self.records)).tolist()
        others = (record for row in order if (record := self.records[row]).key not in self.keys)
        seen, block = set(self.captions) | {""}, []
        for record, _ in zip(others, range(LOOKED_AT), strict=False):
            text = record.caption.strip()
            if text not in seen:
                seen.add(text)
                block.append((text, record))
            if len(block) == BLOCK:
                yield block
                block = []
        if block:
            yield block


def list_held_out(
    config: ml_collections.ConfigDict, keys: Sequence[str], captions: Sequence[str]
) -> HeldOut:
    """Records of the real images' source that are none of those measured.

    Args:
      config: the experiment; what lies behind its real.limit is looked at.
      keys: of the images that were measured.
      captions: that were compared.
    """
    wider = config.copy_and_resolve_references()
    if wider.real.limit >= 0:
        wider.real.limit = max(wider.real.limit, len(keys)) + LOOKED_AT
    arm = inputs.load_set(wider, "real")
    records = arm.images.records
    return HeldOut(records, frozenset(keys), frozenset(captions), config.seed, arm.digest)
