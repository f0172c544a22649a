"""The names that `core.config` checks without importing a model are those that exist."""

import pytest

from bsjax import presets
from bsjax.core import config, ranges
from bsjax.core.errors import UserError
from bsjax.encoders import registry
from bsjax.sae.gradient import ACTIVATIONS, LOSSES
from bsjax.stats import divergences

NAN, INF = float("nan"), float("inf")


def test_choices_are_those_of_the_modules():
    for name, variant in registry.variants().items():
        assert config.patch_size(name) == variant.patch_size
        config.validate(change(**{"encoder.variant": name, "encoder.crop": 2 * variant.patch_size}))
    assert set(ranges.LOSSES) == set(LOSSES)
    assert set(ranges.ACTIVATIONS) == set(ACTIVATIONS)
    assert set(ranges.FORMS) == set(divergences.FORMS)


def test_execution_keys_exist_and_decide_no_result():
    experiment = presets.experiment()
    assert set(config.EXECUTION_KEYS) <= set(config.flatten(experiment))
    selected = config.select(experiment, ("encoder",))
    assert "encoder.resize" in selected
    assert not set(config.EXECUTION_KEYS) & set(selected)


def test_options_behind_the_colon_are_read_as_their_defaults():
    got = config.parse_arg("tiny, limit=40,rate=2,name=a b", tiny=False, limit=1, rate=0.5, name="")
    assert got.to_dict() == {"tiny": True, "limit": 40, "rate": 2.0, "name": "a b"}
    assert isinstance(got.rate, float)
    assert config.parse_arg("", tiny=False).tiny is False
    assert config.parse_arg("tiny=false", tiny=True).tiny is False
    assert config.parse_arg("tiny=1", tiny=False).tiny is True


@pytest.mark.parametrize("text", ["tinny", "limit", "limit=x", "limit=1.5", "tiny=maybe", "rate="])
def test_wrong_options_are_refused(text):
    with pytest.raises(UserError, match="config option"):
        config.parse_arg(text, tiny=False, limit=1, rate=0.5)


def change(**values):
    """A valid experiment with some keys changed."""
    experiment = presets.experiment()
    experiment.real.path = "x"
    experiment.update_from_flattened_dict(values)
    return experiment


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("real.source", "web"),
        ("encoder.variant", "vitx14"),
        ("encoder.crop", 100),
        ("encoder.crop", 280),
        ("encoder.batch_per_device", 0),
        ("compare.temperature", 0.0),
        ("compare.margin", 1.0),
        ("measure.top_images", 0),
        ("train.n_active", 0),
        ("real.max_bad", 1.5),
        ("encoder.weights", "random:-1"),
        ("encoder.weights", "random:"),
        ("encoder.weights", "random:4294967296"),
        ("compare.margin", NAN),
        ("compare.clusters", "captions"),
        ("train.steps", -1),  # and no epochs
    ],
)
def test_validate_names_the_flag_to_change(key, value):
    config.validate(change())
    with pytest.raises(UserError, match=rf"^{key}.*--config\.{key}"):
        config.validate(change(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("compare.suppressed", 0.25, "compare.margin"),
        ("compare.exaggerated", 0.75, "compare.margin"),
        ("compare.min_images", 10, "follows from compare.margin"),
        ("compare.bootstrap", 0, "without resampling"),
    ],
)
def test_a_key_of_before_says_what_to_use(key, value, instead):
    experiment = change()
    section, _, name = key.partition(".")
    experiment[section][name] = value
    # Whatever the stage reads: a later one would stop on it after hours.
    for sections in (("compare",), ("real", "encoder", "train")):
        with pytest.raises(UserError, match=rf"^{key}={value}: .*{instead}.*remove it") as error:
            config.validate(experiment, sections=sections)
        assert "\n" not in str(error.value)
    assert set(ranges.GONE).isdisjoint(ranges.KEYS)


def test_encoders_that_are_named_otherwise_than_by_a_variant():
    """A plug-in or an encoder that its weights name is looked at when it is opened."""
    config.validate(change(**{"encoder.variant": "my.module:Encoder", "encoder.weights": ""}))
    config.validate(change(**{"encoder.variant": "", "encoder.crop": 100}))
    with pytest.raises(UserError, match=r"^encoder\.weights is empty"):
        config.validate(change(**{"encoder.weights": ""}))
    # All of an image as a square, which may be larger than any short side.
    whole = {"encoder.variant": "siglip_so400m14_384", "encoder.resize": -1}
    config.validate(change(**whole, **{"encoder.crop": 384}))  # its own size, no multiple of 14
    with pytest.raises(UserError, match=r"^encoder\.crop=385: expected a multiple of 14"):
        config.validate(change(**whole, **{"encoder.crop": 385}))


