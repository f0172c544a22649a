"""`bsjax compare --against=A` and `--gate=A`: two generated sets over the same captions."""

import csv
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import bsjax
from bsjax import main, presets
from bsjax.analysis.models import correlate_all
from bsjax.core import errors
from bsjax.core.artifacts import check_files, read_manifest, write_manifest
from bsjax.core.errors import GateFailed, UserError
from bsjax.experiment.stored import EXPERIMENT, experiment_of, read_experiments
from bsjax.results import columns
from bsjax.results.models import read_all_statistics, write_matrix
from bsjax.stages.compare import compare, correlate
from bsjax.stats import models, verdicts
from tests.report.artifacts import finish

REPO = pathlib.Path(__file__).resolve().parents[2]
N, K = 300, 40
GAP, OPENED, LESSENED = 0, 1, 2  # concepts


def energies(rng, n=N):
    return rng.gamma(4, 1, (n, K)) * (rng.random((n, K)) < 0.4)


def arms():
    """Real images; a model with a gap and an excess; one that mended both and has a new gap."""
    rng = np.random.default_rng(0)
    real = energies(rng)
    base, better, worse = (real * rng.gamma(20, 1 / 20, real.shape) for _ in range(3))
    base[:, GAP] *= rng.random(N) < 0.15
    base[:, LESSENED] *= 8
    worse[:, OPENED] *= rng.random(N) < 0.1
    return real, base, better, worse


def save(workdir, name, real, generated, rows=None):
    rows = np.arange(N) if rows is None else rows
    captions = [f"a scene {row}" for row in rows]
    result = bsjax.compare_codes(real[rows], generated[rows], captions)
    statistics = dataclasses.replace(result.statistics, keys=[f"k{row}" for row in rows])
    keys = [f"k{rows[int(key)]}" for key in result.pairs["key"].to_pylist()]
    at = result.pairs.column_names.index("key")
    pairs = result.pairs.set_column(at, "key", [keys])
    dataclasses.replace(result, name=name, statistics=statistics, pairs=pairs).save(workdir)


def config_of(name="generated"):
    config = presets.experiment()
    config.generator.name = "none"
    if name != "generated":
        config.generator.name, config.generator.set = "pixart", name
        config.generator.weights = "random:0"
    return config


@pytest.fixture
def workdir(tmp_path):
    real, base, better, worse = arms()
    for name, arm in (("base", base), ("better", better), ("worse", worse)):
        save(tmp_path, name, real, arm)
    return tmp_path


def against(workdir, name, other, **more):
    """As the stage does where the comparisons with the real images are there."""
    compare(config_of(name), workdir, from_statistics=True, against=other, **more)
    folder = workdir / "models" / other / name
    manifest = read_manifest(folder, "compare")
    check_files(folder, manifest)
    return pq.read_table(folder / "concepts.parquet"), manifest


def test_the_same_in_python():
    real, base, better, worse = arms()
    captions = [f"a scene {row}" for row in range(N)]
    results = [bsjax.compare_codes(real, arm, captions) for arm in (base, better)]
    found = results[1].against(results[0])
    moved = found.concepts["moved"].to_pylist()
    assert [k for k in range(K) if moved[k]] == [GAP, LESSENED] and moved[GAP] == "towards"
    wide = results[1].against(results[0], margin=20)
    assert set(wide.concepts["moved"].to_pylist()) == {""}
    with pytest.raises(UserError, match="other real images"):
        bsjax.compare_codes(real[::-1], worse, captions).against(results[0])
    bare = dataclasses.replace(results[0], statistics=None)
    with pytest.raises(UserError, match="keeps no statistics.*--against"):
        results[1].against(bare)
    with pytest.raises(UserError, match="is a list; expected a comparison"):
        results[1].against([])


