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
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert result.concepts.schema.names == [column.name for column in COMPARED_CONCEPTS]
    assert result.pairs.schema.names == [column.name for column in DATAPOINTS]
    assert found["verdict"][3] == "suppressed"
    for name in ("fires_real", "fires_pairs_generated"):
        assert set(found[name]) == {None}
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
    told = ("a boat at sea", "a crown on a table")
    captions = [
        f"{told[row % 3 == 0]} {chr(97 + row // 26)}{chr(97 + row % 26)}" for row in range(N)
    ]
    real[::3, 0] += 5
    generated[::3, 0] += 5
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
    # The paper's numbers are of all pairs; the estimate is ln((1 + 7 + e/2) / (3 + 5 + e/2)).
    assert result.concepts["energy_real"].to_pylist() == [14 / 4, 4 / 4]
    assert result.concepts["log_ratio"].to_pylist()[0] == pytest.approx(0.0)
    e = (1 + 1 + 1 + 2) / 4
    expected = np.log((1 + 2 + e / 2) / (1 + 1 + e / 2))
    assert result.concepts["log_ratio"].to_pylist()[1] == pytest.approx(expected)
    assert (result.counts["pairs"], result.counts["clusters"]) == (4, 2)
    assert result.pairs.num_rows == 4


SAME = ("log_ratio", "se", "p_material", "p_direction", "q_aligned")


@pytest.mark.parametrize("how", ["labels", "captions", "images"])
def test_what_comes_five_times_is_found_and_counts_once(how):
    rng = np.random.default_rng(1)
    real = rng.gamma(2, 1, (40, 60)) * (rng.random((40, 60)) < 0.4)
    generated = rng.gamma(2, 1, (40, 60)) * (rng.random((40, 60)) < 0.3)
    once = columns(bsjax.compare_codes(real, generated))
    five = np.repeat(np.arange(40), 5)
    repeated = real[five], generated[five]
    if how == "images":
        result = bsjax.compare_codes(*repeated)
    elif how == "captions":
        told = [f"caption {row}" for row in five]
        result = bsjax.compare_codes(*repeated, captions=told, clusters="caption")
    else:
        result = bsjax.compare_codes(*repeated, clusters=five)
    assert (result.counts["pairs"], result.counts["clusters"]) == (200, 40)
    found = columns(result)
    for name in SAME:
        np.testing.assert_allclose(found[name], once[name], rtol=1e-6, err_msg=name)
    # Taken as rows they seem five times as many, and the control says so.
    as_rows = bsjax.compare_codes(*repeated, clusters="none")
    assert (columns(as_rows)["p_direction"] < once["p_direction"]).mean() > 0.9
    assert not as_rows.control["is_sound"]
    assert "the control fails" in as_rows.notes[0]
    assert result.control["is_sound"] and not result.notes


def test_all_of_one_caption_is_refused_with_a_way_out():
    real, generated = arms()
    with pytest.raises(
        UserError, match=r"all 60 pairs are of one caption .* clusters=none"
    ) as told:
        bsjax.compare_codes(real, generated, captions=["a photo"] * N)
    assert told.value.fields == ("clusters",)
    result = bsjax.compare_codes(real, generated, captions=["a photo"] * N, clusters="none")
    assert result.counts["clusters"] == N


def test_rules_change_what_they_say():
    real, generated = arms()
    wide = bsjax.compare_codes(real, generated, margin=3)
    assert columns(wide)["verdict"][3] in ("less", "suppressed")
    assert (
        columns(wide)["p_material"] >= columns(bsjax.compare_codes(real, generated))["p_material"]
    ).all()
    narrow = bsjax.compare_codes(real, generated, aligned=1.01)
    assert narrow.counts["aligned"] == 0 < bsjax.compare_codes(real, generated).counts["aligned"]
    half = bsjax.compare_codes(real, generated, confirm=0.5, seed=1)
    assert half.counts["clusters"] == N // 2
    assert half.manifest["config"]["compare.confirm"] == 0.5


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
    "one cluster": (ONES, ONES, {"clusters": [7] * 3}, "all 3 pairs are of one given label"),
    "no such clusters": (ONES, ONES, {"clusters": "key"}, "clusters='key': expected one of auto"),
    "captions": (ONES, ONES, {"captions": ["a"]}, "captions has 1 entries, expected one for each"),
    "clusters": (ONES, ONES, {"clusters": [1] * 4}, "clusters has 4 entries"),
    "a cluster of none": (ONES, ONES, {"clusters": [1, None, 2]}, "clusters holds None at place 1"),
    "NaN clusters": (ONES, ONES, {"clusters": np.full(3, np.nan)}, "clusters holds nan at place 0"),
    "clusters of rows": (ONES, ONES, {"clusters": ONES}, "clusters holds array"),
    "clusters of lists": (ONES, ONES, {"clusters": [[1]] * 3}, r"clusters holds \[1\] at place 0"),
    "no concepts": (ONES[:, :0], ONES[:, :0], {}, "real has no concepts"),
    "no concepts, sparse": (sp.csr_array((3, 0)), ONES, {}, "real has no concepts"),
    "huge": (ONES, ONES * 1e200, {}, "generated has codes from 1e.200 to 1e.200; expected 1e-100"),
    "tiny": (ONES * 1e-200, ONES, {}, "real has codes from 1e-200 to 1e-200"),
    "rule": (ONES, ONES, {"suppressed": 2}, "suppressed=2: there is no such key any more"),
    "no rule": (ONES, ONES, {"level": 2}, "level=2: no such rule; expected one of form"),
    "margin": (ONES, ONES, {"margin": 1.0}, "margin=1.0: expected a number above 1"),
    "confirm": (ONES, ONES, {"confirm": 1.0}, "confirm=1.0: expected a number from 0 to 0.9"),
    "few to confirm": (
        np.eye(3), np.eye(3), {"confirm": 0.5, "clusters": "none"},
        r"confirm=0.5 splits 3 clusters of pairs; expected at least 4: add captions, or set confirm"
        " to 0",
    ),
    "form": (ONES, ONES, {"form": "log"}, "form='log': expected one of relative, difference"),
    "fdr": (ONES, ONES, {"fdr": 0.0}, "fdr=0.0: expected a number above 0"),
    "seed": (ONES, ONES, {"seed": -1}, "seed=-1: expected a whole number"),
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
