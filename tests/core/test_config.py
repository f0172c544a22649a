"""The names that `core.config` checks without importing a model are those that exist."""

from bsjax import presets
from bsjax.core import config
from bsjax.models.dinov2 import VARIANTS
from bsjax.sae.losses import LOSSES
from bsjax.stats import divergences


def test_choices_are_those_of_the_modules():
    assert set(config.ENCODER_VARIANTS) == set(VARIANTS)
    assert {variant.patch_size for variant in VARIANTS.values()} == {config.PATCH_SIZE}
    assert set(config.LOSSES) == set(LOSSES)
    assert set(config.FORMS) == set(divergences.FORMS)


def test_execution_keys_exist_and_decide_no_result():
    experiment = presets.experiment()
    assert set(config.EXECUTION_KEYS) <= set(config.flatten(experiment))
    selected = config.select(experiment, ("encoder",))
    assert "encoder.resize" in selected
    assert not set(config.EXECUTION_KEYS) & set(selected)
