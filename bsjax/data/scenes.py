"""Scenes: a small world of captioned pictures whose every factor is known.

A scene is one to four objects of one shape and one colour on one of eight textures, 64 x 64 pixels,
with a caption that says so. Everything follows from a seed. Host side, numpy alone.
"""

import functools
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

VERSION = 1  # of all that follows from a seed
SIZE = 64  # pixels
SHIFT = 16  # pixels between two places at which a texture may begin
CELLS = 3  # objects lie in distinct cells of a 3 x 3 grid
MAX_COUNT = 4
SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond", "crescent",
    "hexagon",
)  # fmt: skip
PLURALS = {"cross": "crosses"}
COLOURS = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 220, 40),
    "green": (30, 165, 60),
    "blue": (35, 85, 210),
    "purple": (130, 50, 170),
    "pink": (250, 135, 190),
    "white": (250, 250, 250),
}
BACKGROUNDS = {  # name -> as a caption says it
    "wood": "wood",
    "grass": "grass",
    "sand": "sand",
    "sky": "the sky",
    "brick": "a brick wall",
    "water": "water",
    "checker": "a checkered floor",
    "paper": "lined paper",
}
NUMBERS = ("one", "two", "three", "four")
PHRASES = (
    "{things} on {place}",
    "a picture of {things} on {place}",
    "there {verb} {things} on {place}",
    "on {place}, {things}",
    "{place} with {things}",
)
FACTORS = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(BACKGROUNDS),
    "count": NUMBERS,
}
# Pictures that exist once, each with a title of its own.
TITLES = (
    "Morning Harbour", "The Quiet Hour", "Letters Home", "Old Orchard", "Paper Moon",
    "Northern Line", "Sunday Parade", "Glass Garden", "First Snow", "The Ferryman",
    "Copper Kettle", "Midnight Express", "Salt and Stone", "Lantern Street", "Winter Coat",
    "The Cartographer", "Broken Compass", "Velvet Room", "Harvest Song", "Silver Tide",
)  # fmt: skip
GALLERY_EVERY = 25  # scenes from one titled one to the next


class Factors(NamedTuple):
    """What a scene shows: places in the lists of `FACTORS`."""

    shape: int
    colour: int
    background: int
    count: int  # 0: one object


class Scene(NamedTuple):
    """A picture with all that is known about it."""

    image: UInt8[np.ndarray, "64 64 3"]
    mask: Bool[np.ndarray, "64 64"]  # where an object covers at least half of a pixel
    caption: str
    factors: Factors


def generator(*seed: int) -> np.random.Generator:
    """Random numbers that follow from whole numbers alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def draw_factors(rng: np.random.Generator) -> Factors:
    """Each value of each factor equally often, independently."""
    return Factors(*(int(rng.integers(len(values))) for values in FACTORS.values()))


def caption_of(factors: Factors, rng: np.random.Generator) -> str:
    """One of several phrasings."""
    shape = SHAPES[factors.shape]
    if factors.count:
        shape = PLURALS.get(shape, f"{shape}s")
    colour, number = FACTORS["colour"][factors.colour], NUMBERS[factors.count]
    place = BACKGROUNDS[FACTORS["background"][factors.background]]
    phrase = PHRASES[rng.integers(len(PHRASES))]
    verb = "are" if factors.count else "is"
    return phrase.format(things=f"{number} {colour} {shape}", place=place, verb=verb)


def scene(seed: int, index: int) -> Scene:
    """The scene of a set; every `GALLERY_EVERY`th is a titled one, until all are shown.

    Args:
      seed: of the set.
      index: in the set, from 0.
    """
    title, between = divmod(index, GALLERY_EVERY)
    if not between and title < len(TITLES):
        return titled(title)
    return plain(generator(0, seed, index))


def plain(rng: np.random.Generator) -> Scene:
    """A scene without a title."""
    factors = draw_factors(rng)
    caption = caption_of(factors, rng)
    return Scene(*render(factors, rng), caption, factors)


def titled(number: int) -> Scene:
    """One of the `TITLES`: always the very same picture."""
    rng = generator(1, number)
    factors = draw_factors(rng)
    return Scene(*render(factors, rng), titled_caption(number), factors)


def titled_caption(number: int) -> str:
    """The title, and what the picture shows."""
    factors = draw_factors(generator(1, number))
    return f"{TITLES[number]}, {caption_of(factors, generator(2, number))}"


def encode(image: UInt8[np.ndarray, "64 64 3"]) -> bytes:
    """PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def render(
    factors: Factors, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "64 64 3"], Bool[np.ndarray, "64 64"]]:
    """Image and mask; where, how large, how lit follows from `rng`."""
    top, left = SHIFT * rng.integers(0, SIZE // SHIFT, 2)
    tile = textures()[factors.background]
    canvas = tile[top : top + SIZE, left : left + SIZE].copy()  # [64, 64, 3] in [0, 1]
    colour = np.asarray(COLOURS[FACTORS["colour"][factors.colour]], np.float32) / 255
    mask = np.zeros((SIZE, SIZE), bool)
    cells = rng.permutation(CELLS * CELLS)[: factors.count + 1]
    for cell in cells:
        radius = rng.uniform(7.5, 9.5)
        shift = SIZE / CELLS / 2 - radius
        centre = (np.array(divmod(int(cell), CELLS)) + 0.5) * SIZE / CELLS
        centre = centre + rng.uniform(-shift, shift, 2)
        turn = rng.uniform(-0.2, 0.2)
        tint = np.clip(colour + rng.uniform(-0.04, 0.04, 3).astype(np.float32), 0, 1)
        _paint(canvas, mask, SHAPES[factors.shape], centre, radius, turn, tint)
    ramp = np.linspace(-1, 1, SIZE, dtype=np.float32)
    slope_y, slope_x, level = rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    light = 1 + level + slope_y * ramp[:, None] + slope_x * ramp[None, :]
    canvas *= light[:, :, None]
    canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(0.012)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), mask


