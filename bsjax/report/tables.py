"""The artifacts of one comparison, read for a page: rankings, captions, top images."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

from bsjax.core import addresses
from bsjax.core.artifacts import REAL, check_files, require_manifest
from bsjax.core.errors import UserError
from bsjax.stats import verdicts

MOST_TOGETHER = 10  # co-occurring concepts kept
COMPARED = ("concepts.parquet", "datapoints.parquet")
MEASURED = ("images.parquet", "top_images.npz", "image_codes.npz", "cooccurrence.npz")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a page shows of one arm."""

    captions: list[str]
    paths: list[str]
    place: dict[str, int]  # row of each key
    keys: list[str]
    top_rows: np.ndarray  # [K, L]
    maps: np.ndarray  # [K, L, h, w] codes of patches
    special: np.ndarray  # [K, L, n_special] codes of class token (if any) and registers
    codes: sp.csr_array  # [n, K] image codes
    cooccurrence: sp.csr_array  # [K, K]
    manifest: dict[str, Any]
    resize: int
    crop: int

    @functools.cached_property
    def together(self) -> tuple[np.ndarray, np.ndarray]:
        """Concepts that fire with each: ids and strength [K, MOST_TOGETHER]."""
        return strongest_together(self.cooccurrence, MOST_TOGETHER)


class Comparison(NamedTuple):
    """One generated set against the real one."""

    name: str
    columns: dict[str, np.ndarray]  # of concepts.parquet, [K] each
    datapoints: list[dict[str, Any]]  # every pair, memorised first
    manifest: dict[str, Any]
    real: Measured
    generated: Measured

    @property
    def form(self) -> str:
        """Form and temperature of delta, to stand beside every delta shown."""
        settings = self.manifest["config"]
        return f"{settings['compare.form']}, T = {settings['compare.temperature']:g}"


class Ranking(NamedTuple):
    """Concepts to show under one heading."""

    title: str
    kind: str
    concepts: list[int]
    n_found: int  # concepts with the verdict; 0: the strongest others are shown instead


def read_comparisons(workdir: pathlib.Path, names: Sequence[str]) -> list[Comparison]:
    """Reads comparisons/<name>/ of each and the measures of all arms, the real one once.

    Raises:
      UserError: an artifact is missing, not what its stage wrote, or of other measures.
    """
    real, comparisons = None, []
    for name in names:
        folder = workdir / "comparisons" / name
        manifest = require_manifest(folder, "compare")
        check_files(folder, manifest, COMPARED)
        table = pq.read_table(folder / "concepts.parquet")
        columns = {column: np.array(table[column].to_pylist()) for column in table.column_names}
        datapoints = pq.read_table(folder / "datapoints.parquet").to_pylist()
        real = real or _read_measured(workdir / "measures" / REAL)
        generated = _read_measured(workdir / "measures" / name)
        for arm, measured in ((REAL, real), (name, generated)):
            made_of = manifest["parents"].get(f"measures/{arm}")
            if made_of not in (None, measured.manifest["config_hash"]):
                raise UserError(
                    f"{folder} compares another measures/{arm} than the one that is there; run"
                    " `bsjax compare --overwrite`"
                )
        comparisons.append(Comparison(name, columns, datapoints, manifest, real, generated))
    return comparisons


def _read_measured(folder: pathlib.Path) -> Measured:
    manifest = require_manifest(folder, "measure")
    check_files(folder, manifest, MEASURED)
    workdir = folder.parent.parent
    images = pq.read_table(folder / "images.parquet", columns=["key", "caption", "path"])
    keys = images["key"].to_pylist()
    with np.load(folder / "top_images.npz", allow_pickle=False) as top:
        return Measured(
            captions=images["caption"].to_pylist(),
            paths=[addresses.find(path, workdir) for path in images["path"].to_pylist()],
            place={key: row for row, key in enumerate(keys)},
            keys=keys,
            top_rows=top["images"],
            maps=top["maps"],
            special=top["special"],
            codes=sp.csr_array(sp.load_npz(folder / "image_codes.npz")),
            cooccurrence=sp.csr_array(sp.load_npz(folder / "cooccurrence.npz")),
            manifest=manifest,
            resize=manifest["config"]["encoder.resize"],
            crop=manifest["config"]["encoder.crop"],
        )


def strongest_together(pairs: sp.csr_array, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Concepts that fire on the same tokens: ids and strength [K, n], strongest first.

    Strength is the cosine of the two concepts' codes over all tokens, Z_ij / sqrt(Z_ii Z_jj) of
    Z^T Z; ids are -1 and strengths 0 where there are fewer.
    """
    norms = np.sqrt(pairs.diagonal())
    ids, strength = np.full((len(norms), n), -1), np.zeros((len(norms), n))
    for concept in range(len(norms)):
        part = slice(pairs.indptr[concept], pairs.indptr[concept + 1])
        others, values = pairs.indices[part], pairs.data[part]
        values = values[others != concept]
        others = others[others != concept]
        values = values / np.maximum(norms[concept] * norms[others], 1e-30)
        order = np.argsort(-values, kind="stable")[:n]
        ids[concept, : order.size], strength[concept, : order.size] = others[order], values[order]
    return ids, strength


def rank(comparison: Comparison, n_concepts: int) -> list[Ranking]:
    """The most suppressed and the most exaggerated concepts, strongest first.

    Where no concept has the verdict, the strongest of those with enough data stand in, so that a
    reader sees what there is; the title says that none is significant.
    """
    columns = comparison.columns
    judged = columns["verdict"] != verdicts.NOT_ENOUGH_DATA
    rankings = []
    for kind, sign in ((verdicts.SUPPRESSED, 1), (verdicts.EXAGGERATED, -1)):
        found = columns["verdict"] == kind
        side = judged & (sign * (columns["delta"] - 0.5) < 0)
        n_found = int(found.sum())
        pool = np.flatnonzero(found if n_found else side)
        order = np.lexsort((-np.abs(columns["difference"][pool]), sign * columns["delta"][pool]))
        concepts = pool[order][:n_concepts].tolist()
        title = f"Most {kind}" if n_found else f"None significantly {kind}"
        if concepts and not n_found:
            title += "; the strongest shifts"
        rankings.append(Ranking(title, kind, concepts, n_found))
    return rankings
