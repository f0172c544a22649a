"""A concept is called where the model goes beyond what a change of the images alone does."""

import numpy as np
import pytest
import scipy.sparse as sp

from bsjax.stats import control_shifts
from bsjax.stats.comparison import Rules, compare_codes
from bsjax.stats.control_shifts import Against, Changed, Shift
from bsjax.stats.ratios import Ratios

N = 40


def column(n_firing, start=0):
    values = np.zeros(N)
    values[start : start + n_firing] = 1.0
    return values


def codes(*columns):
    return sp.csr_array(np.stack(columns, axis=1))


def changed(*columns, is_known=None):
    return Changed(codes(*columns), np.ones(N, bool) if is_known is None else is_known)


# A: the model alone loses it. B: so does the control. C: the control loses it, the model half.
REAL = codes(column(30), column(30), column(30))
GENERATED = codes(column(0), column(0), column(6))
CONTROL = changed(column(30), column(0), column(0))


def test_by_hand():
    alone = compare_codes(REAL, GENERATED, Rules())
    held = compare_codes(REAL, GENERATED, Rules(), changed={"jpeg": CONTROL})
    assert alone.columns["verdict"].tolist() == ["suppressed"] * 3
    assert held.columns["verdict"].tolist() == ["suppressed", "undecided", "undecided"]
    np.testing.assert_allclose(alone.columns["p_material"][:2], 0.6**30, rtol=1e-6)
    p = held.shifts["jpeg"].tests.p_material
    np.testing.assert_allclose(p, [0.6**30, 1, 1], rtol=1e-6)  # C differs to the other side
    np.testing.assert_allclose(held.shifts["jpeg"].tests.p_direction, [2 / 2**30, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(held.columns["p_material"], p)
    # Half an average image on either side: B's control is (0 + 1/2) / (30 + 1/2).
    np.testing.assert_allclose(
        held.shifts["jpeg"].ratios.log_ratio, [0, np.log(1 / 61), np.log(1 / 61)]
    )
    assert (held.shifts["jpeg"].taken, held.taken, held.shifts["jpeg"].pairs) == (2, 2, N)
    assert (alone.taken, alone.shifts) == (0, {})


def test_every_control_counts_and_takes_its_own():
    mild = changed(column(30), column(30), column(0))
    held = compare_codes(REAL, GENERATED, Rules(), changed={"jpeg": CONTROL, "crop": mild})
    assert held.columns["verdict"].tolist() == ["suppressed", "undecided", "undecided"]
    assert {name: shift.taken for name, shift in held.shifts.items()} == {"jpeg": 2, "crop": 1}
    assert held.taken == 2
    harmless = {"crop": Changed(REAL, np.ones(N, bool))}
    same = compare_codes(REAL, GENERATED, Rules(), changed=harmless)
    for name, values in compare_codes(REAL, GENERATED, Rules()).columns.items():
        np.testing.assert_array_equal(same.columns[name], values, err_msg=name)


def test_the_margin_is_of_the_control_too():
    # Real 40, control 20, generated 5: 8-fold of the real images, 4-fold of the control.
    real, generated = codes(column(40)), codes(column(5))
    control = {"vae": changed(column(20, 20))}
    for margin, verdicts in ((1.2, ("suppressed", "suppressed")), (3.5, ("suppressed", "less"))):
        rules = Rules(margin=margin, aligned=100)
        alone = compare_codes(real, generated, rules)
        held = compare_codes(real, generated, rules, changed=control)
        told = alone.columns["verdict"][0], held.columns["verdict"][0]
        assert told == verdicts, margin


def test_pairs_without_a_changed_image_do_not_count():
    known = np.arange(N) >= 4
    real, generated = codes(column(9), column(30)), codes(column(40), column(8, 30))
    codes_of_all = codes(column(9), column(30)).toarray() * known[:, None]
    held = compare_codes(
        real, generated, Rules(), changed={"jpeg": Changed(sp.csr_array(codes_of_all), known)}
    )
    rows = np.flatnonzero(known)
    few = compare_codes(
        sp.csr_array(real[rows]), sp.csr_array(generated[rows]), Rules(),
        changed={"jpeg": Changed(sp.csr_array(real[rows]), known[rows])},
    )  # fmt: skip
    # Five changed images against the 36 generated ones of these pairs, not against all 40.
    for mine, theirs in zip(held.shifts["jpeg"].tests, few.shifts["jpeg"].tests, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(held.shifts["jpeg"].ratios, few.shifts["jpeg"].ratios, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert held.shifts["jpeg"].pairs == N - 4


def test_ratios_average_clusters_as_all_others_do():
    labels = np.arange(N) // 2
    held = compare_codes(REAL, GENERATED, Rules(), labels=labels, changed={"jpeg": CONTROL})
    # 15 clusters of two images: (0 + 1/2) / (15 + 1/2).
    np.testing.assert_allclose(held.shifts["jpeg"].ratios.log_ratio[1], np.log(1 / 31))
    assert held.columns["verdict"].tolist()[0] == "suppressed"
    part = compare_codes(REAL, GENERATED, Rules(confirm=0.5), changed={"jpeg": CONTROL})
    n = part.columns["n_real"][1]
    np.testing.assert_allclose(part.shifts["jpeg"].ratios.log_ratio[1], np.log(0.5 / (n + 0.5)))
    assert np.isnan(part.columns["q_material"]).sum() == 2  # B and C are not even suggested


def test_a_control_without_any_image_establishes_nothing():
    nothing = changed(*[column(0)] * 3, is_known=np.zeros(N, bool))
    held = compare_codes(REAL, GENERATED, Rules(), changed={"jpeg": nothing})
    assert np.isnan(held.shifts["jpeg"].ratios.log_ratio).all()
    assert (held.shifts["jpeg"].tests.p_material == 1).all()
    assert held.columns["verdict"].tolist() == ["undecided"] * 3


def shift(log_ratio):
    values = np.array(log_ratio)
    return Shift(Ratios(values, values, values, values), Against(values, values), N, 0)


def test_the_control_that_goes_furthest_to_the_same_side_is_told():
    nan = np.nan
    shifts = {"jpeg": shift([-0.1, 0.2, nan, nan, 0.3]), "vae": shift([-0.4, -0.9, 0.5, nan, 0.1])}
    log_ratio = np.array([-1.0, 1.0, -1.0, 1.0, nan])
    found, names = control_shifts.largest(log_ratio, shifts)
    np.testing.assert_array_equal(found, [-0.4, 0.2, 0.5, nan, 0.3])
    assert names.tolist() == ["vae", "jpeg", "vae", "", "jpeg"]


@pytest.fixture(scope="module")
def world():
    """A control leaves a quarter of each of 300 concepts, and so does the model.

    Of the last 60 of these the model leaves a tenth of that quarter.
    """
    rng = np.random.default_rng(0)
    n, n_concepts, n_lost, n_more = 1500, 900, 300, 60
    shows = rng.random((n, n_concepts)) < 0.15
    kept = np.where(np.arange(n_concepts) < n_lost, 0.25, 1.0)
    beyond = np.where((np.arange(n_concepts) < n_lost) & (np.arange(n_concepts) >= n_lost - n_more),
                      0.1, 1.0)  # fmt: skip
    energy = rng.gamma(2, 1, (n, n_concepts))
    real = shows * energy
    control = real * (rng.random((n, n_concepts)) < kept)
    redrawn = (rng.random((n, n_concepts)) < 0.15 * kept * beyond) * rng.gamma(
        2, 1, (n, n_concepts)
    )
    return *map(sp.csr_array, (real, redrawn)), Changed(sp.csr_array(control), np.ones(n, bool))


def test_what_the_control_does_is_not_called_and_what_goes_beyond_is(world):
    real, generated, control = world
    alone = compare_codes(real, generated, Rules()).columns["verdict"]
    held = compare_codes(real, generated, Rules(), changed={"vae": control})
    verdict = held.columns["verdict"]
    assert (alone[:240] == "suppressed").mean() > 0.9  # planted by the control alone
    assert (verdict[:240] == "suppressed").sum() <= 3
    assert (verdict[:240] == "exaggerated").sum() == 0
    assert (verdict[240:300] == "suppressed").mean() > 0.9  # beyond it
    assert np.isin(verdict[300:], ("suppressed", "exaggerated")).sum() == 0
    assert held.taken == held.shifts["vae"].taken >= 216
    names = control_shifts.largest(held.columns["log_ratio"], held.shifts)
    np.testing.assert_allclose(np.median(names[0][:300]), np.log(0.25), atol=0.1)
