"""Real images, changed: measured as sets of their own, never taken for a generated one."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from etils import epath
from PIL import Image

import bsjax
from bsjax import main, pipeline, presets
from bsjax.analysis.controls import pair_controls, take_pairs
from bsjax.core.artifacts import hash_json, read_manifest, write_manifest
from bsjax.core.config import controls_of, validate
from bsjax.core.errors import UserError
from bsjax.data.captions import ImageRecord, ImageSet
from bsjax.data.changes import as_jpeg
from bsjax.data.decode import decode_rgb
from bsjax.data.image_shards import ImageShards, Outcome, Prompt, list_generated
from bsjax.experiment import controls, inputs, preflight
from bsjax.experiment.stored import read_experiments
from bsjax.results import comparisons
from bsjax.results.columns import COMPARED_CONCEPTS, CONTROL_SHIFTS, CONTROLLED
from bsjax.results.measures import read_measured
from bsjax.stages import control as stage
from bsjax.stages.compare import compare
from bsjax.stages.generate import encode_png
from bsjax.stages.measure import measure
from bsjax.stages.report import list_sets
from bsjax.stages.run import run
from tests.test_main import parsed

N = 14
NAMES = ("control-crop-scenes", "control-jpeg", "control-vae-scenes")


def get_config(controls="jpeg,crop,vae"):
    config = presets.experiment()
    presets.on_scenes(config, N)
    config.generator.batch_per_device = 1
    config.generator.images_per_shard = 10
    config.measure.controls = controls
    return config


def pretend_to_generate(config, workdir):
    """Images that a generator might have drawn: those of the next caption."""
    records = inputs.load_set(config, "real").images.records
    prompts = [Prompt(row, each.key, each.caption) for row, each in enumerate(records)]
    folder = workdir / "images" / "scenes"
    folder.mkdir(parents=True)
    shards = ImageShards(folder, prompts, N, 0)
    pngs = [encode_png(np.asarray(decode_rgb(records[(row + 1) % N].read()))) for row in range(N)]
    shards.add(0, [(row, Outcome(prompts[row], pngs[row])) for row in range(N)])
    shards.finish()
    write_manifest(folder, stage="generate", config={}, parents={}, counts={}, bad_images=[])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workdir with both arms, three controls and the comparison."""
    workdir = epath.Path(tmp_path_factory.mktemp("controls"))
    config = get_config()
    pretend_to_generate(config, workdir)
    measure(config, workdir)
    compare(config, workdir)
    return workdir


