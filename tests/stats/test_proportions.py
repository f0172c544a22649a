"""Intervals of shares, by hand."""

import pytest

from bsjax.stats import proportions


def test_wilson_by_hand():
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for agree, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        assert proportions.wilson(agree, n) == pytest.approx((low, high), abs=5e-5)
    assert proportions.wilson(20, 20)[1] == 1.0
