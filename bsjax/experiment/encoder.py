"""The encoder that a config names, as far as it is known before its weights are read."""

import ml_collections

from bsjax.core.errors import naming
from bsjax.encoders.loading import FIELDS, choose_preprocessing, open_backbone
from bsjax.encoders.protocol import Backbone
from bsjax.encoders.registry import is_plug_in

FLAGS = {field: f"--config.encoder.{field}" for field in FIELDS}


def open_encoder(config: ml_collections.ConfigDict) -> Backbone:
    """The encoder of the config by headers and configs of its weights; none is read.

    Raises:
      UserError: no such weights, damaged, of another model; a plug-in that is no encoder; a crop
        that it does not take.
    """
    return _open(config, config.encoder.weights)


def encoder_to_plan(config: ml_collections.ConfigDict) -> Backbone:
    """The encoder of the config by its variant's sizes; no weights are looked for.

    Raises:
      UserError: no variant is named; a plug-in that is no encoder.
    """
    source = config.encoder.weights if is_plug_in(config.encoder.variant) else ""
    return _open(config, source)


def _open(config: ml_collections.ConfigDict, source: str) -> Backbone:
    encoder = config.encoder
    with naming(FLAGS):
        opened = open_backbone(source, encoder.variant or None, encoder.dtype)
        choose_preprocessing(opened, encoder.resize, encoder.crop)
    return opened