def test_what_a_model_mended_moved_towards_the_real_images(workdir, capsys):
    table, manifest = against(workdir, "better", "base")
    columns.require_columns(table, columns.MOVED_CONCEPTS)
    rows = table.to_pylist()
    assert {row["concept"]: row["moved"] for row in rows if row["moved"]} == {
        GAP: "towards",
        LESSENED: "towards",
    }
    gap = rows[GAP]
    assert gap["verdict"] == verdicts.EXAGGERATED  # of B against A
    assert gap["verdict_a"] == verdicts.SUPPRESSED and gap["verdict_b"] == verdicts.ALIGNED
    assert np.log(3) < gap["low"] < gap["log_ratio"] < gap["high"]
    # Each is what the comparison of these two matrices alone says.
    real, base, better, _ = arms()
    captions = [f"a scene {row}" for row in range(N)]
    for names, pair in (
        (("log_ratio", "low", "p_material", "q_aligned", "verdict"), (base, better)),
        (("log_ratio", "high", "q_material", "verdict"), (real, base)),
    ):
        expected = bsjax.compare_codes(*pair, captions).concepts
        suffix = "" if pair[0] is base else "_a"
        for name in names:
            np.testing.assert_array_equal(
                np.array(table[name + suffix].to_pylist()), np.array(expected[name].to_pylist())
            )
    assert manifest["sets"] == {"a": "base", "b": "better"}
    counts = manifest["counts"]
    assert (counts["pairs"], counts["clusters"], counts["towards"], counts["away"]) == (N, N, 2, 0)
    assert manifest["parents"].keys() == {"comparisons/base", "comparisons/better"}
    near = manifest["closeness"]
    assert near["difference"]["mean"] == pytest.approx(near["b"]["mean"] - near["a"]["mean"])
    assert near["difference"]["low"] > 0 and manifest["control"]["is_sound"]
    own = json.loads((workdir / "comparisons" / "base" / "manifest.json").read_text())
    assert own["closeness"] == near["a"]
    told = capsys.readouterr().out
    assert "better against base, 300 pairs in 300 clusters (0 of base and 0 of better left" in told
    assert "moved 2 towards the real images (" in told and ", 0 away from them, 0 elsew" in told
    assert f"{near['difference']['mean']:+.3f} [" in told


def test_the_other_way_round_it_moved_away(workdir):
    table, manifest = against(workdir, "base", "better")
    assert {row["concept"] for row in table.to_pylist() if row["moved"] == "away"} == {
        GAP,
        LESSENED,
    }
    assert manifest["closeness"]["difference"]["high"] < 0


def test_the_gate(workdir, capsys):
    against(workdir, "better", "base", is_gate=True)
    assert "gate passed: no concept of better moved away" in capsys.readouterr().out
    with pytest.raises(GateFailed) as told:
        against(workdir, "worse", "better", is_gate=True)
    line = str(told.value)
    assert line.startswith("gate failed: worse is worse than better: 1 concept moved away")
    assert f"({OPENED}" in line and "times as much" in line and "\n" not in line
    assert "its pairs are less close to the real images, difference -0.0" in line
    assert main.explain(told.value)[0] == errors.GATE_FAILED == 3
    # Finished and asked again: the same, nothing is made anew.
    place = workdir / "models" / "better" / "worse" / "manifest.json"
    before = place.stat().st_mtime_ns
    with pytest.raises(GateFailed, match="1 concept moved away"):
        against(workdir, "worse", "better", is_gate=True)
    assert place.stat().st_mtime_ns == before
    against(workdir, "worse", "better")  # without the gate it is no fault


def test_a_gate_on_closeness_alone(tmp_path):
    """Everything is a little off, nothing by more than the margin."""
    rng = np.random.default_rng(1)
    real = energies(rng)
    base = real * rng.gamma(20, 1 / 20, real.shape)
    noisy = real * rng.gamma(2, 1 / 2, real.shape)
    save(tmp_path, "base", real, base)
    save(tmp_path, "noisy", real, noisy)
    with pytest.raises(GateFailed, match="worse than base: its pairs are less close") as told:
        against(tmp_path, "noisy", "base", is_gate=True)
    assert "moved" not in str(told.value)
    against(tmp_path, "base", "noisy", is_gate=True)


