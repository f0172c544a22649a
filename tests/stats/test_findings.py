"""What was drawn instead, findings, and whether it was asked for: worlds with a known answer."""

import numpy as np
import pytest
import scipy.sparse as sp

from bsjax.stats import asked, findings, significance, substitutions
from bsjax.stats.findings import Called


def arms(n=200, n_concepts=12, seed=0):
    """Two arms of one distribution: concepts 6 and up are noise, in a third of the images."""
    rng = np.random.default_rng(seed)
    real, generated = (
        rng.gamma(2, 1, (n, n_concepts)) * (rng.random((n, n_concepts)) < 0.3) for _ in range(2)
    )
    return real, generated


def replaced_world():
    """Concept 0, in half of the real images, is drawn as 1 there; concept 2 is added everywhere."""
    real, generated = arms()
    real[:, :3] = generated[:, :3] = 0.0
    real[:100, 0] = 1.0
    real[100:130, 1] = generated[100:130, 1] = 1.0
    generated[:100, 1] = 1.0
    generated[:, 2] = 1.0
    return sp.csr_array(real), sp.csr_array(generated)


def test_what_was_drawn_instead():
    real, generated = replaced_world()
    found = substitutions.find_substitutions(
        real, generated, np.array([0, 1]), np.array([-1, 1]), 0.05
    )
    first = found[0]
    # In 100 pairs concept 1 appears, in none of the others; what rises everywhere is no answer.
    assert (first.concept, first.instead, first.n) == (0, 1, 100)
    assert first.lift == pytest.approx(1.0)
    # Variances of at least 1 / 101: none is certain.
    assert first.z == pytest.approx(1 / np.sqrt(2 / 101 / 100))
    assert first.q < 1e-10
    assert 2 not in {each.instead for each in found}
    # From the other side: concept 1 takes the place of concept 0.
    back = [each for each in found if each.concept == 1]
    assert (back[0].instead, back[0].n, back[0].lift) == (0, 100, pytest.approx(1.0))


def test_lift_is_beyond_all_other_pairs_by_hand():
    """Concept 0 is missing in 10 of 20 pairs; 1 appears in 6 of these and in 2 of the others."""
    real, generated = np.zeros((20, 2)), np.zeros((20, 2))
    real[:10, 0] = 1
    generated[[0, 1, 2, 3, 4, 5, 10, 11], 1] = 1
    (found,) = substitutions.find_substitutions(
        sp.csr_array(real), sp.csr_array(generated), np.array([0]), np.array([-1]), 0.05
    )
    assert found.lift == pytest.approx(0.6 - 0.2)
    se = np.sqrt(0.6 * 0.4 / 10 + 0.2 * 0.8 / 10)
    assert found.z == pytest.approx(0.4 / se)


def test_nothing_is_drawn_instead_by_chance_or_of_few():
    real, generated = arms(seed=1)
    sparse = sp.csr_array(real), sp.csr_array(generated)
    found = substitutions.find_substitutions(
        *sparse, np.arange(12), np.repeat([-1, 1], 6), fdr=0.01
    )
    assert len(found) <= 1
    few = np.zeros((50, 2)), np.zeros((50, 2))
    few[0][:4, 0] = few[1][:4, 1] = 1.0  # four pairs
    codes = sp.csr_array(few[0]), sp.csr_array(few[1])
    assert substitutions.find_substitutions(*codes, np.array([0]), np.array([-1]), 0.05) == []


def called_of(real, generated, concepts):
    totals = real.sum(axis=0), generated.sum(axis=0)
    log_ratio = np.log((totals[1] + 0.5) / (totals[0] + 0.5))[concepts]
    verdict = np.where(log_ratio < 0, "suppressed", "exaggerated")
    return Called(
        np.array(concepts), verdict, log_ratio, 1 / np.sqrt(totals[0] + totals[1])[concepts]
    )