def test_every_key_of_an_experiment_has_its_range_or_type():
    flat = config.flatten(presets.experiment())
    known = [set(ranges.RANGES), set(ranges.BOOLS), set(ranges.TEXTS)]
    assert set.union(*known) == set(flat)
    assert sum(map(len, known)) == len(flat)
    for key, value in flat.items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            assert ranges.RANGES[key].is_whole == isinstance(value, int), key


# Key, values that are refused, values at the border that are not.
@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("seed", (-1, 2**32, 0.0, True, "0", None), (0, 2**32 - 1)),
        ("mesh.data", (0, -2, 1.5), (-1, 1)),
        ("mesh.model", (0, -2), (-1, 1)),
        ("real.limit", (0, -2), (-1, 1)),
        ("generated.max_bad", (-0.1, 1.1, NAN), (0.0, 1.0)),
        ("real.workers", (-2, 1025), (-1, 0, 1024)),
        ("generator.steps", (0,), (1,)),
        ("generator.guidance", (0.9, NAN, INF), (1.0, 20.0)),
        ("generator.prior_guidance", (0.9, NAN, INF), (1.0,)),
        ("generator.samples", (0, 2**31), (1, 2**31 - 1)),
        ("generator.images_per_shard", (0,), (1,)),
        ("generator.batch_per_device", (0, -2), (-1, 1)),
        ("generator.height", (0,), (1,)),
        ("encoder.crop", (0, -14), (14,)),
        ("encoder.resize", (0, -2), (-1, 1)),
        ("sae.threshold", (-0.1, NAN, INF), (None, 0.0, 1.0)),
        ("train.n_active", (0,), (1,)),
        ("train.candidate_iterations", (-1,), (0,)),
        ("train.candidate_tokens", (0,), (1,)),
        ("train.max_tokens", (0,), (1,)),
        ("train.judge_tokens", (0,), (1,)),
        ("train.shard_images", (0, -2), (-1, 1)),
        ("train.accumulate", (0,), (1,)),
        ("train.steps", (-2, 2**31), (-1, 2**31 - 1)),
        ("train.epochs", (0.0, -2.0, NAN, INF), (-1.0, 0.5)),
        ("train.warmup_share", (-0.1, 1.0, 2.0, NAN), (0.0, 0.99)),
        ("train.peak_learning_rate", (0.0, -1.0, NAN, INF, 1e39), (1e-9, 1e30)),
        ("train.final_learning_rate", (-1e-9, NAN, INF), (0.0,)),
        ("train.full_precision_share", (-0.1, 1.1, NAN), (0.0, 1.0)),
        ("train.weight_decay", (-0.1, NAN, INF), (0.0,)),
        ("train.relax_radius", (-0.1, NAN, INF), (0.0,)),
        ("train.l1_weight", (-0.1, NAN, INF), (0.0,)),
        ("train.keep_checkpoints", (0, -1), (1,)),
        ("train.look_every", (0,), (1,)),
        ("train.checkpoint_every", (0,), (1,)),
        ("plan.epoch_tokens", (-1, 0.5), (0,)),
        ("measure.top_images", (0, 1025, 10**6), (1, 1024)),
        ("measure.rank_concept", (-2,), (-1, 0)),
        ("compare.temperature", (0.0, -1.0, NAN, INF), (0.1,)),
        ("compare.fdr", (0.0, 1.1, NAN), (0.01, 1.0)),
        ("compare.margin", (1.0, 0.5, -2.0, 1001.0, NAN, INF, "2"), (1.01, 1.5, 1000.0, 2)),
        ("compare.aligned", (1.0, 0.5, 1001.0, NAN, INF), (1.01, 2.0, 1000.0)),
        ("compare.confirm", (-0.1, 0.91, NAN), (0.0, 0.5, 0.9)),
        ("compare.clusters", (1, None), ("auto",)),
        ("overwrite", (1, "yes"), (True,)),
        ("real.path", (5, None), ("x",)),
    ],
)
def test_borders_of_values(key, wrong, right):
    for value in right:
        ranges.check_values({key: value})
    for value in wrong:
        with pytest.raises(UserError, match=rf"^{key}=.*: expected .*--config\.{key}$"):
            ranges.check_values({key: value})


def test_a_range_says_what_it_allows():
    assert str(ranges.COUNT) == "a whole number from 1 on"
    assert str(ranges.AUTO) == "a whole number from 1 on, or -1"
    assert str(ranges.SHARE) == "a number from 0 to 1"
    assert str(ranges.POSITIVE) == "a number above 0"
    assert str(ranges.RANGES["train.warmup_share"]) == "a number from 0 to below 1"
    assert str(ranges.RANGES["seed"]) == "a whole number from 0 to 4294967295"
