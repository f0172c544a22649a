"""Text-to-image models: captions -> images, the same that `bsjax generate` draws."""

import dataclasses
import functools
import io
import pathlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from absl import logging
from etils import epath
from PIL import Image

from bsjax import presets
from bsjax.api.arguments import naming_arguments
from bsjax.api.images import Picture
from bsjax.convert.config_keys import read_object
from bsjax.convert.hub import download_snapshot
from bsjax.core.errors import UserError
from bsjax.core.families import FAMILIES
from bsjax.core.logs import quiet_libraries
from bsjax.core.ranges import DTYPES, LARGEST_SEED, RANGES, whole
from bsjax.data.image_shards import Prompt
from bsjax.experiment.text_phase import TextFeatures
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from bsjax.generators.random_weights import RANDOM
from bsjax.generators.repository import INDEX
from bsjax.stages import generate as stage

NAMES = {"generator.weights": "source", "generator.name": "family"}
FAMILY_OF_PIPELINE = {
    pipeline: name for name, family in FAMILIES.items() for pipeline in family.pipelines
}
# Steps and guidance of each pipeline's defaults.
DEFAULTS = {name: (family.steps, family.guidance) for name, family in FAMILIES.items()}
PIXELS = 512  # of the paper, and where a model does not tell


@dataclasses.dataclass(frozen=True, eq=False)
class TextToImage:
    """A text-to-image model, ready to draw.

    Attributes:
      opened: its networks and where their weights are; read when images are drawn.
      source: what it was opened from.
    """

    opened: loading.Opened
    source: str

    def __repr__(self) -> str:
        return f"TextToImage({self.source}: {self.settings})"

    @property
    def settings(self) -> Settings:
        """How images are drawn."""
        return self.opened.generator.settings

    def generate(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        keys: Sequence[str] | None = None,
        batch_per_device: int = -1,
    ) -> list[Picture]:
        """Draws one image per caption.

        An image depends on the seed, its caption and its place alone, not on the batch.

        Args:
          captions: texts, none of them empty.
          seed: of all noise.
          keys: names that pair the images with others', such as `real.keys`; by default numbers.
          batch_per_device: images at once on each device; -1: 1 on a CPU, 8 on accelerators.

        Returns:
          Pictures in the order of the captions: key, caption, image (PIL, RGB). Those whose numbers
          are not finite, in float32 too, are left out, with a warning.

        Raises:
          UserError: no captions, an empty one, or not one image that is finite.
        """
        prompts = _prompts(captions, keys)
        if not whole(0, LARGEST_SEED).holds(seed):
            raise UserError(
                f"{{seed}}={seed!r}: expected {whole(0, LARGEST_SEED)}; set {{seed}} so", "seed"
            )
        bounds = RANGES["generator.batch_per_device"]
        if not bounds.holds(batch_per_device):
            raise UserError(
                f"{{batch_per_device}}={batch_per_device!r}: expected {bounds}; set it so",
                "batch_per_device",
            )
        config = presets.experiment()
        config.seed, config.generator.batch_per_device = seed, batch_per_device
        with naming_arguments(NAMES), tempfile.TemporaryDirectory(prefix="bsjax-") as folder:
            return self._draw(config, prompts, epath.Path(folder))

    def _draw(self, config: Any, prompts: list[Prompt], folder: epath.Path) -> list[Picture]:
        generator = self.opened.generator
        captions = [prompt.caption for prompt in prompts]
        tokens = generator.prompts(captions)
        if tokens.n_truncated:
            logging.warning(
                "%d captions are longer than the text encoder reads", tokens.n_truncated
            )
        read_batch = functools.partial(stage.rows_of, tokens.arrays)
        if generator.TEXT_COMPONENTS:
            features = TextFeatures(folder / "features", self.opened, captions)
            features.make()
            read_batch = features.batch
        names = [name for name in generator.components if name not in generator.TEXT_COMPONENTS]
        drawing = stage.Drawing(config, self.opened, names, prompts, read_batch)
        pictures = []
        with ThreadPoolExecutor(stage.PNG_THREADS) as pool:
            for _, outcomes in stage.in_batches(drawing, [(0, list(range(len(prompts))))], pool):
                for _, (prompt, png, _) in outcomes:
                    if png is not None:
                        image = Image.open(io.BytesIO(png)).convert("RGB")
                        pictures.append(Picture(prompt.key, prompt.caption, image))
        if not pictures:
            raise UserError(
                f"not one of {len(prompts)} images is finite, in float32 too; check the weights of"
                f" {self.source}"
            )
        return pictures