@pytest.fixture
def workdir(made, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(made, tmp_path / "run")
    return epath.Path(tmp_path / "run")


def codes_of(workdir, name):
    return sp.load_npz(workdir / "measures" / name / "image_codes.npz").toarray()


def test_each_is_a_measured_set_of_the_real_images(made, tmp_path):
    real = read_measured(made / "measures" / "real")
    for name in NAMES:
        measured = read_measured(made / "measures" / name)
        assert (measured.name, measured.keys) == (name, real.keys)
        assert measured.captions == real.captions
    config = read_manifest(made / "measures" / "control-jpeg")["config"]
    assert (config["control"], config["control.quality"]) == ("jpeg", 75)
    # As large as generated images the scenes are as they were.
    np.testing.assert_array_equal(codes_of(made, NAMES[0]), codes_of(made, "real"))
    # The JPEGs, written by hand into a folder, are measured to the same codes.
    folder = tmp_path / "images"
    folder.mkdir()
    for record in inputs.load_set(get_config(), "real").images.records:
        as_jpeg(decode_rgb(record.read())).save(folder / f"{record.key}.png")
    byhand = get_config("")
    byhand.generator = presets.no_generator()
    byhand.real.source, byhand.real.path = "folder", str(folder)
    measure(byhand, epath.Path(tmp_path / "by_hand"))
    np.testing.assert_array_equal(
        codes_of(tmp_path / "by_hand", "real"), codes_of(made, "control-jpeg")
    )
    assert (codes_of(made, "control-jpeg") != codes_of(made, "real")).any()


def test_the_round_trip_is_near_the_image_and_kept(made):
    real = inputs.load_set(get_config(), "real").images.records
    drawn = list_generated(made / "images" / NAMES[2]).records
    assert [each.key for each in drawn] == [each.key for each in real]
    for mine, theirs in zip(drawn, real, strict=True):
        pixels = [np.asarray(decode_rgb(each.read()), float) for each in (mine, theirs)]
        assert 0.1 < np.abs(pixels[0] - pixels[1]).mean() < 12
    assert not (made / "images" / NAMES[0]).exists()


def test_none_is_taken_for_a_generated_set(made):
    assert [config.generator.set for config in read_experiments(made, "compare")] == ["scenes"]
    assert list_sets(made) == ["scenes"]
    found = bsjax.open_results(str(made))
    assert (found.measured, found.controls) == (("real", "scenes"), NAMES)
    assert found.measures("control-jpeg").name == "control-jpeg"
    config = get_config()
    config.generator.set = "control-x"
    with pytest.raises(UserError, match="generator.set=control-x: .* not begin with control-"):
        validate(config)


def same_tables(folder, tables):
    for name, expected in tables.items():
        table = pq.read_table(folder / name)
        assert table.schema.equals(expected.schema)
        for column in table.column_names:
            values = (np.array(each[column].to_pylist()) for each in (table, expected))
            np.testing.assert_array_equal(*values, err_msg=f"{name} {column}")


def test_the_comparison_knows_them_and_can_be_made_again(workdir):
    folder = workdir / "comparisons" / "scenes"
    names = ("concepts.parquet", "controls.parquet")
    tables = {name: pq.read_table(folder / name) for name in names}
    assert tables[names[0]].column_names == [c.name for c in (*COMPARED_CONCEPTS, *CONTROLLED)]
    assert tables[names[1]].column_names == [c.name for c in CONTROL_SHIFTS]
    assert tables[names[1]].num_rows == 3 * tables[names[0]].num_rows
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["controls"]) == {"jpeg", "crop", "vae"}
    assert manifest["controls"]["crop"]["median_log_ratio"] == 0
    assert {f"measures/{name}" for name in NAMES} < set(manifest["parents"])
    found = bsjax.open_results(str(workdir)).comparison()
    same_tables(folder, {names[0]: found.concepts, names[1]: found.controls})
    compare(get_config(""), workdir, from_statistics=True)
    same_tables(folder, tables)
    again = json.loads((folder / "manifest.json").read_text())
    assert {**again["config"], "files": 0} == {**manifest["config"], "files": 0}
    assert again["controls"] == manifest["controls"] and again["parents"] == manifest["parents"]
    keys = workdir / "keys.txt"
    keys.write_text("\n".join(read_measured(workdir / "measures" / "real").keys[:9]))
    compare(get_config(""), workdir, from_statistics=True, subset=str(keys))
    told = json.loads((folder / "manifest.json").read_text())["controls"]
    assert {each["pairs"] for each in told.values()} == {9}


def test_without_them_all_is_as_before(workdir):
    folder, config = workdir / "comparisons" / "scenes", get_config("")
    config.overwrite = True
    for name in NAMES:
        (workdir / "measures" / name).rmtree()
    compare(config, workdir)
    assert pq.read_schema(folder / "concepts.parquet").names == [c.name for c in COMPARED_CONCEPTS]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "controls.parquet" not in manifest["files"] and "controls" not in manifest
    assert not any(name.startswith("control_") for name in np.load(folder / "statistics.npz"))
    assert comparisons.read_compared(workdir, "scenes").controls is None


def rewrite(folder, **changes):
    """The same artifact, by another config or from other parents."""
    manifest = read_manifest(folder)
    kept = {key: manifest[key] for key in ("stage", "counts", "notes", "bad_images", "experiment")}
    parts = {name: manifest[name] | changes.get(name, {}) for name in ("config", "parents")}
    write_manifest(folder, **kept, **parts)


