"""How far ours is from the reference; `pytest --log-cli-level=INFO` shows the figures."""

import logging

import numpy as np

LOG = logging.getLogger("parity")


def agree(what, ours, theirs, limit):
    """Fails where the largest difference reaches the limit, or there is nothing to compare."""
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all() and theirs.std() > 1e-3
    difference = np.abs(ours - theirs).max()
    LOG.info("%s: largest difference %.1e of values up to %.2g", what, difference,
             np.abs(theirs).max())  # fmt: skip
    assert difference < limit
