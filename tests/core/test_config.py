"""The names that `core.config` checks without importing a model are those that exist."""

import pytest

from bsjax import presets
from bsjax.core import config
from bsjax.core.errors import UserError
from bsjax.models.dinov2 import VARIANTS
from bsjax.sae.gradient import ACTIVATIONS, LOSSES
from bsjax.stats import divergences


def test_choices_are_those_of_the_modules():
    assert set(config.ENCODER_VARIANTS) == set(VARIANTS)
    for name, variant in VARIANTS.items():
        assert config.patch_size(name) == variant.patch_size
    assert set(config.LOSSES) == set(LOSSES)
    assert set(config.ACTIVATIONS) == set(ACTIVATIONS)
    assert set(config.FORMS) == set(divergences.FORMS)


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
        ("compare.suppressed", 0.95),
        ("measure.top_images", 0),
        ("train.n_active", 0),
        ("real.max_bad", 1.5),
    ],
)
def test_validate_names_the_flag_to_change(key, value):
    config.validate(change())
    with pytest.raises(UserError, match=rf"^{key}.*--config\.{key}"):
        config.validate(change(**{key: value}))