def load_generator(
    source: str,
    *,
    family: str | None = None,
    variant: str = "",
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    dtype: str = "bfloat16",
    prior_steps: int = 25,
    prior_guidance: float = 4.0,
    unet: str = "",
    prior: str = "",
    revision: str | None = None,
) -> TextToImage:
    """Opens a text-to-image model; weights are read when it draws.

    Args:
      source: hub id, folder in the hub's layout, or random:SEED.
      family: stable_diffusion, pixart, kandinsky, or module:Class (`bsjax.generators.protocol`);
        None: as its model_index.json tells.
      variant: name of a released shape; for random weights alone.
      steps: of the denoiser; None: the pipeline's default (50, 20, 100).
      guidance: classifier-free, 1: none; None: the pipeline's default (7.5, 4.5, 4).
      height: pixels; None: what the model was made for, of Kandinsky 512.
      width: the same.
      dtype: of the products, "float32" or "bfloat16".
      prior_steps: of Kandinsky's prior.
      prior_guidance: of Kandinsky's prior.
      unet: hub id or folder of another UNet.
      prior: hub id or folder of Kandinsky's prior.
      revision: of the hub repository.

    Raises:
      UserError: no such weights, a component is missing, of another form or damaged, or a size that
        cannot be.
    """
    source = str(source)
    if dtype not in DTYPES:
        raise UserError(
            f"{{dtype}}={dtype!r}: expected one of {', '.join(DTYPES)}; set it to one",
            "dtype",
        )
    for name, value in (("steps", steps), ("guidance", guidance), ("height", height),
                        ("width", width), ("prior_steps", prior_steps),
                        ("prior_guidance", prior_guidance)):  # fmt: skip
        bounds = RANGES[f"generator.{name}"]
        if value is not None and not bounds.holds(value):
            raise UserError(f"{{{name}}}={value!r}: expected {bounds}", name)
    quiet_libraries()  # diffusers says at each call of a module that it is deprecated
    weights = {"": source, "unet": unet, "prior": prior}
    with naming_arguments(NAMES | {"unet_weights": "unet", "prior_weights": "prior"}):
        family = family or _family_of(source, revision)
        default_steps, default_guidance = DEFAULTS.get(family, (50, 7.5))
        settings = Settings(
            steps=steps or default_steps,
            guidance=default_guidance if guidance is None else guidance,
            height=height or PIXELS,
            width=width or PIXELS,
            dtype=dtype,
            prior_steps=prior_steps,
            prior_guidance=prior_guidance,
        )
        opened = loading.open_generator(family, variant, weights, settings, revision)
        native = _native_pixels(opened.configs)
        settings = settings._replace(height=height or native, width=width or native)
        opened = opened._replace(generator=opened.rebuild(settings))
    if source.startswith(RANDOM):
        logging.warning("UNTRAINED GENERATOR: %s has random weights; its images are noise", variant)
    return TextToImage(opened, source)


def _family_of(source: str, revision: str | None) -> str:
    """The family that a repository's model_index.json names."""
    if source.startswith(RANDOM):
        raise UserError(
            f"{source} tells no family; set {{family}} to one of {', '.join(DEFAULTS)}, and"
            " {variant}",
            "family",
            "variant",
        )
    folder = pathlib.Path(source).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or source.count("/") != 1:
            raise UserError(
                f"{{source}}={source}: expected a hub id (owner/name), a folder in the hub's"
                " layout, or random:SEED",
                "source",
            )
        folder = download_snapshot(source, "source", (INDEX,), revision)
    name = read_object(folder / INDEX, {}).get("_class_name")
    if not isinstance(name, str) or name not in FAMILY_OF_PIPELINE:
        raise UserError(
            f"{source} is a pipeline {name!r}, expected one of {', '.join(FAMILY_OF_PIPELINE)}; set"
            " {family}",
            "family",
        )
    return FAMILY_OF_PIPELINE[name]


def _native_pixels(configs: Any) -> int:
    """Side of the images that a latent diffusion model was made for, as its pipeline has it."""
    network = configs.get("unet") or configs.get("transformer") or {}
    latent, vae = network.get("sample_size"), configs.get("vae", {})
    channels = vae.get("block_out_channels")
    if not isinstance(latent, int) or not channels:
        return PIXELS
    return latent * 2 ** (len(channels) - 1)


def _prompts(captions: Sequence[str], keys: Sequence[str] | None) -> list[Prompt]:
    if isinstance(captions, str) or not hasattr(captions, "__len__"):
        raise UserError(
            f"{{captions}} is a {type(captions).__name__}, expected a list of texts; give one",
            "captions",
        )
    texts = [str(caption).strip() for caption in captions]
    if not texts:
        raise UserError("{captions} is empty, expected at least one text; add some", "captions")
    empty = [row for row, text in enumerate(texts) if not text]
    if empty:
        raise UserError(
            f"{{captions}}[{empty[0]}] is empty: there is nothing to draw; leave it out", "captions"
        )
    if keys is None:
        keys = [f"{row:06d}" for row in range(len(texts))]
    if len(keys) != len(texts):
        raise UserError(
            f"{{keys}} has {len(keys)} entries, expected one for each of {len(texts)} captions",
            "keys",
        )
    return [Prompt(row, str(keys[row]), text) for row, text in enumerate(texts)]
