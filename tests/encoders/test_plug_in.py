"""An encoder of one's own goes all the way; one that lacks something is refused before any work."""

import json
import types

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from bsjax import presets
from bsjax.core.config import validate
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.data import images
from bsjax.encoders import load_encoder, registry
from bsjax.experiment import preflight
from bsjax.experiment.encoder import encoder_to_plan
from bsjax.stages import plan, run
from bsjax.stages.measure import measure
from bsjax.stages.train_sae import train_sae
from bsjax.stats.copies import bytes_an_image
from tests.encoders.patch_colours import PatchColours

NAME = "tests.encoders.patch_colours:PatchColours"


@pytest.fixture
def config():
    """A few scenes in both arms, and a small training."""
    cfg = presets.experiment()
    cfg.real.source, cfg.real.path, cfg.real.limit = "scenes", "1", 12
    cfg.generated.source, cfg.generated.path, cfg.generated.limit = "scenes", "3", 12
    cfg.encoder = presets.dinov2(NAME, "random:0")
    cfg.encoder.resize = cfg.encoder.crop = 64
    cfg.encoder.batch_per_device = 2
    train = cfg.train
    train.n_concepts = train.n_candidates = 32
    train.steps, train.tokens_per_step, train.loss = 30, 64, "mse"
    train.candidate_iterations, train.judge_tokens = 2, 64
    return cfg


def test_a_plug_in_goes_from_images_to_the_report(config, tmp_path):
    run.run(config, tmp_path)
    folder = tmp_path / "measures" / "real"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parents"]["encoder"] == "colours random:0"
    assert manifest["counts"]["tokens_per_image"] == 16
    assert "Patches are told by their colours alone." in manifest["notes"]
    with np.load(folder / "top_images.npz") as top:
        assert top["maps"].shape[2:] == (4, 4)
        assert top["special"].shape[2] == 0
    energy = pq.read_table(folder / "concepts.parquet")["energy"].to_numpy()
    assert (energy > 0).any()
    assert (tmp_path / "report" / "index.html").is_file()
    assert list((tmp_path / "report").rglob("*.js"))


def test_every_stage_shows_images_as_the_encoder_has_them(config, tmp_path, monkeypatch):
    """Tokens of training and of measuring are those of the encoder's own preprocessing."""
    seen = []
    monkeypatch.setattr(
        PatchColours,
        "preprocessing",
        PatchColours.preprocessing._replace(resize=-1, interpolation="bilinear"),
    )
    resize_crop = images.resize_crop

    def spy(image, *how):
        seen.append(how)
        return resize_crop(image, *how)

    monkeypatch.setattr(images, "resize_crop", spy)
    config.encoder.resize, config.encoder.crop, config.real.limit = -1, 48, 8
    config.generated.path, config.real.workers = "", 0
    for supply in ("memory", "images"):
        config.train.supply, config.overwrite = supply, True
        train_sae(config, tmp_path)
        assert set(seen) == {(-1, 48, "bilinear")}
        seen.clear()
    measure(config, tmp_path)
    assert set(seen) == {(-1, 48, "bilinear")}
    with np.load(tmp_path / "measures" / "real" / "top_images.npz") as top:
        assert top["maps"].shape[2:] == (3, 3)


def broken(monkeypatch, **changes):
    """The example with some attributes changed or, where None, removed."""
    body = {key: value for key, value in vars(PatchColours).items() if key[:2] != "__"}
    body |= {"__init__": PatchColours.__init__} | changes
    made = type("Broken", (), {key: value for key, value in body.items() if value is not None})
    monkeypatch.setattr("tests.encoders.patch_colours.Broken", made, raising=False)
    return "tests.encoders.patch_colours:Broken"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"apply": None}, "lacks the method apply;"),
        ({"load_params": None}, "lacks the method load_params;"),
        ({"grid": None, "abstract_params": None}, "lacks the methods grid, abstract_params;"),
        ({"width": None}, "lacks the attribute width;"),
        ({"preprocessing": None}, "lacks the attribute preprocessing;"),
        ({"patch_size": None, "grid": lambda *_: None}, "lacks the attribute patch_size;"),
        ({"grid": lambda *_: Grid(1, 4, 4)}, "gives .2, 16, 32. for 2 .*expected .2, 18, 32. by"),
        ({"apply": lambda *_: None}, "gives NoneType for 2 images"),
        ({"__init__": lambda self, weights: None}, "not made by Class.weights, variant, dtype"),
    ],
)
def test_what_a_plug_in_lacks_is_named_before_any_work(
    config, tmp_path, monkeypatch, changes, expected
):
    monkeypatch.setattr(run.pipeline.Stage, "load", None)  # no stage can begin
    config.encoder.variant = broken(monkeypatch, **changes)
    with pytest.raises(UserError, match=expected) as error:
        run.run(config, tmp_path)
    assert "\n" not in str(error.value)
    assert "Broken" in str(error.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no.such.module:A", "cannot be imported .No module named 'no'"),
        ("tests.encoders.patch_colours:Absent", "has no attribute 'Absent'"),
        ("tests.encoders.patch_colours:np", "is module, expected a class"),
        (":A", "cannot be imported"),
        ("json:", "cannot be imported"),
    ],
)
def test_a_name_without_a_class_behind_it(name, expected):
    with pytest.raises(UserError, match=expected):
        load_encoder("", variant=name)


