"""Findings in words: each sentence by hand, and that it says no more than the numbers do."""

import csv
import math

import numpy as np
import pytest

from bsjax.report import said
from bsjax.stats import verdicts
from tests.report.artifacts import EVIL, RELIABILITY, SETTINGS, finding, substitution

INF = math.inf
LITTLE, MUCH = verdicts.SUPPRESSED, verdicts.EXAGGERATED


def logs(*folds):
    return [math.log(fold) for fold in folds]


def row(verdict, *folds, asked=None):
    """A finding by its ratio and the ends of it."""
    return finding(1, [0], verdict, *logs(*folds), asked=asked and (asked[0], *logs(*asked[1:])))


def test_at_least_is_the_nearer_end_rounded_down():
    assert (
        said.change(row(LITTLE, 1 / 4.1, 1 / 6.01, 1 / 2.69)) == "Drawn at least 2.6× too little."
    )
    assert said.change(row(MUCH, 8, 5, 12)) == "Drawn at least 5× too much."
    assert said.change(row(MUCH, 80, 54.9, 120)) == "Drawn at least 54× too much."
    assert said.at_least(row(LITTLE, 1 / 4, 1 / 8, 1 / 2)) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (row(LITTLE, 0.5, 0.1, 1.2), "Drawn too little; by how much is open."),
        (row(MUCH, 2, 0.9, 4), "Drawn too much; by how much is open."),
        (row(LITTLE, 1.1, 0.9, 1.3), "Drawn too little; by how much is open."),
    ],
)
def test_an_interval_with_no_change_inside_claims_no_fold(ratio, told):
    assert said.change(ratio) == told
    assert said.at_least(ratio) == 0


def test_intervals_are_rounded_outwards_and_told_in_the_direction_of_the_change():
    told = said.sure(row(LITTLE, 1 / 4.1, 1 / 6.01, 1 / 2.69))
    assert told == "Best estimate 4.1×, 95 % interval 2.6× to 6.1×."
    assert said.sure(row(MUCH, 27, 9.99, 120.2)) == (
        "Best estimate 27×, 95 % interval 9.9× to 121×."
    )
    assert said.sure(row(LITTLE, 0.5, 0.25, 1.25)) == (
        "Best estimate 2×, 95 % interval 0.8× to 4×."
    )


def test_an_open_end_is_told_as_what_was_seen():
    little = finding(1, [0], LITTLE, -3.0, -INF, math.log(1 / 2.69))
    assert said.sure(little) == "95 % interval from 2.6× on; no generated image shows it."
    much = finding(1, [0], MUCH, 3.0, math.log(4), INF)
    assert said.sure(much) == "95 % interval from 4× on; no real image shows it."


@pytest.mark.parametrize(
    ("verdict", "asked", "told"),
    [
        (LITTLE, None, "Not known: no word of the captions goes with it."),
        (LITTLE, (66, 1 / 6, 1 / 10, 1 / 3.59),
         "Yes, and there too at least 3.5× too little: in the 66 pairs whose caption asks for it."),
        (LITTLE, (27, 1.04, 0.92, 1.17),
         "Drawn when asked for: within 2-fold of the real images in the 27 pairs whose caption asks"
         " for it."),
        (LITTLE, (1, 0.8, 0.4, 1.6),
         "Open: 0.8× the real amount, 95 % interval 0.4× to 1.6×, in the 1 pair whose caption asks"
         " for it."),
        (LITTLE, (9, 3, 2.5, 4),
         "Yes, and there at least 2.5× too much: in the 9 pairs whose caption asks for it."),
        (MUCH, (9, 3, 2.5, 4),
         "Yes, and there too at least 2.5× too much: in the 9 pairs whose caption asks for it."),
        (MUCH, (9, 1.5, 1.1, 2),
         "Yes, and there too at least 1.1× too much: in the 9 pairs whose caption asks for it."),
        (MUCH, (53, 1.04, 0.51, 1.99),
         "Drawn right when asked for, added elsewhere: within 2-fold of the real images in the 53"
         " pairs whose caption asks for it."),
        (MUCH, (53, 1.04, 0.49, 1.9),
         "Open: 1× the real amount, 95 % interval 0.49× to 1.9×, in the 53 pairs whose caption"
         " asks for it."),
        (MUCH, (4, 1 / 3, 1 / 4, 1 / 2),
         "Yes, and there at least 2× too little: in the 4 pairs whose caption asks for it."),
    ],
)  # fmt: skip
def test_whether_it_was_asked_for(verdict, asked, told):
    assert said.asked(row(verdict, 3, 2, 4, asked=asked), SETTINGS) == told


def test_asked_without_an_upper_end():
    never = finding(1, [0], MUCH, 1.0, 0.5, 2.0, asked=(7, math.log(2), -0.1, INF))
    assert "2× the real amount, 95 % interval 0.9× to no limit" in said.asked(never, SETTINGS)


COLUMNS = {
    "prevalence_real": np.array([0.0972, 0.3, 0.0004, 0.0]),
    "prevalence_generated": np.array([0.0112, 0.6, 0.0005, math.nan]),
}


def told():
    found = [
        finding(1, [0, 3], LITTLE, -3.0, -5.0, -math.log(2), instead=[1, 2], words="purple"),
        finding(2, [1], MUCH, 1.8, math.log(5), 2.5, instead=[0]),
        finding(3, [2], LITTLE, -9.0, -INF, 0.5),
    ]
    replaced = [
        substitution(0, 2, 27, 0.2), substitution(3, 1, 5, 0.5), substitution(0, 1, 27, 0.99),
        substitution(1, 0, 11, 0.3), substitution(2, 1, 99, 0.1),
    ]  # fmt: skip
    return said.tell(found, replaced, COLUMNS, SETTINGS)


