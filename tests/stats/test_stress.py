"""pass@k by hand and by enumeration; intervals whose units are prompts, by hand and simulated."""

import itertools
import math

import numpy as np
import pytest

from bsjax.stats.proportions import wilson, wilson_interval
from bsjax.stats.stress import pass_at_k, share_of_prompts

Z2 = 1.959963984540054**2


def test_pass_at_k_by_hand():
    # 1 - C(3, 2) / C(4, 2) = 1/2; 1 - C(3, 3) / C(5, 3) = 9/10; none and all; fewer fail than k.
    found = pass_at_k(np.array([4, 5, 4, 4, 6]), np.array([1, 2, 0, 4, 5]), 2)
    assert found.tolist() == pytest.approx([1 / 2, 1 - 3 / 10, 0, 1, 1])
    assert pass_at_k(np.array([5]), np.array([2]), 3).tolist() == pytest.approx([9 / 10])
    assert pass_at_k(np.array([8, 8]), np.array([3, 8]), 1).tolist() == pytest.approx([3 / 8, 1])
    assert pass_at_k(np.array([8, 8]), np.array([0, 1]), 8).tolist() == [0, 1]
    assert pass_at_k(np.array([1000]), np.array([1]), 999).tolist() == pytest.approx([0.999])


@pytest.mark.parametrize(("n", "passes", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_of_what_cannot_be(n, passes, k):
    with pytest.raises(ValueError, match="expected 1 <= k <= n"):
        pass_at_k(np.array([n]), np.array([passes]), k)


def test_pass_at_k_is_the_share_of_draws_and_without_bias():
    n, k = 6, 3
    for passes in range(n + 1):
        images = [True] * passes + [False] * (n - passes)
        draws = [any(each) for each in itertools.combinations(images, k)]
        assert pass_at_k(np.array([n]), np.array([passes]), k)[0] == pytest.approx(np.mean(draws))
    # Over all outcomes of six images the estimate is what three images of rate p would give.
    p = 0.3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    estimates = pass_at_k(np.full(n + 1, n), np.arange(n + 1), k)
    assert np.dot(weights, estimates) == pytest.approx(1 - (1 - p) ** k)


def test_the_interval_by_hand():
    # Nothing scatters: as many independent images as there are prompts, not 128.
    none = share_of_prompts(np.zeros(8), np.full(8, 16))
    assert none[:4] == pytest.approx((0, 0, Z2 / (8 + Z2), 8))
    assert wilson(0, 128)[1] < 0.03 < none.high
    same = share_of_prompts(np.full(8, 0.5), np.full(8, 16))
    assert same.n_effective == 8
    # With 1/2: mean 1/2, v = (4 * 1/16 / 4) / 4 = 1/64, s (1 - s) / v = 16; t of 3 is 3.18245.
    some = share_of_prompts(np.array([1, 3, 1, 3]) / 4, np.full(4, 4))
    assert some.share == 0.5
    assert some.n_effective == pytest.approx(16 * Z2 / 3.182446305284263**2)
    assert some[1:3] == pytest.approx(wilson_interval(0.5, some.n_effective))
    # With 1/2: mean 1/9 + 1/18 = 1/6, squares 1 + 1/4 - 9/36 = 1, v = (1 / 8) / 8; t of 7.
    rare = share_of_prompts(np.array([1, *[0] * 7]), np.full(8, 8))
    assert rare.share == 1 / 8
    assert rare.n_effective == 8  # 5/36 * 64 * (z / 2.36462)^2 = 6.1 is less than the prompts
    # A share of prompts is Wilson's; a share that scatters less than images by chance is theirs.
    whole = share_of_prompts(np.array([0, 1, 0, 1, 0]), np.ones(5, int))
    assert whole[1:3] == pytest.approx(wilson(2, 5))
    even = np.array([3, 4, 4, 4, 4, 4, 4, 5]) / 8
    assert share_of_prompts(even, np.full(8, 8)).n_effective == 64
    one = share_of_prompts(np.array([0.25]), np.array([16]))
    assert one[1:] == pytest.approx((*wilson_interval(0.25, 1), 1))
    with pytest.raises(ValueError, match="at least one prompt"):
        share_of_prompts(np.array([]), np.array([]))


@pytest.mark.parametrize("rate", [0.05, 0.3])
@pytest.mark.parametrize("alike", [0.01, 0.3, 0.9])
def test_the_interval_covers_what_is_true_of_all_prompts(rate, alike):
    """Prompts' own rates from a beta distribution; `alike`: correlation of a prompt's images."""
    rng, n_prompts, n = np.random.default_rng(0), 16, 8
    scale = (1 - alike) / alike
    draws, held, by_images = 1000, 0, 0
    for _ in range(draws):
        own = rng.beta(rate * scale, (1 - rate) * scale, n_prompts)
        passes = rng.binomial(n, own)
        found = share_of_prompts(passes / n, np.full(n_prompts, n))
        held += found.low <= rate <= found.high
        low, high = wilson(int(passes.sum()), n_prompts * n)
        by_images += low <= rate <= high
    assert 0.925 <= held / draws <= 0.995
    if alike > 0.1:
        assert by_images / draws < 0.85  # of images as if they were independent