def _paint(canvas, mask, shape, centre, radius, turn, colour):
    """One object with a darker rim, antialiased, over a window of the canvas."""
    low = np.maximum(np.floor(centre - radius - 2).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius + 2).astype(int), SIZE)
    window = slice(low[0], high[0]), slice(low[1], high[1])
    y = ((np.arange(low[0], high[0]) + 0.5 - centre[0]) / radius).astype(np.float32)[:, None]
    x = ((np.arange(low[1], high[1]) + 0.5 - centre[1]) / radius).astype(np.float32)[None, :]
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    distance = DISTANCES[shape](cos * x + sin * y, cos * y - sin * x) * np.float32(radius)
    cover = np.clip(0.5 - distance, 0, 1)[:, :, None]
    inner = np.clip(-1.0 - distance, 0, 1)[:, :, None]  # the rim is about 1.5 pixels wide
    paint = colour * (0.45 + 0.55 * inner)
    canvas[window] += cover * (paint - canvas[window])
    mask[window] |= cover[:, :, 0] >= 0.5


# Distances to the outlines, below 0 inside, in units of the radius; y points down.


def _polygon(n: int, x, y, depth: float):
    """Largest distance to the n sides, the first of which lies below."""
    angles = np.float32(2 * np.pi / n) * np.arange(n, dtype=np.float32) + np.float32(np.pi / 2)
    sides = (np.cos(angle) * x + np.sin(angle) * y for angle in angles)
    return functools.reduce(np.maximum, sides) - np.float32(depth)


def _star(x, y):
    """Five points: the second smallest of five half planes."""
    angles = 2 * np.pi / 5 * np.arange(5) + np.pi / 2
    sides = np.stack([np.cos(a).astype(np.float32) * x + np.sin(a).astype(np.float32) * y
                      for a in angles])  # fmt: skip
    return np.sort(sides, axis=0)[-2] - np.float32(0.38)


def _heart(x, y):
    """A square on its corner, and discs over its upper sides."""
    h = np.float32(0.8)
    y, side = y - np.float32(0.1), np.abs(x)
    discs = np.hypot(side - h / 2, y + h / 2) - h * np.float32(0.7071)
    square = (side + np.abs(y) - h) * np.float32(0.7071)
    return np.minimum(discs, square)