@pytest.mark.parametrize("name, changes, message", [
    ("control-jpeg", {"config": {"encoder.resize": 96}},
     "measures/real and measures/control-jpeg differ in encoder.resize: 64 and 96"),
    ("control-jpeg", {"parents": {"sae": "other"}},
     "measures/real and measures/control-jpeg differ in sae: .* and other"),
    ("control-jpeg", {"parents": {"images": "other"}},
     "control-jpeg is of other real images than measures/real; remove"),
    ("control-vae-scenes", {"config": {"generator.weights": "other"}},
     "control-vae-scenes is of generator.weights=other, the generated images of .*generator"),
])  # fmt: skip
def test_what_does_not_belong_together_is_named(workdir, name, changes, message):
    rewrite(workdir / "measures" / name, **changes)
    config = get_config()
    config.overwrite = True
    with pytest.raises(UserError, match=message):
        compare(config, workdir)


def test_unfinished_ones_and_comparisons_without_them_are_refused(workdir):
    folder = workdir / "measures" / "control-jpeg"
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="control-jpeg is unfinished; run .* --control=jpeg"):
        compare(get_config(""), workdir)
    folder.rmtree()
    with pytest.raises(UserError, match="control-jpeg is unfinished"):  # it is asked for
        compare(get_config("jpeg"), workdir)
    with pytest.raises(UserError, match=r"made with .*-jpeg.*, .* asked for is control-crop"):
        compare(get_config(""), workdir)


def test_run_refuses_a_control_that_the_comparison_lacks_before_it_is_measured(
    tmp_path, monkeypatch
):
    workdir = epath.Path(tmp_path)
    folder = workdir / "comparisons" / "scenes"
    folder.mkdir(parents=True)
    write_manifest(folder, stage="compare", config={}, parents={"measures/real": "1"}, counts={})
    monkeypatch.setattr(preflight, "check_run", lambda *_: None)
    monkeypatch.setattr(pipeline, "STAGES", ())
    with pytest.raises(UserError, match="with no control, .* control-jpeg.*; run .* --overwrite"):
        run(get_config("jpeg"), workdir)
    config = get_config("jpeg")
    config.overwrite = True
    monkeypatch.setattr("bsjax.stages.run.summarise", lambda *_: "")
    run(config, workdir)
    run(get_config(""), workdir)


@pytest.mark.parametrize("given, message", [
    ("jpeg,blur", r"there is no control 'blur'; expected some of jpeg, crop, vae"),
    ("png", r"measure.controls=png: there is no control 'png'.*--control"),
])  # fmt: skip
def test_unknown_names_are_refused_first(monkeypatch, given, message):
    values = parsed("--config=scenes:tiny", "--workdir=x", f"--control={given}", stage="measure")
    monkeypatch.setattr(main, "FLAGS", values)
    main.apply_short_flags(values.config)
    with pytest.raises(UserError, match=message):
        validate(values.config, sections=pipeline.BY_NAME["measure"].sections)
    with pytest.raises(UserError, match="--control belongs to run, measure, not to compare"):
        parsed("--config=scenes:tiny", "--workdir=x", f"--control={given}", stage="compare")


def test_what_a_config_may_ask_for():
    config = get_config(" vae, jpeg,")
    assert controls_of(config) == ("jpeg", "vae")
    config.generator = presets.no_generator()
    with pytest.raises(UserError, match=r"vae.*\(generator.name=none\) tell of no VAE"):
        validate(config)
    config.measure.controls = "crop"
    (crop,) = stage.plan_controls(config, [inputs.load_set(config, "real")])
    assert (crop.name, crop.change) == ("control-crop-generated", (512, 512, 0))
    with pytest.raises(UserError, match="no real images to change"):
        stage.plan_controls(config, [])


