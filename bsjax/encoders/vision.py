"""What CLIP's and SigLIP's image towers have in common as encoders."""

import hashlib
import json
from typing import Any, ClassVar

import jax.numpy as jnp

from bsjax.convert.encoder_files import (
    RANDOM,
    abstract_params,
    describe_random,
    download,
    open_weights,
    random_params,
)
from bsjax.convert.image_processor import read_preprocessing
from bsjax.convert.tables import check, convert
from bsjax.convert.vision_config import read_tower
from bsjax.convert.vision_transformer import RULES
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE, Preprocessing
from bsjax.encoders.protocol import Weights
from bsjax.models.vision_transformer import VisionConfig, normalise

FIELD = "{weights}"  # as `UserError` takes the names of arguments
WAY_OUT = "set {weights} to those of this model, or {variant} to theirs"


class VisionTower:
    """An image tower from a repository of transformers' layout, of both towers or of this alone."""

    VARIANTS: ClassVar[dict[str, VisionConfig]]
    MODEL_TYPES: ClassVar[tuple[str, ...]]
    MODULE: ClassVar[type]
    # What a repository without preprocessor_config.json was trained with.
    MEAN: ClassVar[tuple[float, float, float]]
    STD: ClassVar[tuple[float, float, float]]
    IS_WHOLE: ClassVar[bool]  # all of an image is seen, whatever its proportions
    is_particular = True  # about its preprocessing: another one is worth a note

    def __init__(self, weights: str, variant: str | None, dtype: str):
        self._weights, self._found = weights, None
        config, folder = self.VARIANTS.get(variant), None
        if weights and not weights.startswith(RANDOM):
            self._found, folder = open_weights(weights, FIELD, lambda repo: download(repo, FIELD))
            config = self._choose_sizes(folder, variant)
        self.variant = variant or self._name(config)
        resize = WHOLE if self.IS_WHOLE else config.image_size
        self.preprocessing = Preprocessing(resize, config.image_size, self.MEAN, self.STD)
        if folder is not None:
            self.preprocessing = read_preprocessing(folder, self.preprocessing, FIELD)
        self.width, self.patch_size = config.width, config.patch_size
        self.model = self.MODULE(config, jnp.dtype(dtype))
        if self._found is not None:
            check(self._found, RULES[self.MODULE], self.abstract_params(), weights, WAY_OUT)
        is_random = weights.startswith(RANDOM)
        self.notes = (describe_random(self.variant, weights),) if is_random else ()

    def _choose_sizes(self, folder, variant: str | None) -> VisionConfig:
        """Those of config.json, which must be the variant's where one is named."""
        found = None if folder is None else read_tower(folder, FIELD, self.MODEL_TYPES)
        wanted = self.VARIANTS.get(variant)
        config = found or wanted
        if config is None:
            raise UserError(
                f"{{weights}}={self._weights} have no config.json to say their sizes; set"
                f" {{variant}} to one of {', '.join(self.VARIANTS)}",
                "variant",
                "weights",
            )
        if wanted is not None and config != wanted:
            pairs = [(name, vars(config)[name], value) for name, value in vars(wanted).items()]
            differing = [pair for pair in pairs if pair[1] != pair[2]]
            got = ", ".join(f"{name} {value}" for name, value, _ in differing)
            expected = ", ".join(f"{name} {value}" for name, _, value in differing)
            raise UserError(
                f"{{weights}}={self._weights} hold {self._name(config)} with {got}; expected"
                f" {variant} with {expected}: set {{variant}} or {{weights}}",
                "weights",
                "variant",
            )
        return config

    def _name(self, config: VisionConfig) -> str:
        """The variant of these sizes, or the sizes."""
        for name, sizes in self.VARIANTS.items():
            if sizes == config:
                return name
        kind = self.MODEL_TYPES[0]
        return f"{kind} of width {config.width}, depth {config.depth}, patches {config.patch_size}"

    def grid(self, height: int, width: int) -> Grid:
        """As the protocol."""
        return self.model.config.grid(height, width)

    def abstract_params(self) -> Any:
        """As the protocol."""
        return abstract_params(self.model)

    def load_params(self) -> Weights:
        """As the protocol; the digest counts sizes and normalisation, too."""
        if self._found is None:
            params = random_params(self.model, self._weights, FIELD)
            return Weights(params, f"{self.variant} {self._weights}")
        source = self._found
        rules = RULES[self.MODULE]
        expected = self.abstract_params()
        params = convert(source.shapes, source.read, rules, expected, self._weights, WAY_OUT)
        own = self.preprocessing
        identity = [source.digest(), vars(self.model.config), own.mean, own.std, own.interpolation]
        text = json.dumps(identity, sort_keys=True)
        return Weights(params, hashlib.sha256(text.encode()).hexdigest()[:16])

    def apply(self, params, images):
        """As the protocol."""
        own = self.preprocessing
        return self.model.apply({"params": params}, normalise(images, own.mean, own.std))
