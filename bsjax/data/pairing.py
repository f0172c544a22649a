"""Which generated image was made for which real one: by what a table says, by name, by caption.

Several generated images of one caption (cat_0, cat_1; seed0/cat, seed1/cat) belong to one real
image; the statistics count them as one.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bsjax.core.errors import UserError

NAMES, SAMPLES, CAPTIONS, LOT = "names", "samples", "captions", "lot"
UNPAIRED = "--config.compare.pairs=none"
# What tells the images of one caption apart: a number, perhaps with one of these words before it.
_NUMBER = r"(?:seed|sample|samples|image|img|run|s|v)?[_\- ]?\(?\d{1,10}\)?"
_SAMPLE_NAMES = (
    re.compile(rf"^(?P<name>.*[^_\-#. /])[_\-#. ]+{_NUMBER}$", re.I),  # cat_0, cat-s1, cat (2)
    re.compile(rf"^{_NUMBER}/(?P<name>.+)$", re.I),  # seed0/cat
    re.compile(rf"^(?P<name>[^/].*?)(?:/samples?)?/{_NUMBER}$", re.I),  # cat/0, cat/samples/0
)


class Named(NamedTuple):
    """What images are paired by.

    Attributes:
      keys: one for each image.
      captions: likewise; none where they are not known.
      clusters: key of what each image repeats; none where it is its own.
    """

    keys: Sequence[str]
    captions: Sequence[str] = ()
    clusters: Sequence[str] = ()


class Pairing(NamedTuple):
    """Rows of two lists of keys that belong together, in the order of the first.

    A real row comes once for each of its generated images.
    """

    rows_real: np.ndarray  # [n]
    rows_generated: np.ndarray  # [n]
    unpaired_real: tuple[str, ...]
    unpaired_generated: tuple[str, ...]
    by: str = NAMES  # names | samples | captions | lot
    labels: np.ndarray | None = None  # [n] of the clusters, where pairs are drawn by lot

    @property
    def has_samples(self) -> bool:
        """Whether a real image has several generated ones."""
        return len(np.unique(self.rows_real)) < len(self.rows_real)

    def keys(self, real: Sequence[str]) -> list[str]:
        """A name for each pair: the real image's key, with #1, #2, ... for its further images."""
        known, seen, found = set(real), {}, []
        for row in self.rows_real.tolist():
            number = seen.get(row, 0)
            name = f"{real[row]}#{number}" if number else real[row]
            while number and name in known:
                name = f"{name}+"
            seen[row] = number + 1
            found.append(name)
        return found

    @property
    def links(self) -> np.ndarray:
        """Pairs of pairs [M, 2] that share a real image."""
        first: dict[int, int] = {}
        rows = enumerate(self.rows_real.tolist())
        found = [(first.setdefault(row, place), place) for place, row in rows]
        return np.array([each for each in found if each[0] != each[1]], np.int64).reshape(-1, 2)


def pair_images(real: Named, generated: Named) -> Pairing:
    """Pairs each generated image with the real one that it was made for.

    By the key that a table gives for it, by its name, by its name without what tells several images
    of one caption apart; by caption where no name fits.

    Raises:
      UserError: nothing fits.
    """
    place = {key: row for row, key in enumerate(real.keys)}
    rows, by = _by_name(place, generated)
    if not any(row >= 0 for row in rows):
        rows, by = _by_caption(real, generated), CAPTIONS
    found = [(row, other) for other, row in enumerate(rows) if row >= 0]
    if not found:
        raise UserError(
            f"no image name in common: real has {_count(real.keys)}, generated"
            f" {_count(generated.keys)}{_captions_told(real, generated)}; name each generated image"
            " after the real image whose caption it was made from, or compare sets of different"
            f" captions with {UNPAIRED}"
        )
    rows_real, rows_generated = np.array(sorted(found), np.int64).T
    paired = set(rows_real.tolist())
    return Pairing(
        rows_real,
        rows_generated,
        tuple(key for row, key in enumerate(real.keys) if row not in paired),
        tuple(key for key, row in zip(generated.keys, rows, strict=True) if row < 0),
        by,
    )