def gap_world():
    """0 is never drawn; 1 goes with it and changes only there; 2 has its own gap; 3 is more."""
    real, generated = np.zeros((400, 4)), np.zeros((400, 4))
    real[:120, 0] = 1
    real[:60, 1] = 1
    real[200:204, 1] = generated[200:204, 1] = 1  # unchanged where 0 is not
    real[80:180, 2] = 1  # 40 of its 100 pairs show 0 too
    generated[:90, 3] = 1
    return real, generated


def test_concepts_of_one_change_are_one_finding():
    real, generated = gap_world()
    codes = sp.csr_array(real), sp.csr_array(generated)
    called = called_of(real, generated, [0, 1, 2, 3])
    found = findings.find(*codes, called, margin=1.5, level=1e-3)
    assert [each.concepts for each in found] == [(0, 1), (2,), (3,)]
    assert [each.verdict for each in found] == ["suppressed", "suppressed", "exaggerated"]
    # 120 and 64 images of energy 1 against 0 and 4, each in units of its mean: 1.
    energy, other, half = 184, 4, 0.5 * 188 / (120 + 4 + 4)
    assert found[0].log_ratio == pytest.approx(np.log((other + half) / (energy + half)))
    assert found[0].low < found[0].log_ratio < found[0].high < 0
    assert found[1].low == -np.inf
    assert findings.find(*codes, called_of(real, generated, []), 1.5, 1e-3) == []


def test_a_change_that_stands_without_the_first_is_its_own():
    real, generated = gap_world()
    real[300:330, 1] = 1  # thirty pairs without concept 0: (1 / 1.5)^... is far below the level
    codes = sp.csr_array(real), sp.csr_array(generated)
    found = findings.find(*codes, called_of(real, generated, [0, 1]), margin=1.5, level=1e-3)
    assert [each.concepts for each in found] == [(0,), (1,)]
    apart = significance.material(
        sp.csc_array(real[120:, [1]]), sp.csc_array(generated[120:, [1]]), 1.5
    )
    strict = findings.find(
        *codes, called_of(real, generated, [0, 1]), margin=1.5, level=float(apart[0]) / 2
    )
    assert [each.concepts for each in strict] == [(0, 1)]


def test_a_concept_that_hardly_fires_with_the_first_is_its_own():
    real, generated = gap_world()
    real[:60, 1] = 0
    real[100:112, 1] = 1  # twelve with concept 0
    for n_apart, expected in ((20, [(0, 1)]), (40, [(0,), (1,)])):
        real[200:240, 1] = generated[200:240, 1] = 0
        real[200 : 200 + n_apart, 1] = generated[200 : 200 + n_apart, 1] = 1
        codes = sp.csr_array(real), sp.csr_array(generated)
        called = called_of(real, generated, [0, 1])
        assert [each.concepts for each in findings.find(*codes, called, 1.5, 1e-3)] == expected


def test_cannot_draw_is_told_from_was_not_told():
    """Concept 0 is asked for and never drawn; 1 is drawn when asked for, and else left out."""
    n = 240
    real, generated = np.zeros((n, 2)), np.zeros((n, 2))
    captions = [f"scene {row}" for row in range(n)]
    for row in range(80):
        real[row, 0] = 1
        captions[row] = f"a crown number {row}"
    for row in range(80, 160):
        real[row, 1] = 1
        if row < 120:
            generated[row, 1] = 1
            captions[row] = f"a boat number {row}"
    got = asked.ratios_where_asked(
        sp.csr_array(real), sp.csr_array(generated), captions, np.array([0, 1])
    )
    assert got.n.tolist() == [80, 40]
    assert got.high[0] < -3 and got.low[0] == -np.inf
    assert got.log_ratio[1] == 0 and got.low[1] <= 0 <= got.high[1]


def test_words_that_say_nothing_do_not_ask():
    rng = np.random.default_rng(0)
    real = sp.csr_array((rng.random((200, 1)) < 0.5).astype(float))
    captions = [" ".join(rng.choice(["cat", "dog", "house", "tree"], 3)) for _ in range(200)]
    got = asked.ratios_where_asked(real, real, captions, np.array([0]))
    assert (got.n.tolist(), np.isnan(got.log_ratio).tolist()) == ([0], [True])