def test_a_generator_without_an_autoencoder_is_refused_before_it_draws():
    config = get_config("jpeg,vae")
    config.generator.name = "tests.generators.stripes:Stripes"
    generator = inputs.open_generator(config, epath.Path("nowhere")).generator
    with pytest.raises(UserError, match=r"stripes:Stripes has no round_trip.*leave out vae"):
        controls.check_generator(config, generator)
    config.measure.controls = "jpeg"
    controls.check_generator(config, generator)
    assert controls.n_images(get_config(), 5) == dict.fromkeys(
        ("control-jpeg", "control-crop-scenes", "control-vae-scenes"), 5
    )
    assert controls.drawn(controls.n_images(get_config(), 5)) == ["control-vae-scenes"]


@pytest.fixture
def arm(tmp_path):
    """A few pictures of any size, one of them damaged."""
    records = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        pixels = np.random.default_rng(i).integers(0, 256, (50 + 9 * i, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        records.append(ImageRecord(f"k{i}", str(path), f"caption {i}", {}, ""))
    (tmp_path / "4.png").write_bytes(b"no image")
    images = ImageSet(records, (), 6, 0, 0, "csv")
    return inputs.Arm("real", "real", images, hash_json("any"))


def read_all(folder):
    return {
        record.key: np.asarray(Image.open(io.BytesIO(record.read())))
        for record in list_generated(folder).records
    }


def test_an_interrupted_round_trip_goes_on(arm, tmp_path, monkeypatch):
    config = get_config("vae")
    config.generator.images_per_shard = 2
    monkeypatch.setattr(inputs, "images_a_step", lambda *_: 8)  # the devices of a test
    (changed,) = stage.plan_controls(config, [arm])
    whole = stage.images_of(changed, config, tmp_path / "whole", arm)
    assert whole.bad == (("k4", "not an image"),) and whole.n_listed == 6
    assert [record.key for record in whole.records] == ["k0", "k1", "k2", "k3", "k5"]
    assert {each.shape for each in read_all(tmp_path / "whole/images" / changed.name).values()} == {
        (64, 64, 3)
    }
    drawn = []

    def dying(image):
        drawn.append(image)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return encode_png(image)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "encode_png", dying)
        with pytest.raises(KeyboardInterrupt):
            stage.images_of(changed, config, tmp_path / "killed", arm)
    seen = []
    monkeypatch.setattr(stage, "encode_png", lambda image: seen.append(1) or encode_png(image))
    stage.images_of(changed, config, tmp_path / "killed", arm)
    assert len(seen) == 4  # the first shard of two was there
    for (name, mine), theirs in zip(
        read_all(tmp_path / "killed/images" / changed.name).items(),
        read_all(tmp_path / "whole/images" / changed.name).values(), strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    (tmp_path / "killed/images" / changed.name / "shard-00000.arrayrecord").write_bytes(b"x")
    with pytest.raises(UserError, match="shard-00000.*bsjax measure"):
        stage.images_of(changed, config, tmp_path / "killed", arm)


def test_few_missing_images_are_told_and_many_are_refused(made):
    measured = read_measured(made / "measures" / "control-jpeg")
    keys = [f"other {i}" for i in range(3)] + measured.keys * 5
    found, notes = pair_controls({"jpeg": measured}, keys)
    assert (~found["jpeg"].is_known).nonzero()[0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found["jpeg"].codes[:3].toarray(), 0)
    np.testing.assert_array_equal(
        found["jpeg"].codes[3 : 3 + N].toarray(), measured.codes.toarray()
    )
    assert notes == ["control jpeg: 3 of 73 pairs lack an image ('other 0', 'other 1', 'other 2');"
                     " it is judged over the others"]  # fmt: skip
    with pytest.raises(UserError, match=r"4 of 74 pairs lack an image .*, at most 5% may; remove"):
        pair_controls({"jpeg": measured}, ["one more", *keys])
    some = np.arange(3, 23)
    assert take_pairs(found, some, [keys[row] for row in some])["jpeg"].is_known.all()
    with pytest.raises(UserError, match="2 of 6 pairs lack .* name others in subset"):
        take_pairs(found, np.arange(1, 7), keys[1:7])  # else no concept could be called
    assert pair_controls({}, keys) == ({}, [])
    one = dataclasses.replace(measured, manifest={})
    assert pair_controls({"vae": one}, measured.keys)[1] == []