def pair_keys(real: Sequence[str], generated: Sequence[str]) -> Pairing:
    """Pairs two lists of unique keys.

    Raises:
      UserError: no key in common.
    """
    return pair_images(Named(real), Named(generated))


def draw_pairs(
    real: Named, generated: Named, labels: tuple[np.ndarray, np.ndarray], seed: int
) -> Pairing:
    """Pairs clusters of two sets of different captions by lot, as many as the smaller set has.

    If nothing differs, each image of such a pair may as well be of the other arm, so that tests of
    pairs hold; the two are independent, so that pairing makes no change smaller.

    Args:
      real: the real images.
      generated: the generated ones.
      labels: cluster of each image of either set, numbered from 0.
      seed: of the lot.
    """
    rng = np.random.default_rng(seed)
    members = [_members(each) for each in labels]
    n = min(map(len, members))
    orders = [np.sort(rng.permutation(len(each))[:n]) for each in members]
    orders[1] = rng.permutation(orders[1])
    rows: list[tuple[int, int, int]] = []
    for label, (i, j) in enumerate(zip(*orders, strict=True)):
        left, right = members[0][i], members[1][j]
        for k in range(max(len(left), len(right))):
            rows.append((left[k % len(left)], right[k % len(right)], label))
    rows_real, rows_generated, drawn = np.array(rows, np.int64).T
    left_out = [
        tuple(key for row, key in enumerate(each.keys) if row not in used)
        for each, used in (
            (real, set(rows_real.tolist())),
            (generated, set(rows_generated.tolist())),
        )
    ]
    return Pairing(rows_real, rows_generated, *left_out, LOT, drawn)


def _members(labels: np.ndarray) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(int(labels.max(initial=-1)) + 1)]
    for row, label in enumerate(labels.tolist()):
        found[label].append(row)
    return found


def _by_name(place: dict[str, int], generated: Named) -> tuple[list[int], str]:
    told = generated.clusters or generated.keys
    rows = [
        place.get(cluster, -1) if cluster != key else -1
        for key, cluster in zip(generated.keys, told, strict=True)
    ]
    by = SAMPLES if any(row >= 0 for row in rows) else NAMES
    for other, key in enumerate(generated.keys):
        if rows[other] >= 0:
            continue
        rows[other] = place.get(key, -1)
        if rows[other] < 0:
            rows[other] = next((place[name] for name in _bases(key) if name in place), -1)
            by = SAMPLES if rows[other] >= 0 else by
    return rows, by


def real_names(real: Sequence[str], generated: Named) -> list[str]:
    """Of each generated image the name of the real one that it was made for, as `pair_images` finds
    it by key and name; "" where there is none."""
    rows, _ = _by_name({key: row for row, key in enumerate(real)}, generated)
    return [real[row] if row >= 0 else "" for row in rows]


def sample_of(key: str) -> str:
    """The name without what tells several images of one caption apart; itself where it has none."""
    return next(_bases(key), key)


def _bases(key: str) -> Iterator[str]:
    """Names that a key may be a sample of."""
    for pattern in _SAMPLE_NAMES:
        match = pattern.match(key)
        if match:
            yield match["name"]


def _by_caption(real: Named, generated: Named) -> list[int]:
    """Real rows of the generated images' captions; where several have one, in turn."""
    of_caption: dict[str, list[int]] = {}
    for row, caption in enumerate(real.captions):
        if plain_caption(caption):
            of_caption.setdefault(plain_caption(caption), []).append(row)
    rows, used = [], {}
    for caption in generated.captions or [""] * len(generated.keys):
        found = of_caption.get(plain_caption(caption), [])
        number = used.get(plain_caption(caption), 0)
        used[plain_caption(caption)] = number + 1
        rows.append(found[number % len(found)] if found else -1)
    return rows


def plain_caption(caption: str) -> str:
    """The form in which captions are matched."""
    return " ".join(caption.split())


def _count(keys: Sequence[str]) -> str:
    return f"{len(keys)} (such as {keys[0]!r})" if keys else "none"


def _captions_told(real: Named, generated: Named) -> str:
    if not any(map(plain_caption, generated.captions)) or not any(
        map(plain_caption, real.captions)
    ):
        return ""
    return ", and no caption of the one is a caption of the other"