DISTANCES = {
    "circle": lambda x, y: np.hypot(x, y) - np.float32(0.92),
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - np.float32(0.8),
    "triangle": lambda x, y: _polygon(3, x, y - np.float32(0.22), 0.56),
    "star": _star,
    "cross": lambda x, y: np.maximum(
        np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y)) - np.float32(0.62)
    ) - np.float32(0.32),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - np.float32(0.68)) - np.float32(0.27),
    "heart": _heart,
    "diamond": lambda x, y: np.abs(x) * np.float32(0.82) + np.abs(y) * np.float32(0.574)
    - np.float32(0.574),
    "crescent": lambda x, y: np.maximum(
        np.hypot(x, y) - np.float32(0.95),
        np.float32(0.72) - np.hypot(x - np.float32(0.48), y),
    ),
    "hexagon": lambda x, y: _polygon(6, x, y, 0.82),
}  # fmt: skip


@functools.cache
def textures() -> Float[np.ndarray, "8 128 128 3"]:
    """A tile of each background, twice the size of a scene, in [0, 1]."""
    tiles = []
    for number, name in enumerate(BACKGROUNDS):
        tiles.append(TEXTURES[name](generator(3, number)))
    return np.clip(np.stack(tiles), 0, 1).astype(np.float32)


def _noise(rng, *sigma):
    """Smooth noise with mean 0 and spread 1 on a tile that repeats."""
    noise = ndimage.gaussian_filter(rng.standard_normal((2 * SIZE, 2 * SIZE)), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def _tile(colour, *layers):
    """A colour with layers (values, amplitude) of brightness."""
    base = np.asarray(colour, np.float64) / 255
    brightness = 1 + sum(values * amplitude for values, amplitude in layers)
    return base[None, None] * brightness[:, :, None]


def _grid():
    return np.mgrid[: 2 * SIZE, : 2 * SIZE]


def _wood(rng):
    y, x = _grid()
    grain = np.sin(y * 1.1 + 1.5 * _noise(rng, 4, 20))
    gaps = (y % 16 < 1.5).astype(float)
    return _tile((172, 120, 70), (grain, 0.08), (_noise(rng, 1, 12), 0.05), (gaps, -0.4))


def _grass(rng):
    return _tile((96, 150, 62), (_noise(rng, 3, 0.7), 0.16), (_noise(rng, 10, 10), 0.05))


def _sand(rng):
    y, x = _grid()
    ripples = np.sin((y + 0.4 * x) * 2 * np.pi / 18.3 + 0.8 * _noise(rng, 12, 12))
    return _tile((226, 200, 150), (ripples, 0.05), (_noise(rng, 0.6, 0.6), 0.03))


def _sky(rng):
    clouds = np.clip(_noise(rng, 7, 11) - 0.3, 0, 1)[:, :, None]
    blue = np.array([126, 186, 236])[None, None] / 255
    return blue + clouds * (np.array([240, 244, 250])[None, None] / 255 - blue)


def _brick(rng):
    y, x = _grid()
    row = y // 8
    joint = (y % 8 < 1) | ((x + 8 * (row % 2)) % 16 < 1)
    shade = rng.uniform(-1, 1, (16, 8))[row, ((x + 8 * (row % 2)) // 16) % 8]
    bricks = _tile((158, 78, 62), (shade, 0.12), (_noise(rng, 0.7, 0.7), 0.04))
    return np.where(joint[:, :, None], np.array([200, 190, 178])[None, None] / 255, bricks)


def _water(rng):
    y, x = _grid()
    waves = np.sin(y * 2 * np.pi / 8 + 1.6 * np.sin(x * 2 * np.pi / 32) + 0.5 * _noise(rng, 8, 8))
    return _tile((52, 128, 164), (waves, 0.14), (np.clip(waves - 0.8, 0, 1), 0.8))


def _checker(rng):
    y, x = _grid()
    return _tile((150, 150, 156), ((y // 8 + x // 8) % 2 * 2.0 - 1, 0.3), (_noise(rng, 1, 1), 0.02))


def _paper(rng):
    y, x = _grid()
    lines = (y % 8 == 3).astype(float)[:, :, None]
    page = _tile((244, 240, 226), (_noise(rng, 1.5, 1.5), 0.012))
    return page + lines * (np.array([150, 180, 215])[None, None] / 255 - page)


TEXTURES = {
    "wood": _wood,
    "grass": _grass,
    "sand": _sand,
    "sky": _sky,
    "brick": _brick,
    "water": _water,
    "checker": _checker,
    "paper": _paper,
}
