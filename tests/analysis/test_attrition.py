"""Who is missing from a comparison: by arm and reason, with captions, told on card and findings."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from bsjax.analysis.attrition import account, account_again, audit
from bsjax.analysis.comparison import Method, compare_again, compare_sets
from bsjax.data.captions import pair_keys
from bsjax.data.pairing import LOT, Named, draw_pairs
from bsjax.report import said
from bsjax.report.card import missing_images
from bsjax.results.columns import FINDINGS, make_table
from bsjax.results.ingested import Lost
from bsjax.results.measures import Measured
from bsjax.stats import verdicts

K = 3


def measured(keys, codes, caption="a cat {}"):
    table = {
        "row": np.arange(len(keys), dtype=np.int32), "key": list(keys),
        "caption": [caption.format(key) for key in keys], "path": [""] * len(keys),
    }  # fmt: skip
    concepts = pa.table({"fires": np.zeros(K, np.int64)})
    manifest = {"config_hash": "h", "notes": [], "config": {}}
    return Measured(
        manifest, pa.table(table), sp.csr_array(np.asarray(codes, float)), np.zeros((K, 1), int),
        parts={"concepts.parquet": concepts},
    )  # fmt: skip


@pytest.fixture
def arms():
    """Six captions; of 4 the generated image is missing, of 5 the real one."""
    rng = np.random.default_rng(0)
    real = rng.random((5, K)) + 0.1  # all show all
    generated = rng.random((5, K)) + 0.1
    generated[:, 1] = 0
    return (
        measured([f"{i}" for i in range(5)], real),
        measured([*"0123", "5"], generated, "a dog {}"),
    )


def findings(*rows):
    empty = {c.name: [None] * len(rows) for c in FINDINGS}
    told = {name: [row[i] for row in rows] for i, name in enumerate(("concepts", "verdict"))}
    return make_table(FINDINGS, empty | {"finding": range(1, len(rows) + 1)} | told)


def in_either(reasons):
    """Images that could not be used, whichever arm they are of."""
    return {"real": reasons, "generated": reasons}


def test_each_missing_image_is_a_row_with_its_arm_caption_and_reason(arms):
    pairing = pair_keys(arms[0].keys, arms[1].keys)
    reasons = {"4": "blacked out", "9": "truncated", "0": "of another set"}
    table, told, _ = audit(
        *arms, pairing, findings(([1, 2], verdicts.SUPPRESSED)), 1.5, in_either(reasons),
        [Lost("000000007", "a nude", "opted_out")],
    )  # fmt: skip
    assert table.to_pylist() == [
        {"key": "4", "caption": "a cat 4", "missing": "generated", "reason": "blacked out"},
        {"key": "5", "caption": "a dog 5", "missing": "real", "reason": ""},
        {"key": "9", "caption": "", "missing": "both", "reason": "truncated"},
        {"key": "000000007", "caption": "a nude", "missing": "both", "reason": "opted_out"},
    ]
    assert [told[arm] for arm in ("real", "generated", "both")] == [1, 1, 2]
    assert told["reasons"] == {"blacked out": 1, "not known": 1, "truncated": 1, "opted_out": 1}
    # Concept 1: in all 5 real and in no generated image; 3 generated ones are not known.
    (bound,) = told["findings"]
    assert bound["finding"] == 1 and bound["low"] is None  # no image shows it: -inf
    assert bound["high"] == pytest.approx(np.log(3 / 5)) and bound["share"] == "none"


def test_shares_are_of_the_arm_that_could_change_the_finding(arms):
    pairing = pair_keys(arms[0].keys, arms[1].keys)
    before = [Lost(f"{i}", "x", "dead") for i in range(20)]
    found = findings(([1], verdicts.SUPPRESSED), ([0], verdicts.EXAGGERATED))
    _, told, _ = audit(*arms, pairing, found, 1.5, in_either({}), before)
    suppressed, exaggerated = told["findings"]
    assert suppressed["share"] == pytest.approx(5 / 1.5 / 21) and exaggerated["share"] == 0
    text = said.missing(verdicts.SUPPRESSED, suppressed, told)
    assert "within the margin if 15.9" in text and "of the 21 missing generated images" in text
    assert said.missing(verdicts.EXAGGERATED, exaggerated, told).startswith("By the number of")
    assert said.missing(verdicts.SUPPRESSED, None, told) == ""
    holds = suppressed | {"share": "none"}
    assert "holds whatever the 21 missing generated" in said.missing(
        verdicts.SUPPRESSED, holds, told
    )
    assert said.missing(verdicts.SUPPRESSED, suppressed | {"share": None}, told) == ""


def test_a_comparison_carries_it_and_the_card_tells_it(arms):
    real, generated = arms
    drawn = {"bad_images": [{"key": "4", "reason": "blacked out"}]}
    pairing = pair_keys(real.keys, generated.keys)
    compared = account(compare_sets(real, generated, Method()), pairing, 1.5, drawn=drawn)
    told = compared.manifest["attrition"]
    assert compared.attrition.num_rows == 2 and told["both"] == 0
    card = missing_images(told)
    assert card["missing images"] == "1 real, 1 generated (1 blacked out, 1 not known)"
    assert card["their captions"].startswith("no word stands out")
    words = [{"word": "nude", "share_missing": 0.5, "share_kept": 0.012, "q": 0.01}]
    assert missing_images(told | {"words": words})["their captions"] == (
        "have more often: nude (50 % of them, 1.2 % of the others)"
    )


def test_nothing_missing_is_nothing_told(arms):
    real, _ = arms
    compared = account(compare_sets(real, real, Method()), pair_keys(real.keys, real.keys), 1.5)
    assert compared.attrition is None and missing_images(compared.manifest["attrition"]) == {}
    assert missing_images(None) == {}


def test_of_pairs_by_lot_an_image_is_missing_from_its_own_arm(arms):
    """Shares are of what was asked of either arm: 7 real images, 4 generated ones."""
    real, generated = arms
    generated = measured(generated.keys[:3], generated.codes.toarray()[:3])
    pairing = draw_pairs(Named(real.keys), Named(generated.keys), (np.arange(5), np.arange(3)), 0)
    bad = {"real": {"9": "truncated"}, "generated": {"9": "blacked out", "0": "of another arm"}}
    found = findings(([1], verdicts.SUPPRESSED), ([0], verdicts.EXAGGERATED))
    table, told, shows = audit(
        real, generated, pairing, found, 1.5, bad, [Lost("7", "a nude", "dead")]
    )
    assert table.to_pylist() == [
        {"key": "9", "caption": "", "missing": "generated", "reason": "blacked out"},
        {"key": "9", "caption": "", "missing": "real", "reason": "truncated"},
        {"key": "7", "caption": "a nude", "missing": "real", "reason": "dead"},
    ]
    assert (told["real"], told["generated"], told["both"], told["captions"]) == (2, 1, 0, 1)
    suppressed, exaggerated = told["findings"]
    assert suppressed["high"] == pytest.approx(np.log((1 / 4) / (5 / 7)))
    assert suppressed["share"] == "none"  # 5 / 7 / 1.5 - 1 / 4 > 0
    assert exaggerated["low"] == pytest.approx(np.log((3 / 4) / (7 / 7)))
    assert exaggerated["high"] == pytest.approx(np.log((4 / 4) / (5 / 7)))
    again = account_again(told, shows, found, 1.5)["attrition"]
    assert again["findings"] == told["findings"]


def test_captions_that_nobody_knows_are_no_proof_of_likeness(arms):
    real, _ = arms
    bad = {"real": {"9": "truncated"}, "generated": {}}
    by_lot = pair_keys(real.keys, real.keys)._replace(by=LOT)
    _, told, _ = audit(real, real, by_lot, findings(), 1.5, bad, [])
    assert missing_images(told)["their captions"] == "are not known"


@pytest.fixture
def sampled():
    """Three and two images of a caption, one of them bad; none of owl; a bad real one; one gone."""
    real = measured(["cat", "dog", "owl"], [[1, 1, 1], [1, 1, 1], [0, 1, 1]])
    real.manifest["bad_images"] = [{"key": "emu", "reason": "truncated"}]
    made = ["cat_0", "cat_1", "dog_0", "dog_1", "emu_0", "emu_1", "fox_0", "fox_1"]
    shows = [[i not in (1, 3, 6, 7), 1, 1] for i in range(8)]
    generated = measured(made, shows, "a drawn {}")
    generated.manifest["bad_images"] = [{"key": "cat_2", "reason": "blacked out"}]
    return real, generated


def with_findings(compared):
    return dataclasses.replace(compared, findings=findings(([0], verdicts.SUPPRESSED)))


def test_images_of_one_caption_weigh_as_one(sampled):
    pairing = pair_keys(sampled[0].keys, sampled[1].keys)
    compared = with_findings(compare_sets(*sampled, Method()))
    compared = account(compared, pairing, 1.5)
    assert compared.attrition.to_pylist() == [
        {"key": "cat_2", "caption": "a cat cat", "missing": "generated", "reason": "blacked out"},
        {"key": "owl", "caption": "a cat owl", "missing": "generated", "reason": ""},
        {"key": "emu", "caption": "a drawn emu_0", "missing": "real", "reason": "truncated"},
        {"key": "fox", "caption": "a drawn fox_0", "missing": "real", "reason": ""},
    ]
    told = compared.manifest["attrition"]
    assert [told[arm] for arm in ("real", "generated", "both")] == [2, 2, 0]
    # Concept 0: cat_0 of three, dog_0 of two, both of emu; a third of cat and owl are not known.
    known, unknown = 1 / 3 + 1 / 2 + 1, 1 / 3 + 1
    (bound,) = told["findings"]
    assert bound["low"] == pytest.approx(np.log(known / (2 + 2)))
    assert bound["high"] == pytest.approx(np.log((known + unknown) / 2))


def test_a_comparison_made_again_keeps_the_account(sampled):
    pairing = pair_keys(sampled[0].keys, sampled[1].keys)
    compared = account(with_findings(compare_sets(*sampled, Method())), pairing, 1.5)
    stored = compared.statistics, compared.pairs, compared.manifest
    told = compared.manifest["attrition"]
    again = compare_again("generated", *stored, Method()).manifest["attrition"]
    assert again == told | {"findings": []}  # two captions are no finding
    assert account_again(told, stored[0].shows, compared.findings, 1.5)["attrition"] == told
    other = account_again(told, stored[0].shows, compared.findings, 1.01)["attrition"]
    assert other["findings"][0]["share"] > told["findings"][0]["share"]
    assert account_again(told, None, compared.findings, 1.5)["attrition"]["findings"] == []
    assert account_again(None, None, compared.findings, 1.5) == {}


def test_what_a_limit_leaves_out_is_not_missing(arms):
    real, generated = arms
    generated.manifest.update(experiment={"generated.limit": 5}, counts={"listed": 5})
    pairing = pair_keys(real.keys, generated.keys)
    table, told, _ = audit(*arms, pairing, findings(), 1.5, in_either({}), [])
    assert [told[arm] for arm in ("real", "generated", "both")] == [1, 0, 0]
    assert table["key"].to_pylist() == ["5"]
