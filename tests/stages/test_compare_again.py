"""`bsjax compare --from_statistics`: other rules, some of the pairs, without images or measures."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import bsjax
from bsjax import presets
from bsjax.core.errors import UserError
from bsjax.results import comparisons
from bsjax.stages.compare import compare

N, K = 80, 30


def arms():
    rng = np.random.default_rng(0)
    real = rng.gamma(2, 1, (N, K)) * (rng.random((N, K)) < 0.4)
    generated = rng.gamma(2, 1, (N, K)) * (rng.random((N, K)) < 0.4)
    generated[:, :3] *= rng.random((N, 3)) < 0.2
    captions = [f"a scene {row} {'with crowns' if row % 2 else ''}" for row in range(N)]
    return real, generated, captions


@pytest.fixture
def saved(tmp_path):
    real, generated, captions = arms()
    bsjax.compare_codes(real, generated, captions).save(tmp_path)
    config = presets.experiment()
    config.generator.name = "none"
    return config, tmp_path, tmp_path / "comparisons" / "generated"


def same(folder, expected):
    table = pq.read_table(folder / "concepts.parquet")
    assert table.schema.names == expected.schema.names
    for name in table.schema.names:
        np.testing.assert_array_equal(
            np.array(table[name].to_pylist()), np.array(expected[name].to_pylist()), err_msg=name
        )


def test_another_margin_and_form(saved):
    config, workdir, folder = saved
    before = {
        name: (folder / name).read_bytes() for name in ("datapoints.parquet", "statistics.npz")
    }
    config.compare.margin, config.compare.form, config.compare.temperature = 3.0, "difference", 0.8
    compare(config, workdir, from_statistics=True)
    expected = bsjax.compare_codes(*arms(), margin=3.0, form="difference")
    same(folder, expected.concepts)
    assert pq.read_table(folder / "findings.parquet").equals(expected.findings)
    assert {name: (folder / name).read_bytes() for name in before} == before
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["compare.margin"] == 3.0
    assert manifest["counts"] == expected.manifest["counts"]
    read, _ = comparisons.read_concepts(folder)  # the manifest proves what was written
    assert read.num_rows == K


def test_some_of_the_pairs(saved):
    config, workdir, folder = saved
    chosen = list(range(0, N, 2))
    keys = workdir / "keys.txt"
    keys.write_text("\n".join([*map(str, chosen), "", "no such key"]) + "\n")
    compare(config, workdir, from_statistics=True, subset=str(keys))
    real, generated, captions = arms()
    few = real[chosen], generated[chosen], [captions[row] for row in chosen]
    expected = bsjax.compare_codes(*few).concepts
    table = pq.read_table(folder / "concepts.parquet")
    for name in ("energy_real", "log_ratio", "p_material", "verdict", "asked_n"):
        assert table[name].to_pylist() == expected[name].to_pylist(), name
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["pairs"] == len(chosen)
    assert manifest["config"]["compare.subset"] == str(keys)
    # All pairs are still there to be compared again.
    compare(config, workdir, from_statistics=True)
    same(folder, bsjax.compare_codes(*arms()).concepts)


def test_a_run_that_was_killed_is_started_again(saved, monkeypatch):
    config, workdir, folder = saved
    config.compare.margin, config.compare.aligned = 2.0, 3.0

    def dying(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparisons, "write_manifest", dying)
        with pytest.raises(KeyboardInterrupt):
            compare(config, workdir, from_statistics=True)
    with pytest.raises(UserError, match="concepts.parquet"):  # half of it is of the other rules
        comparisons.read_concepts(folder)
    # Power, reports and others tell that pairs are not those of the manifest; the stage goes on.
    with pytest.raises(UserError, match="datapoints.parquet is damaged"):
        comparisons.read_stored(folder)
    compare(config, workdir, from_statistics=True)
    expected = bsjax.compare_codes(*arms(), margin=2.0, aligned=3.0)
    same(folder, expected.concepts)
    pairs = comparisons.read_stored(folder)[1]
    assert pairs["closeness"].to_pylist() == expected.pairs["closeness"].to_pylist()
    # What a run leaves that was killed behind its last step is of no use.
    (folder / ".datapoints.parquet").write_bytes(b"those of before")
    compare(config, workdir, from_statistics=True)
    same(folder, expected.concepts)
    assert not (folder / ".datapoints.parquet").exists()


def test_mistakes_are_one_line(saved):
    config, workdir, folder = saved
    keys = workdir / "keys.txt"
    keys.write_text("7\nx\n")
    with pytest.raises(UserError, match=r"--subset names 1 of the 80 pairs .* such as '0'"):
        compare(config, workdir, from_statistics=True, subset=str(keys))
    (folder / "statistics.npz").write_bytes(b"x")
    with pytest.raises(UserError, match="statistics.npz"):
        compare(config, workdir, from_statistics=True)
    with pytest.raises(UserError, match="compare"):
        compare(config, workdir / "elsewhere", from_statistics=True)


def test_a_comparison_that_kept_none_says_so(saved):
    config, workdir, folder = saved
    statistics, *_ = comparisons.read_stored(folder)
    assert statistics.twins is None and statistics.tokens is None
    (folder / "statistics.npz").unlink()
    made = bsjax.compare_codes(*arms())
    bare = comparisons.Compared("generated", made.concepts, made.findings, made.substitutions,
                                made.pairs, made.manifest)  # fmt: skip
    comparisons.write_compared(folder, bare)
    with pytest.raises(UserError, match="keeps no statistics.npz: .* `bsjax compare"):
        compare(config, workdir, from_statistics=True)
