"""Pairs by lot: what is one cluster stays one when the comparison is made again."""

import numpy as np
import pytest

from bsjax.analysis.comparison import Method, compare_again, compare_sets
from tests.analysis.test_attrition import K, measured


@pytest.mark.parametrize("clusters", ["auto", "caption"])
def test_clusters_are_those_of_the_lot_also_from_statistics(clusters):
    rng = np.random.default_rng(0)
    real, generated = (
        measured([f"{arm}{i}" for i in range(12)], rng.random((12, K)), caption)
        for arm, caption in (("r", "a cat {}"), ("g", "a dog {}"))
    )
    twice = [f"a cat {i // 2}" for i in range(12)]  # six captions of two real images each
    images = real.images.set_column(2, "caption", [twice])
    real = type(real)(real.manifest, images, real.codes, real.top_rows, parts=real.parts)
    method = Method(pairs="none", clusters=clusters)
    first = compare_sets(real, generated, method)
    assert first.manifest["counts"]["clusters"] == 6 and first.manifest["counts"]["pairs"] == 12
    again = compare_again("generated", first.statistics, first.pairs, first.manifest, method)
    assert again.manifest["counts"] == first.manifest["counts"]
    assert str(again.concepts.to_pydict()) == str(first.concepts.to_pydict())
