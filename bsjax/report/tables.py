"""The artifacts of one comparison, read for a page: rankings, captions, top images."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

from bsjax.core.artifacts import REAL, require_manifest
from bsjax.stats import verdicts


class Measured(NamedTuple):
    """What a page shows of one arm."""

    captions: list[str]
    paths: list[str]
    place: dict[str, int]  # row of each key
    keys: list[str]
    top_rows: np.ndarray  # [K, L]
    maps: np.ndarray  # [K, L, h, w] codes of patches
    special: np.ndarray  # [K, L, 1 + registers] codes of class token and registers
    codes: sp.csr_array  # [n, K] image codes
    cooccurrence: sp.csr_array  # [K, K]
    manifest: dict[str, Any]
    resize: int
    crop: int


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


def read_comparison(workdir: pathlib.Path, name: str) -> Comparison:
    """Reads comparisons/<name>/ and the measures of both arms.

    Raises:
      UserError: an artifact is missing.
    """
    folder = workdir / "comparisons" / name
    manifest = require_manifest(folder, "compare")
    table = pq.read_table(folder / "concepts.parquet")
    columns = {column: np.array(table[column].to_pylist()) for column in table.column_names}
    datapoints = pq.read_table(folder / "datapoints.parquet").to_pylist()
    arms = (_read_measured(workdir / "measures" / arm) for arm in (REAL, name))
    return Comparison(name, columns, datapoints, manifest, *arms)


def _read_measured(folder: pathlib.Path) -> Measured:
    manifest = require_manifest(folder, "measure")
    images = pq.read_table(folder / "images.parquet", columns=["key", "caption", "path"])
    keys = images["key"].to_pylist()
    with np.load(folder / "top_images.npz", allow_pickle=False) as top:
        return Measured(
            captions=images["caption"].to_pylist(),
            paths=images["path"].to_pylist(),
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