def test_the_same_model_twice_passes_the_gate(tmp_path):
    """Another draw of the same model fails by chance alone: in 2.5 % of cases by closeness."""
    failed = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        real = energies(rng)
        one, other = (real * rng.gamma(3, 1 / 3, real.shape) for _ in range(2))
        folder = tmp_path / str(seed)
        save(folder, "one", real, one)
        save(folder, "other", real, other)
        try:
            table, _ = against(folder, "other", "one", is_gate=True)
        except GateFailed:
            failed += 1
        else:
            assert set(table["moved"].to_pylist()) == {""}
    assert failed <= 1


def test_every_two_sets_are_correlated(tmp_path):
    rng = np.random.default_rng(0)
    real = energies(rng)
    moved = 0.5 * rng.standard_normal((2, K))
    kin = {"base": moved[0], "worse": 0.8 * moved[0] + 0.6 * moved[1], "better": 0.0}
    sets = {name: real * np.exp(each) * rng.gamma(9, 1 / 9, real.shape)
            for name, each in kin.items()}  # fmt: skip
    for name, generated in sets.items():
        save(tmp_path, name, real, generated)
    names = ("base", "better", "worse")
    matrix = correlate_all(read_all_statistics(tmp_path, names))
    assert len(matrix) == 6 and list(matrix)[1] == ("base", "better")
    codes = (sp.csr_array(arm) for arm in (real, sets["base"], sets["worse"]))
    assert matrix["base", "worse"] == models.correlate(*codes)
    assert 0.4 < matrix["base", "worse"].low < 0.8 < matrix["base", "worse"].high < 1
    assert matrix["base", "base"][:3] == (1, 1, 1)  # it has large changes of its own
    assert matrix["base", "better"].reason == models.TOO_LOW  # the other one has none
    folder = tmp_path / "comparisons"
    assert correlate(folder / "base", folder / "worse") == matrix["base", "worse"].r
    assert correlate(folder / "better", folder / "better") == 1
    write_matrix(tmp_path, matrix)
    with (tmp_path / "models.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["a"] + row["b"] for row in rows][:2] == ["basebase", "basebetter"]
    assert list(rows[0]) == [column.name for column in columns.CORRELATIONS]
    assert float(rows[2]["r"]) == matrix["base", "worse"].r and rows[2]["reason"] == ""
    assert float(rows[2]["reliability_b"]) == matrix["base", "worse"].reliability[1]
    assert rows[1]["r"] == "" and rows[1]["reason"] == "reliability too low"
    # A comparison of before statistics were kept, or a damaged one, is told and no more.
    (folder / "worse" / "statistics.npz").write_bytes(b"x")
    matrix = correlate_all(read_all_statistics(tmp_path, names))
    assert matrix["base", "worse"].reason.startswith("comparisons/worse/statistics.npz")
    assert np.isnan(matrix["base", "worse"].r) and not matrix["base", "base"].reason
    save(tmp_path, "small", np.ones((N, 3)), np.ones((N, 3)))
    matrix = correlate_all(read_all_statistics(tmp_path, ("base", "small")))
    assert "different SAEs, of 40 and 3 concepts" in matrix["base", "small"].reason
    assert correlate_all({}) == {}


def test_pairs_that_one_set_lacks_are_left_out_and_counted(tmp_path):
    real, base, better, _ = arms()
    save(tmp_path, "base", real, base, np.arange(0, 260))
    save(tmp_path, "better", real, better, np.arange(299, 39, -1))  # in another order, too
    table, manifest = against(tmp_path, "better", "base")
    counts = manifest["counts"]
    assert (counts["pairs"], counts["unpaired_a"], counts["unpaired_b"]) == (220, 40, 40)
    rows = np.arange(40, 260)
    captions = [f"a scene {row}" for row in rows]
    expected = bsjax.compare_codes(base[rows], better[rows], captions).concepts
    assert table["log_ratio"].to_pylist() == expected["log_ratio"].to_pylist()


def test_mistakes_are_one_line(workdir, tmp_path):
    folder = workdir / "comparisons"
    with pytest.raises(
        UserError,
        match=r"--against=bass: .* holds no comparison of that name; name one of base, better$",
    ):
        against(workdir, "worse", "bass")
    with pytest.raises(UserError, match="the very set that is compared; name one of better, w"):
        against(workdir, "base", "base")
    rng = np.random.default_rng(0)
    few = rng.random((N, K - 1))
    save(workdir, "small", few, few)
    with pytest.raises(UserError, match="different SAEs, of 40 and 39 concepts"):
        against(workdir, "small", "base")
    with pytest.raises(UserError, match=r"compare another set first$"):
        against(workdir / "empty", "worse", "base")
    with pytest.raises(UserError, match="^--gate=bass: "):
        against(workdir, "worse", "bass", is_gate=True)
    (folder / "base" / "statistics.npz").unlink()
    with pytest.raises(UserError, match=r"statistics.npz"):
        against(workdir, "worse", "base")
    real, base, *_ = arms()
    save(workdir, "strange", real[::-1], base)
    with pytest.raises(UserError, match="other real images"):
        against(workdir, "strange", "better")
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere, "one", real, base, np.arange(0, 100))
    save(elsewhere, "other", real, base, np.arange(99, 200))
    with pytest.raises(UserError, match="1 pairs in common, of 100 and 101; expected at least 2"):
        against(elsewhere, "other", "one")


