"""compare and report without a config: the workdir's manifests tell what they need."""

import os
import pathlib
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from bsjax import presets
from bsjax.core.artifacts import read_manifest, write_manifest
from bsjax.core.config import flatten
from bsjax.core.errors import UserError
from bsjax.experiment.inputs import generated_name
from bsjax.experiment.stored import EXPERIMENT, experiment_of, read_experiments
from bsjax.stages.compare import compare
from bsjax.stats import verdicts
from tests.report.artifacts import write_arm, write_comparison

REPO = pathlib.Path(__file__).resolve().parents[2]


def finish(folder, stage, config=(), **more):
    folder.mkdir(parents=True)
    write_manifest(folder, stage=stage, config=dict(config), parents={}, counts={}, **more)


def measured(workdir, name, **changes):
    """A finished measure of an experiment with some keys changed."""
    config = presets.experiment()
    config.update_from_flattened_dict(changes)
    finish(workdir / "measures" / name, "measure", **{EXPERIMENT: experiment_of(config)})


def test_each_generated_set_has_its_own_config(tmp_path):
    measured(tmp_path, "real", **{"compare.fdr": 0.2, "sae.weights": "owner/name"})
    drawn = {"generator.name": "pixart", "generator.weights": "random:0"}
    for name, fdr in (("one", 0.01), ("two", 0.02)):
        measured(tmp_path, name, **drawn, **{"generator.set": name, "compare.fdr": fdr})
    measured(tmp_path, "generated", **{"generated.max_unpaired": 0.5})
    found = read_experiments(tmp_path, "compare")
    assert [generated_name(config) for config in found] == ["generated", "one", "two"]
    assert [config.compare.fdr for config in found] == [0.05, 0.01, 0.02]
    assert found[0].generated.max_unpaired == 0.5
    (config,) = read_experiments(tmp_path, "report")
    assert (config.sae.weights, config.compare.fdr) == ("owner/name", 0.2)


def test_what_an_artifact_was_made_with_comes_from_the_artifact(tmp_path, caplog):
    caplog.set_level("INFO", "absl")
    measured(tmp_path, "real")
    measured(tmp_path, "one", **{"compare.fdr": 0.01, "seed": 1})
    images = {"generator.name": "kandinsky", "generator.set": "one", "generator.steps": 7}
    finish(tmp_path / "images" / "one", "generate", images)
    finish(tmp_path / "comparisons" / "one", "compare", {"compare.fdr": 0.5, "seed": 9})
    (config,) = read_experiments(tmp_path, "compare")
    assert (config.generator.steps, generated_name(config)) == (7, "one")
    assert (config.compare.fdr, config.seed) == (0.5, 9)
    told = "compare.fdr=0.5 as comparisons/one was made, not 0.01 as the images were measured"
    assert sum(told in record.getMessage() for record in caplog.records) == 1


def test_workdirs_from_before_the_config_was_kept(tmp_path):
    for name in ("real", "generated", "drawn"):
        finish(tmp_path / "measures" / name, "measure")
    with pytest.raises(UserError, match="do not say what drew the images of drawn; give --config"):
        read_experiments(tmp_path, "compare")
    images = {"generator.name": "kandinsky", "generator.set": "drawn"}
    finish(tmp_path / "images" / "drawn", "generate", images)
    found = read_experiments(tmp_path, "compare")
    assert [generated_name(config) for config in found] == ["drawn", "generated"]
    assert flatten(found[1]) == flatten(presets.experiment())


def test_what_is_not_there(tmp_path):
    for stage in ("compare", "report"):
        with pytest.raises(UserError, match="measures/real is not measured; run `bsjax measure`"):
            read_experiments(tmp_path, stage)
    measured(tmp_path, "real")
    assert len(read_experiments(tmp_path, "report")) == 1
    with pytest.raises(UserError, match="a generated set in .* is not measured"):
        read_experiments(tmp_path, "compare")
    measured(tmp_path, "generated")
    (tmp_path / "measures" / "generated" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is not valid JSON"):
        read_experiments(tmp_path, "compare")


def test_an_sae_is_kept_by_its_full_path_and_odd_names_are_no_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pth").write_bytes(b"")
    config = presets.experiment()
    for weights, kept in (
        ("mine.pth", str(tmp_path / "mine.pth")),
        ("owner/name", "owner/name"),
        ("", ""),
    ):
        config.sae.weights = weights
        assert experiment_of(config)["sae.weights"] == kept
    config.real.path = "caf\udce9"
    finish(tmp_path / "measures" / "real", "measure", **{EXPERIMENT: experiment_of(config)})
    assert read_experiments(tmp_path, "report")[0].real.path == "caf\ufffd"


def bsjax(*arguments):
    command = [sys.executable, "-m", "bsjax.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPO), "XLA_FLAGS": ""}
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)


def test_by_command(tmp_path):
    """Real scenes against other real ones: measured with a config, compared without one."""
    done = bsjax(
        "measure", "--config=scenes", f"--workdir={tmp_path}", "--limit=12",
        "--config.generator.name=none", "--config.generated.source=scenes",
        "--config.generated.path=3", "--config.generated.limit=12", "--config.compare.fdr=0.125",
        "--config.compare.margin=1.25",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    compared = tmp_path / "comparisons" / "generated"
    for flags in ((), ("--overwrite",), ("--config.compare.fdr=0.25", "--overwrite")):
        done = bsjax("compare", f"--workdir={tmp_path}", "--quiet", *flags)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        settings = read_manifest(compared, "compare")["config"]
        assert settings["compare.fdr"] == (0.25 if len(flags) == 2 else 0.125)
        assert settings["compare.margin"] == 1.25  # as measured with, not the default
        assert pq.read_table(compared / "concepts.parquet").num_rows == 512
    done = bsjax("compare", f"--workdir={tmp_path}", "--config.compare.fdr=2")
    assert done.returncode == 1
    assert "compare.fdr=2.0: expected a number above 0 to 1" in done.stderr
    # What a stage does not read may be anything.
    done = bsjax("compare", f"--workdir={tmp_path}", "--config.train.steps=-5")
    assert done.returncode == 0, done.stderr
    done = bsjax("report", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "map of 512 concepts" in done.stderr  # of the SAE that measured
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_report_by_hand(tmp_path):
    kinds = list(verdicts.KINDS)
    for name in ("real", "one"):
        write_arm(tmp_path, name, len(kinds))
    write_comparison(tmp_path, "one", kinds)
    done = bsjax("report", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "no map of the dictionary" in done.stderr
    assert (tmp_path / "report" / "index.html").is_file()


def test_compare_takes_a_config_of_which_it_reads_little(tmp_path):
    from bsjax import pipeline
    from bsjax.core.config import validate

    config = presets.experiment()
    config.real.path = ""
    config.train.n_active, config.encoder.crop = 0, 100
    stage = pipeline.BY_NAME["compare"]
    validate(config, stage.needs_images, stage.sections)
    with pytest.raises(UserError, match="measures/real/manifest.json is missing"):
        compare(config, tmp_path)
    config.compare.margin = 0.95
    with pytest.raises(UserError, match="compare.margin=0.95"):
        validate(config, stage.needs_images, stage.sections)
    for name in ("measure", "train_sae", "run"):
        stage = pipeline.BY_NAME[name]
        with pytest.raises(UserError, match="train.n_active=0"):
            validate(config, stage.needs_images, stage.sections)
