"""The encoder that a config names, as far as it is known before its weights are read."""

import contextlib
import re
from collections.abc import Iterator

import ml_collections

from bsjax.core.errors import UserError
from bsjax.encoders.loading import choose_preprocessing, open_backbone
from bsjax.encoders.protocol import Backbone
from bsjax.encoders.registry import is_plug_in

_FIELD = re.compile(r"(?<![\w.])(weights|variant|crop|resize|dtype)=")
_WAY_OUT = re.compile(r"(?<![\w.])(set|or) (weights|variant)\b")


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
    with naming_encoder():
        opened = open_backbone(source, encoder.variant or None, encoder.dtype)
        choose_preprocessing(opened, encoder.resize, encoder.crop)
    return opened


@contextlib.contextmanager
def naming_encoder() -> Iterator[None]:
    """Says of a mistake with `load_encoder`'s arguments which keys of the config these are."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if "--config." not in text:
            text = _WAY_OUT.sub(r"\1 --config.encoder.\2", text)
            text = _FIELD.sub(r"encoder.\1=", text)
        raise UserError(text) from error
