"""The benchmark of what was planted counts right: by hand, and against scikit-learn."""

import pathlib
import runpy

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from bsjax import presets
from bsjax.analysis.comparison import Method
from bsjax.data import scenes
from bsjax.stats import verdicts

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "planted.py"


@pytest.fixture(scope="module")
def planted():
    return runpy.run_path(str(PATH))


@pytest.fixture(scope="module")
def shown(planted):
    factors = np.array([scenes.plain(scenes.generator(30, i)).factors for i in range(200)])
    return planted["one_hot"](factors)


def test_one_hot_has_a_value_of_each_factor(shown):
    assert shown.shape == (200, 30)
    for part, n in ((slice(0, 10), 10), (slice(10, 18), 8), (slice(18, 26), 8), (slice(26, 30), 4)):
        assert (shown[:, part].sum(axis=1) == 1).all() and shown[:, part].shape[1] == n


def test_auroc_and_purity(planted, shown):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (200, 5)).astype(np.float32)  # with ties
    codes[:, 4] = 3 * shown[:, 2] + (rng.random(200) < 0.1)
    aurocs = planted["auroc_table"](sp.csr_array(codes), shown)
    for k in range(5):
        for place in range(30):
            expected = roc_auc_score(shown[:, place], codes[:, k])
            assert aurocs[k, place] == pytest.approx(expected, abs=1e-9)
    purity = planted["purity_table"](sp.csr_array(codes), shown)
    assert purity[4, 2] == pytest.approx(codes[shown[:, 2], 4].sum() / codes[:, 4].sum())
    np.testing.assert_allclose(purity[:, :10].sum(axis=1), 1, rtol=1e-6)


def test_the_best_of_the_pure_concepts_stands_for_a_value(planted):
    choose = planted["spokesman"]
    aurocs, purity = np.array([0.99, 0.91, 0.95, 0.95]), np.array([0.6, 1.0, 0.8, 0.9])
    everything = np.arange(4)
    assert choose(everything, aurocs, purity) == 3  # purer than 2, which tells it as well
    assert choose(everything, aurocs, 0.7 * purity) == 1  # none is pure
    assert choose(everything[:2], aurocs, purity) == 1
    assert choose(everything[:1], aurocs, purity) == 0


def test_verdicts_are_judged_by_one_concept_a_value(planted):
    """Concept k stands for value k; concept 30 covers the first value too, but is less pure."""
    values, truth = planted["VALUES"], planted["planted_values"]()
    aurocs = np.concatenate([np.eye(30), np.eye(30)[:1]])
    purity = np.concatenate([np.eye(30), 0.5 * np.eye(30)[:1]])
    verdict = np.array([truth.get(value, verdicts.UNDECIDED) for value in values] + ["x"])
    verdict[-1] = verdicts.EXAGGERATED
    delta = np.array([{verdicts.SUPPRESSED: 0.1, verdicts.EXAGGERATED: 0.9}.get(v, 0.5)
                      for v in verdict])  # fmt: skip
    judge = planted["judge_factors"]
    found = judge({"verdict": verdict, "delta": delta}, aurocs, purity)
    assert (found["planted_found"], found["planted_covered"], found["n_called"]) == (4, 4, 4)
    assert found["precision"] == found["recall"] == found["auroc"] == 1
    assert found["untouched_called"] == 0
    # The other way round: concept 30 is asked, and calls a value that nobody touched.
    purity[[0, 30]] = purity[[30, 0]]
    found = judge({"verdict": verdict, "delta": delta}, aurocs, purity)
    assert (found["n_called"], found["untouched_called"]) == (5, 1)
    assert found["precision"] == pytest.approx(0.8)
    # One gap's concept says nothing, another's says the opposite.
    crescent, water = values.index(("shape", "crescent")), values.index(("background", "water"))
    verdict[[crescent, water, 30]] = verdicts.UNDECIDED, verdicts.SUPPRESSED, "x"
    found = judge({"verdict": verdict, "delta": delta}, aurocs, purity)
    assert (found["planted_found"], found["n_called"]) == (2, 3)
    assert found["precision"] == pytest.approx(2 / 3)


def test_no_rule_was_set_knowing_what_was_planted():
    config = runpy.run_path(str(PATH.parents[2] / "configs" / "scenes.py"))["get_config"]()
    assert config.compare.to_dict() == presets.experiment().compare.to_dict()
    method = Method()
    told = {f"compare.{name}": value for name, value in config.compare.items()}
    assert told.pop("compare.pairs") == method.pairs  # which settings tell where it is another
    assert told | {"seed": config.seed} == method.settings


def test_findings_bear_the_value_that_their_first_concept_tells_best(planted):
    aurocs = np.full((3, 30), 0.5)
    aurocs[0, planted["VALUES"].index(("shape", "ring"))] = 0.95
    aurocs[1, planted["VALUES"].index(("colour", "blue"))] = 0.89  # not covered
    row = {"concepts": [0, 2], "verdict": "suppressed", "instead": [1, 0], "asked_n": 7}
    row |= {"log_ratio": 0.0, "low": -np.inf, "high": np.log(2), "asked_log_ratio": np.log(0.5)}
    (found,) = planted["name_findings"]([row], aurocs)
    assert found == {
        "of": "shape ring", "concepts": 2, "verdict": "suppressed", "ratio": [1, 0, 2],
        "instead": ["?", "shape ring"], "asked": [7, 0.5],
    }  # fmt: skip
