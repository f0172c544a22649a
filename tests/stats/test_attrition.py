"""Bounds of what missing images could do, against every way in which they could turn out."""

import itertools
import math

import pytest

from bsjax.stats import verdicts
from bsjax.stats.attrition import Bound, Missing, bound, words_of_missing

SUPPRESSED, EXAGGERATED = verdicts.SUPPRESSED, verdicts.EXAGGERATED


def test_bounds_by_hand():
    # 10 real and 2 generated images show it; 3 generated ones are missing, 1 real, 2 captions.
    found = bound(10, 2, Missing(real=1, generated=3, both=2), SUPPRESSED, 1.5)
    assert found.low == math.log(2 / 13) and found.high == math.log(7 / 10)
    assert found.share == pytest.approx((10 / 1.5 - 2) / 5)  # 4.67 of the 5 would do
    assert bound(10, 2, Missing(real=9, generated=4), SUPPRESSED, 1.5).share == math.inf
    found = bound(10, 2, Missing(generated=5), SUPPRESSED, 1.5)
    assert found.share == pytest.approx((10 / 1.5 - 2) / 5)
    found = bound(2, 10, Missing(real=5), EXAGGERATED, 1.5)
    assert found.share == pytest.approx((10 / 1.5 - 2) / 5)
    assert (found.low, found.high) == (math.log(10 / 7), math.log(5))


@pytest.mark.parametrize(
    "missing", [Missing(), Missing(2, 0, 0), Missing(0, 3, 1), Missing(2, 2, 2)]
)
@pytest.mark.parametrize(("n_real", "n_generated"), [(6, 1), (3, 0), (1, 5), (4, 4)])
def test_bounds_hold_every_way_the_missing_could_turn_out_and_are_reached(
    n_real, n_generated, missing
):
    reached = []
    both = itertools.product(range(missing.both + 1), range(missing.both + 1))
    for more_real, more_generated, (b_real, b_generated) in itertools.product(
        range(missing.real + 1), range(missing.generated + 1), both
    ):
        below = n_real + more_real + b_real
        above = n_generated + more_generated + b_generated
        reached.append(math.log(above / below) if above else -math.inf)
    found = bound(n_real, n_generated, missing, SUPPRESSED, 1.5)
    assert (found.low, found.high) == (min(reached), max(reached))


@pytest.mark.parametrize("n_missing", [1, 4, 5, 9])
def test_the_share_is_where_the_margin_is_reached(n_missing):
    n_real, n_generated, margin = 12, 3, 1.5
    found = bound(n_real, n_generated, Missing(generated=n_missing), SUPPRESSED, margin)
    enough = [m for m in range(n_missing + 1) if (n_generated + m) * margin >= n_real]
    if enough:
        assert (enough[0] - 1) / n_missing < found.share <= enough[0] / n_missing
    else:
        assert found.share == math.inf


def test_ends_without_a_number():
    assert bound(0, 0, Missing(), SUPPRESSED, 1.5)[:2] == pytest.approx(
        (math.nan, math.nan), nan_ok=True
    )
    assert bound(0, 4, Missing(generated=1), EXAGGERATED, 1.5).high == math.inf
    assert bound(5, 4, Missing(generated=1), SUPPRESSED, 1.5).share == 0  # within it as it is
    assert math.isnan(bound(5, 1, Missing(), SUPPRESSED, 1.5).share)
    assert isinstance(bound(5, 1, Missing(), SUPPRESSED, 1.5), Bound)
    # None of the generated is missing: nothing that is could change a suppressed one.
    assert bound(9, 1, Missing(real=4), SUPPRESSED, 1.5).share == math.inf


def test_words_of_the_missing():
    kept = [f"a photo of thing{i}" for i in range(200)]
    missing = [f"a nude statue {i}" for i in range(10)] + ["a photo of thing7"] * 30
    found = words_of_missing(missing, kept)
    assert [each.word for each in found] == ["nude", "statue"]
    assert found[0].share_missing == pytest.approx(10 / 11) and found[0].share_kept == 0
    assert all(each.q < 1e-6 for each in found)
    assert words_of_missing([], kept) == [] == words_of_missing(["x"], [])
    assert words_of_missing(["", ""], kept) == []
    assert len(words_of_missing(missing, kept, most=1)) == 1


def test_chance_is_no_finding():
    captions = [f"w{i % 17} v{i % 5} u{i % 3}" for i in range(300)]
    assert words_of_missing(captions[::10], captions) == []