def test_what_changed_most_beyond_doubt_comes_first():
    """Not the largest estimate, which is the third's, nor the most evidence."""
    second, first, third = told()
    assert [each.finding for each in (second, first, third)] == [2, 1, 3]
    assert [each.at_least for each in told()] == pytest.approx([5, 2, 1])
    assert first.interval == (-5.0, -3.0, -math.log(2))


def test_what_was_drawn_instead_leads_to_its_finding():
    second, first, third = told()
    assert first.instead == [said.Instead(1, 2, 27, 0.99), said.Instead(2, 3, 27, 0.2)]
    assert second.instead == [said.Instead(0, 1, 11, 0.3)]
    assert third.instead == []


def test_in_how_many_images_by_the_concept_that_tells_it_best():
    second, first, third = (each.shown.replace(said.NBSP, " ") for each in told())
    assert first == (
        "Concept 0, which tells it best, is in 9.7 % of the real images and in 1.1 % of the"
        " generated ones."
    )
    assert second == "It is in 30.0 % of the real images and in 60.0 % of the generated ones."
    assert "under 0.1 % of the real images and in 0.1 %" in third
    unknown = said.shown(COLUMNS, 3).replace(said.NBSP, " ")
    assert "in 0 % of the real images and in an unknown share" in unknown


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.1175, "11.8 %"), (0.1125, "11.3 %"), (0.11249, "11.2 %"), (0.00049, "under 0.1 %"),
     (0.0005, "0.1 %"), (0.0, "0 %"), (1.0, "100.0 %"), (math.nan, "an unknown share")],
)  # fmt: skip
def test_shares_are_rounded_half_up(share, told):
    assert said.percent(share).replace(said.NBSP, " ") == told


COUNTS = dict.fromkeys((kind.replace(" ", "_") for kind in verdicts.KINDS), 0)
COUNTS |= {"suppressed": 3, "exaggerated": 1, "undecided": 145, "not_enough_data": 363}
COUNTS |= {"pairs": 120, "clusters": 100}
MANIFEST = {"counts": COUNTS, "config": SETTINGS, **RELIABILITY}


def test_the_headline():
    assert said.headline(COUNTS, 4) == (
        "4 findings among 149 concepts judged; 363 seen too rarely to judge."
    )
    assert said.headline(COUNTS, 1).startswith("1 finding among")
    assert said.headline(COUNTS, 0).startswith("No findings among")


def test_what_stands_behind_the_findings():
    text = said.basis(MANIFEST)
    assert (
        "120 pairs of images: 3 concepts drawn too little and 1 too much, by more than 1.5" in text
    )
    assert "At most 5 % of such calls" in text and "on average 0.05 were called" in text
    none = MANIFEST | {"control": RELIABILITY["control"] | {"called": 0.0}}
    assert "swapped by chance, none was called" in said.basis(none)
    assert "swapped" not in said.basis(MANIFEST | {"control": None})
    assert said.basis(MANIFEST | {"counts": COUNTS | {"suppressed": 0, "exaggerated": 0}}) == ""
    assert said.basis(MANIFEST | {"config": {"compare.fdr": 0.05}}) == ""


def test_what_would_have_been_called_where_nothing_was():
    none, smallest = said.nothing_called(MANIFEST)
    assert none.startswith("Of 149 concepts judged, none is drawn too little or too much by more")
    assert "1.5-fold beyond doubt. That is no proof" in none
    assert smallest == (
        "What would have been called here, in 80 % of cases: 6.1× if 50 images show it; 3.2× if 100"
        " images show it."
    )
    folds = {"50": 6.13, "100": 3.2, "200": 2.4, "500": 1.99, "1000": 1.7}
    *_, smallest, needed = said.nothing_called(MANIFEST | {"detectable_fold": folds})
    assert "200 images" in smallest and "500 images" not in smallest  # 100 clusters, both arms
    assert "A change of 2× is called, in 80 % of cases, where 500 images show the concept" in needed


def test_where_too_few_images_show_anything():
    few = MANIFEST | {"counts": COUNTS | {"clusters": 20, "suppressed": 0, "exaggerated": 0,
                                          "undecided": 0}}  # fmt: skip
    none, smallest = said.nothing_called(few)
    assert "a verdict needs at least 11 images that show it" in none
    assert smallest == (
        "Where up to 20 images show a concept, no change below 100× would have been called."
    )
    assert len(said.nothing_called(few | {"detectable_fold": {}})) == 1
    assert "imported" in said.nothing_called(few | {"config": {}})[0]


def test_findings_as_a_table(tmp_path):
    names = ["", "=1+1", "blue, circle", "purple"]
    said.write_csv(tmp_path / "f.csv", {"a": told(), EVIL: told()[:1]}, names)
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["set"], row["finding"]) for row in rows] == [
        ("a", "2"), ("a", "1"), ("a", "3"), (EVIL, "2")
    ]  # fmt: skip
    first, second = rows[:2]
    assert first["words"] == "'=1+1" and second["words"] == "purple"
    assert second["instead"] == "'=1+1; blue, circle" and first["instead"] == "0"
    assert second["concepts"] == "0 3" and float(second["high"]) == -math.log(2)
    assert "9.7 % of the real images" in second["images"]
    assert rows[2]["low"] == "-inf"