def test_other_rules_ask_for_overwrite(workdir):
    against(workdir, "better", "base")
    config = config_of("better")
    config.compare.margin = 3.0
    with pytest.raises(UserError, match="compare.margin was 1.5 and is now 3.0"):
        compare(config, workdir, from_statistics=True, against="base")
    config.overwrite = True
    compare(config, workdir, from_statistics=True, against="base")
    manifest = read_manifest(workdir / "models" / "base" / "better", "compare")
    assert manifest["config"]["compare.margin"] == 3.0


def test_the_command_in_a_pipeline_of_checks(workdir):
    """Without --config every other set is held against A; all are looked at before it fails."""
    for name in ("real", "base", "better", "worse"):
        config = config_of(name)
        folder = workdir / "measures" / name
        folder.mkdir(parents=True)
        finish(folder, "measure", {"set": name}, **{EXPERIMENT: experiment_of(config)})

    def command(*arguments):
        line = [sys.executable, "-m", "bsjax.main", "compare", f"--workdir={workdir}", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, cwd=REPO)
        return done.returncode, done.stdout, done.stderr.strip().splitlines()[-1]

    status, out, line = command("--from_statistics", "--gate=base")
    assert status == errors.GATE_FAILED
    assert line.startswith(
        "bsjax: gate failed: worse is worse than base: 1 concept moved away from"
    )
    assert "gate passed: no concept of better moved away" in out and "worse against base" in out
    for flag in ("--against=base", "--subset=x --from_statistics"):
        status, _, line = command("--gate=base", *flag.split())
        assert status == errors.WRONG_USAGE and "leave" in line and "--gate" in line
    with pytest.raises(UserError, match="holds no generated set but 'base'; measure another one"):
        for name in ("better", "worse"):
            shutil.rmtree(workdir / "measures" / name)
        read_experiments(workdir, "compare", "base")


def test_measures_under_other_thresholds_are_named(workdir):
    for name, threshold in (("base", 0.5), ("better", 0.6)):
        folder = workdir / "measures" / name
        folder.mkdir(parents=True)
        finish(folder, "measure", {"sae.threshold": threshold, "set": name})
    with pytest.raises(UserError, match=r"measures/base and measures/better differ in sae.thresh"):
        against(workdir, "better", "base")


def test_real_images_that_were_measured_anew_are_told(workdir):
    folder = workdir / "comparisons" / "base"
    made = read_manifest(folder)
    kept = {name: made[name] for name in ("config", "counts", "notes", "unpaired")}
    write_manifest(folder, stage="compare", parents={"measures/real": "beef"}, **kept)
    with pytest.raises(UserError, match="other real images: beef and None; run"):
        against(workdir, "better", "base")
