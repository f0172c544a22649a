"""comparisons/<set>/statistics.npz: what a comparison can be made from again, without images.

real_* and generated_*  CSR parts (data, indices, indptr) of the pairs' image codes [n, K]
shape                   n and K
twins                   rows [M, 2] of near duplicates among the real images, where known
links                   rows [M, 2] of pairs of one real image or caption, where there are any
sum_*                   the eight sums of each concept over the clusters, `bsjax.stats.sums`
tokens_real_* etc.      CSR parts of the tokens that fire [n, K]; not where not known
control_*_data etc.     CSR parts of the codes of the real images, changed, by control [n, K], and
                        which pairs have them: control_*_known [n]; where controls were measured
shows_*                 images that show each concept, of all measured ones, those of one caption
                        weighing as one [K]; where images are missing
fires_*                 tokens of all measured images [K]; -1 where not known
text                    keys and captions of the pairs and words of the concepts, JSON in UTF-8
"""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from bsjax.core.artifacts import atomic_path
from bsjax.core.paths import AnyPath
from bsjax.stats.control_shifts import Changed
from bsjax.stats.sums import Sums

ARMS = ("real", "generated")
TOKENS = ("tokens_real", "tokens_generated")
CONTROL, KNOWN = "control_", "_known"
PARTS = ("data", "indices", "indptr")


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Paired image codes with what a table of concepts says beside the statistics.

    Attributes:
      real: [n, K] codes of the real image of each pair.
      generated: [n, K] codes of its counterpart.
      keys: of the pairs.
      captions: of the pairs; None where there are none.
      words: of the concepts.
      fires: [K] of all measured real and generated images; -1 where not known.
      sums: over the clusters.
      tokens: [n, K] that fire in the real and the generated image; None where not known.
      twins: rows [M, 2] of pairs whose real images are near duplicates by their patches; None where
        patches were not kept.
      changed: the real images, changed, by control.
      shows: [K] real and generated images that show each concept, of all measured ones, those of
        one caption weighing as one; None where no image is missing.
      links: rows [M, 2] of pairs that are known to repeat one another; None where none do.
    """

    real: sp.csr_array
    generated: sp.csr_array
    keys: list[str]
    captions: list[str] | None
    words: list[str]
    fires: tuple[np.ndarray, np.ndarray]
    sums: Sums
    tokens: tuple[sp.csr_array, sp.csr_array] | None = None
    twins: np.ndarray | None = None
    changed: Mapping[str, Changed] = dataclasses.field(default_factory=dict)
    links: np.ndarray | None = None
    shows: tuple[np.ndarray, np.ndarray] | None = None


def write_statistics(path: AnyPath, statistics: Statistics) -> None:
    """Writes the file, whole or not at all."""
    arrays = {"shape": np.array(statistics.real.shape)}
    matrices = dict(zip(ARMS, (statistics.real, statistics.generated), strict=True))
    if statistics.tokens is not None:
        matrices |= dict(zip(TOKENS, statistics.tokens, strict=True))
    matrices |= {CONTROL + name: each.codes for name, each in statistics.changed.items()}
    for name, codes in matrices.items():
        arrays |= {f"{name}_{part}": getattr(codes, part) for part in PARTS}
    arrays |= {f"fires_{arm}": n for arm, n in zip(ARMS, statistics.fires, strict=True)}
    for name, each in statistics.changed.items():
        arrays[CONTROL + name + KNOWN] = each.is_known
    if statistics.shows is not None:
        arrays |= {f"shows_{arm}": n for arm, n in zip(ARMS, statistics.shows, strict=True)}
    if statistics.twins is not None:
        arrays["twins"] = statistics.twins
    if statistics.links is not None:
        arrays["links"] = statistics.links
    arrays |= {f"sum_{name}": values for name, values in statistics.sums._asdict().items()}
    text = {name: getattr(statistics, name) for name in ("keys", "captions", "words")}
    arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_statistics(path: AnyPath) -> Statistics:
    """Reads the file, of which the manifest says that it is whole."""
    with np.load(path, allow_pickle=False) as arrays:
        shape = tuple(arrays["shape"].tolist())

        def matrix(name: str) -> sp.csr_array:
            return sp.csr_array(tuple(arrays[f"{name}_{part}"] for part in PARTS), shape=shape)

        has_tokens = f"{TOKENS[0]}_{PARTS[0]}" in arrays
        values = {name: arrays[f"sum_{name}"] for name in Sums._fields}
        known = [name for name in arrays if name.startswith(CONTROL) and name.endswith(KNOWN)]
        controls = [name.removesuffix(KNOWN) for name in known]
        return Statistics(
            real=matrix(ARMS[0]),
            generated=matrix(ARMS[1]),
            tokens=(matrix(TOKENS[0]), matrix(TOKENS[1])) if has_tokens else None,
            fires=(arrays["fires_real"], arrays["fires_generated"]),
            shows=(arrays["shows_real"], arrays["shows_generated"])
            if "shows_real" in arrays
            else None,
            twins=arrays.get("twins", None),
            links=arrays.get("links", None),
            changed={
                name.removeprefix(CONTROL): Changed(matrix(name), arrays[name + KNOWN])
                for name in controls
            },
            sums=Sums(**values | {"n": int(values["n"])}),
            **json.loads(arrays["text"].tobytes()),
        )
