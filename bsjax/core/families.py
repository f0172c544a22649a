"""The text-to-image systems that come with bsjax, by name; no module of one is imported for it."""

from typing import NamedTuple


class Family(NamedTuple):
    """A system as configs, command line and Python know it."""

    place: str  # module:Class, imported when asked for
    pipelines: tuple[str, ...]  # class names in model_index.json
    steps: int  # of the pipeline's defaults
    guidance: float


FAMILIES = {
    "stable_diffusion": Family(
        "bsjax.generators.stable_diffusion:StableDiffusion", ("StableDiffusionPipeline",), 50, 7.5
    ),
    "pixart": Family("bsjax.generators.pixart:PixArt", ("PixArtAlphaPipeline",), 20, 4.5),
    "kandinsky": Family(
        "bsjax.generators.kandinsky:Kandinsky",
        ("KandinskyPipeline", "KandinskyCombinedPipeline"),
        100,
        4.0,
    ),
}