def test_the_library_takes_a_class_by_its_name():
    encoder = load_encoder("random:3", variant=NAME, crop=32)
    assert encoder.preprocessing == (64, 32, *PatchColours.preprocessing[2:])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    tokens = jax.jit(encoder.apply)(encoder.params, pictures)
    np.testing.assert_allclose(encoder.apply(encoder.params, pictures), tokens, atol=1e-5)
    assert tokens.shape == (2, encoder.grid().n_tokens, encoder.width) == (2, 4, 32)
    # The first patch, row by row.
    pixels = pictures[1, :16, :16].reshape(-1) / np.float32(127.5) - 1
    np.testing.assert_allclose(tokens[1, 0], pixels @ encoder.params["kernel"], atol=1e-4)
    with pytest.raises(UserError, match="weights=: expected random:SEED"):
        load_encoder(NAME)
    with pytest.raises(UserError, match="crop=40: expected sides that are multiples of 16"):
        load_encoder("random:3", variant=NAME, crop=40)
    with pytest.raises(UserError, match="resize=64: expected at least crop=80, or -1 for"):
        load_encoder("random:3", variant=NAME, crop=80)


def test_plan_and_preflight_ask_the_protocol(config, tmp_path):
    assert encoder_to_plan(config).width == 32
    opened = preflight.check_encoder(config)
    (bill,) = preflight.bills_of_measures(config, tmp_path, {"real": 8}, opened)
    codes, sketches = 8 * 16 * config.train.n_active * 8 * 10, 2 * 8 * bytes_an_image(4, 4, 32)
    assert bill.most == codes + sketches
    config.plan.stage, config.plan.local = "measure", True
    plan.plan(config, tmp_path)
    (row,) = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert row["images"] == 16
    config.encoder.variant = ""
    with pytest.raises(UserError, match="tells no sizes; set --config.encoder.variant to one of"):
        plan.plan(config, tmp_path)


def test_variants_of_the_table_are_all_there_is():
    """A line in the table is all that a family needs."""
    assert set(registry.families()) == set(registry.FAMILIES)
    names = [name for each in registry.families().values() for name in each.VARIANTS]
    assert len(names) == len(set(names)) == len(registry.variants())
    types = [name for each in registry.families().values() for name in each.MODEL_TYPES]
    assert len(types) == len(set(types))
    for each in registry.families().values():
        registry.require_whole(each, each.__name__)


def test_an_sae_of_another_width_is_refused(config, tmp_path):
    config.sae.weights = str(presets.SCENES / "sae")
    with pytest.raises(UserError, match=f"width 192, expected 32 of {NAME}"):
        run.run(config, tmp_path)


def test_a_family_in_the_table_needs_no_other_line(monkeypatch, tmp_path):
    """Its variants and model_types count at once, in configs and in the library."""
    sizes = types.SimpleNamespace(width=32, patch_size=16, grid=lambda h, w: None)
    monkeypatch.setattr(PatchColours, "VARIANTS", {"colours": sizes}, raising=False)
    monkeypatch.setattr(PatchColours, "MODEL_TYPES", ("colours",), raising=False)
    cfg = presets.experiment()
    cfg.real.path, cfg.encoder.variant, cfg.encoder.weights = "x", "colours", "random:0"
    cfg.encoder.resize = cfg.encoder.crop = 64
    with pytest.raises(UserError, match="encoder.variant=colours: expected one of vits14, .*Class"):
        validate(cfg)
    monkeypatch.setitem(registry.FAMILIES, "colours", NAME)
    validate(cfg)
    assert load_encoder("random:0", variant="colours").width == 32
    (tmp_path / "config.json").write_text('{"model_type": "colours"}')
    with pytest.raises(UserError, match="expected random:SEED"):  # its own loading was reached
        load_encoder(str(tmp_path))
