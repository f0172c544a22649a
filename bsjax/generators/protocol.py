"""What every generator is: components with parameters, prompts as arrays, one pure sampler.

To plug in another system, write a class with the methods of `Generator` anywhere that Python can
import, and name it: --config.generator.name=my_module:MyClass. tests/generators/stripes.py is an
example.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped, UInt8

MAIN = ""  # the repository that cfg.generator.weights names


def flag_of(repository: str) -> str:
    """The flag that names a repository."""
    return (
        f"--config.generator.{repository}_weights" if repository else "--config.generator.weights"
    )


class Settings(NamedTuple):
    """How images are drawn."""

    steps: int  # of the denoiser
    guidance: float  # classifier-free; 1: none
    height: int  # pixels
    width: int
    dtype: str  # of the matmuls and convolutions; samples stay float32
    prior_steps: int = 25  # Kandinsky
    prior_guidance: float = 4.0


class Component(NamedTuple):
    """One network of a system, as it lies in a repository."""

    module: Any
    shapes: Any  # nested tree of ShapeDtypeStruct, float32
    folder: str  # in the repository
    stems: tuple[str, ...]  # names of the weight file, without suffix
    repository: str = ""  # "": the main one; else the name of another (unet, prior)
    renames: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()


class RoundTrip(NamedTuple):
    """Real images through a system's own autoencoder; a system may have `round_trip()` for it.

    Attributes:
      name: of the component.
      component: both halves of the autoencoder.
      height, width: pixels of the images that it takes.
      apply: (parameters of the component, images [B, H, W, 3] in [-1, 1]) -> images in about the
        same, of the size that the system draws.
    """

    name: str
    component: Component
    height: int
    width: int
    apply: Callable[[Any, Array], Array]


class Prompts(NamedTuple):
    """Captions as the sampler takes them: arrays with one row per caption."""

    arrays: dict[str, np.ndarray]
    n_truncated: int  # captions longer than the text encoder reads


class Samples(NamedTuple):
    """Images and which of them are numbers throughout."""

    images: UInt8[Array, "B H W 3"]
    is_finite: Bool[Array, " B"]


@runtime_checkable
class Generator(Protocol):
    """A text-to-image system without its parameters."""

    # Where the config files and tokenizers lie: name -> (repository, folder[, class]).
    CONFIGS: ClassVar[Mapping[str, tuple[str, str]]]
    TOKENIZERS: ClassVar[Mapping[str, tuple[str, str, str]]]
    # Components of a first phase, `encode_text`, after which they leave memory; () for none.
    TEXT_COMPONENTS: ClassVar[tuple[str, ...]]
    settings: Settings
    components: Mapping[str, Component]

    def prompts(self, captions: Sequence[str]) -> Prompts:
        """Tokenises."""

    def abstract_prompts(self, n: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of `n` captions' arrays."""

    def sample(self, params: Any, batch: dict[str, Array], keys: Key[Array, " B"]) -> Samples:
        """Draws one image per row; pure, and row by row independent of the others."""


def as_samples(images: Float[Array, "B H W 3"]) -> Samples:
    """Pixels from [-1, 1] to whole levels, rounded as the reference pipelines do."""
    is_finite = jnp.all(jnp.isfinite(images), axis=(1, 2, 3))
    unit = jnp.clip(images / 2 + 0.5, 0, 1)
    return Samples(jnp.round(unit * 255).astype(jnp.uint8), is_finite)


def normal_rows(keys: Key[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Noise that depends on each row's key alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def guided(
    predict: Any, x: Float[Array, "B ..."], guidance: float, *conditions: Shaped[Array, "B 2 ..."]
) -> Float[Array, "B ..."]:
    """Classifier-free guidance, arXiv:2207.12598, eq. 6.

    The two rows of an image stand side by side, so that a batch divided over devices stays so:
    no device needs another's rows.

    Args:
      predict: (samples [2B, ...], conditions [2B, ...] ...) -> outputs [2B, ...].
      x: samples.
      guidance: weight; at 1 the unconditional half is not computed.
      conditions: for each image without and with its caption.
    """
    if guidance == 1.0:
        return predict(x, *(condition[:, 1] for condition in conditions))
    n = x.shape[0]
    doubled = jnp.repeat(x, 2, axis=0)
    rows = [condition.reshape(2 * n, *condition.shape[2:]) for condition in conditions]
    output = predict(doubled, *rows)
    output = output.reshape(n, 2, *output.shape[1:]).astype(jnp.float32)
    return output[:, 0] + guidance * (output[:, 1] - output[:, 0])


def pair(
    without: Shaped[Array, "..."], with_caption: Shaped[Array, "B ..."]
) -> Shaped[Array, "B 2 ..."]:
    """The unconditional row beside each conditional one."""
    return jnp.stack([jnp.broadcast_to(without, with_caption.shape), with_caption], axis=1)
