"""How often is something drawn when it is asked for, again and again? pass@k, with intervals.

Prompts are drawn from a population, the images of one prompt are repeats: eight images of one
caption say much of that caption and little of the others.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from bsjax.stats.proportions import wilson_interval
from bsjax.stats.ratios import Z


class Share(NamedTuple):
    """A share of what all such prompts would give, with a 95 % interval."""

    share: float
    low: float
    high: float
    n_effective: float  # independent images that would tell as much


def pass_at_k(n: np.ndarray, passes: np.ndarray, k: int) -> np.ndarray:
    """Probability that at least one of k images of a prompt passes [P], without bias.

    1 - C(n - c, k) / C(n, k), arXiv:2107.03374, eq. 1: the share of all draws of k of the n images
    that hold a pass.

    Args:
      n: [P] images of each prompt, k or more.
      passes: [P] of them that pass.
      k: images that one would draw.

    Raises:
      ValueError: k is below 1 or above an n, or more pass than there are.
    """
    n, passes = np.asarray(n, np.int64), np.asarray(passes, np.int64)
    if k < 1 or (n < k).any() or (passes < 0).any() or (passes > n).any():
        raise ValueError(f"expected 1 <= k <= n and 0 <= passes <= n, got k={k}, {n}, {passes}")
    # As a product of k factors, the i-th drawing none of those left: no large numbers.
    failing = n - passes
    drawn = np.arange(k)
    left = np.maximum(failing[:, None] - drawn, 0) / (n[:, None] - drawn)  # [P, k]
    return 1.0 - left.prod(axis=1)


def share_of_prompts(shares: np.ndarray, n: np.ndarray) -> Share:
    """The mean over prompts, with a 95 % interval in which prompts are the units.

    Wilson's interval with the effective number of images n* = s (1 - s) / v (Korn and Graubard,
    Survey Methodology 24, 1998): v is the variance of the mean as the prompts scatter, and n* is
    made smaller by (z / t)^2 with t of P - 1 degrees of freedom, since v is an estimate. n* lies
    between the number of prompts (all images of a prompt are the same) and that of all images (no
    prompt is like itself). Where every prompt has the same share nothing tells which of the two it
    is: then n* is the number of prompts.

    Differs: n* is taken with one prompt more, half of whose images pass. Of rare passes a few
    prompts alone tell the scatter, mostly too small a one: of 16 prompts of rate 0.05 whose images
    correlate by 0.6, 88 % of intervals without it hold the truth, and 96 % with it.

    Args:
      shares: [P] of each prompt's images; P is 1 or more.
      n: [P] images that each share is of.

    Raises:
      ValueError: there is no prompt.
    """
    shares, n_prompts = np.asarray(shares, np.float64), len(shares)
    if not n_prompts:
        raise ValueError("expected at least one prompt")
    mean, effective = float(shares.mean()), float(n_prompts)
    if shares.std() > 0:
        wider = np.append(shares, 0.5)
        variance = float(wider.var(ddof=1)) / n_prompts
        t = float(scipy_stats.t.ppf(0.975, n_prompts - 1))
        found = float(wider.mean() * (1 - wider.mean())) / variance * (Z / t) ** 2
        effective = float(np.clip(found, n_prompts, max(np.sum(n), n_prompts)))
    return Share(mean, *wilson_interval(mean, effective), effective)
