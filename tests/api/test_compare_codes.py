"""Image codes of any SAE, from whatever holds them."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import bsjax
from bsjax.core.errors import UserError
from bsjax.results.columns import COMPARED_CONCEPTS, DATAPOINTS
from bsjax.stats import comparison

N, K = 60, 7


def arms(n=N):
    rng = np.random.default_rng(0)
    real = rng.gamma(2, 1, (n, K)) * (rng.random((n, K)) < 0.6)
    generated = rng.gamma(2, 1, (n, K)) * (rng.random((n, K)) < 0.6)
    generated[:, 3] *= 0.02
    return real.astype(np.float32), generated.astype(np.float32)


def columns(result):
    table = result.concepts
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_the_statistics_are_those_of_the_stage():
    real, generated = arms()
    result = bsjax.compare_codes(real, generated, fdr=0.01)
    expected = comparison.compare_codes(
        sp.csr_array(real), sp.csr_array(generated), comparison.Rules(fdr=0.01)
    )
    found = columns(result)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert result.concepts.schema.names == [column.name for column in COMPARED_CONCEPTS]
    assert result.pairs.schema.names == [column.name for column in DATAPOINTS]
    assert found["verdict"][3] == "suppressed"
    assert set(found["fires_real"]) == {None}
    assert (result.real, result.generated) == (None, None)


@pytest.mark.parametrize(
    "convert",
    [
        sp.csr_array,
        sp.coo_matrix,
        sp.csc_array,
        torch.from_numpy,
        lambda codes: torch.from_numpy(codes).to(torch.float64),
        lambda codes: codes.astype(np.float64),
        lambda codes: codes.tolist(),
    ],
)
def test_whatever_holds_the_codes(convert):
    real, generated = arms()
    expected = columns(bsjax.compare_codes(real, generated))
    found = columns(bsjax.compare_codes(convert(real), convert(generated)))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_entries_of_a_sparse_matrix_that_come_twice_are_added_and_the_matrix_stays_as_it_is():
    values = np.array([1.0, 2.0, 4.0])
    twice = sp.csr_array((values, np.array([2, 2, 0]), np.array([0, 2, 3])), shape=(2, 3))
    result = bsjax.compare_codes(twice, sp.csr_array((2, 3)))
    assert result.concepts["energy_real"].to_pylist() == [2.0, 0.0, 1.5]  # of two rows
    assert twice.nnz == 3


def test_captions_stand_in_the_pairs_and_make_words():
    real, generated = arms()
    real[5] = generated[5]
    captions = ["a crown on a table" if row % 3 == 0 else "a boat at sea" for row in range(N)]
    real[::3, 0] += 5
    result = bsjax.compare_codes(real, generated, captions=captions)
    first = result.pairs.slice(0, 1).to_pylist()[0]
    assert (first["row_real"], first["row_generated"], first["key"]) == (5, 5, "5")
    assert first["caption"] == captions[5]
    assert first["cosine"] == pytest.approx(1)
    assert set(result.concepts["words"].to_pylist()[0].split(", ")) == {"crown", "table"}
    assert not any(bsjax.compare_codes(real, generated).concepts["words"].to_pylist())


def test_clusters_count_once():
    """Three pairs of one caption and one of another: the means of two clusters, by hand."""
    real = np.array([[1.0, 0], [2, 0], [6, 3], [5, 1]])
    generated = np.array([[0.0, 3], [3, 0], [0, 0], [7, 2]])
    result = bsjax.compare_codes(real, generated, clusters=["x", "x", "x", "y"])
    assert result.concepts["energy_real"].to_pylist() == [(3 + 5) / 2, (1 + 1) / 2]
    assert result.concepts["energy_generated"].to_pylist() == [(1 + 7) / 2, (1 + 2) / 2]
    assert result.counts["pairs"] == 2
    assert result.pairs.num_rows == 4
    # Each pair five times, told so: the same as once. Not told, they seem five times as many.
    real, generated = arms(20)
    once = columns(bsjax.compare_codes(real, generated))
    repeated = [np.repeat(codes, 5, axis=0) for codes in (real, generated)]
    told = columns(bsjax.compare_codes(*repeated, clusters=np.repeat(np.arange(20), 5)))
    for name in ("energy_real", "standard_error", "p", "delta", "interval_low"):
        np.testing.assert_allclose(told[name], once[name], rtol=1e-5)
    not_told = columns(bsjax.compare_codes(*repeated))
    assert (not_told["p"] < once["p"]).all()


ONES = np.ones((3, 3))
TOKENS = np.ones((2, 3, 4))
NAN, NEGATIVE = sp.csr_array([[np.nan, 1, 0]] * 3), -sp.eye_array(3)
MISTAKES = {
    "one row": (np.ones(4), np.ones(4), {}, r"real has the shape \[4\]; expected \[n, K\]"),
    "tokens": (TOKENS, TOKENS, {}, "sum the codes of an image's tokens"),
    "shapes": (ONES, ONES[:, :2], {}, r"real is \[3, 3\], generated \[3, 2\]"),
    "rows": (ONES, ONES[:2], {}, r"real is \[3, 3\], generated \[2, 3\]"),
    "NaN": (ONES, ONES * np.nan, {}, "generated has 9 codes that are not finite"),
    "infinity": (ONES * np.inf, ONES, {}, "real has 9 codes that are not finite"),
    "negative": (ONES, -ONES, {}, "generated has negative codes, such as -1"),
    "sparse NaN": (NAN, ONES, {}, "real has 3 codes that are not finite"),
    "sparse negative": (ONES, NEGATIVE, {}, "generated has negative codes"),
    "text": (np.full((3, 3), "a"), ONES, {}, "real is an array of <U1; expected real numbers"),
    "complex": (ONES, ONES * 1j, {}, "generated is an array of complex128"),
    "ragged": ([[1, 2], [3]], ONES, {}, "real is no array of numbers"),
    "gradients": (torch.ones((3, 3), requires_grad=True), ONES, {}, "real is no array of numbers"),
    "nothing": (None, ONES, {}, "real is an array of object"),
    "one pair": (ONES[:1], ONES[:1], {}, "1 pair: expected at least 2"),
    "no pair": (ONES[:0], ONES[:0], {}, "0 pair: expected at least 2"),
    "one cluster": (ONES, ONES, {"clusters": "aaa"}, "1 cluster of pairs: expected at least 2"),
    "captions": (ONES, ONES, {"captions": ["a"]}, "captions has 1 entries, expected one for each"),
    "clusters": (ONES, ONES, {"clusters": [1] * 4}, "clusters has 4 entries"),
    "rule": (ONES, ONES, {"margin": 2}, "margin=2: no such rule; expected one of form"),
    "form": (ONES, ONES, {"form": "log"}, "form='log': expected one of relative, difference"),
    "fdr": (ONES, ONES, {"fdr": 0.0}, "fdr=0.0: expected a number above 0"),
    "seed": (ONES, ONES, {"seed": -1}, "seed=-1: expected a whole number"),
    "order": (
        ONES, ONES, {"suppressed": 0.9, "exaggerated": 0.9},
        "suppressed=0.9: expected less than exaggerated=0.9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name):
    real, generated, more, expected = MISTAKES[name]
    with pytest.raises(UserError, match=expected) as error:
        bsjax.compare_codes(real, generated, **more)
    text = str(error.value)
    assert "\n" not in text and "--" not in text and "{" not in text


def test_codes_alone_are_saved_without_images(tmp_path):
    result = bsjax.compare_codes(*arms())
    result.save(tmp_path)
    results = bsjax.open_results(tmp_path)
    assert (results.measured, results.compared) == ((), ("generated",))
    with pytest.raises(UserError, match="compare measured sets, not codes alone"):
        result.report(tmp_path)
    with pytest.raises(UserError, match="needs fires"):
        result.plot("rarity")
