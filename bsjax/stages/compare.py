"""compare: statistics of two arms -> divergences, their uncertainty, verdicts, ranked pairs.

Reads measures/real/ and measures/<set>/; writes comparisons/<set>/. Everything is computed over the
captions for which both arms have a usable image.
"""

import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import scipy.sparse as sp
from absl import logging

from bsjax import pipeline
from bsjax.core.artifacts import (
    REAL,
    again,
    atomic_path,
    begin_stage,
    check_files,
    read_manifest,
    require_manifest,
    write_manifest,
)
from bsjax.core.config import select
from bsjax.core.errors import UserError
from bsjax.core.rng import stage_key
from bsjax.core.text import as_cells
from bsjax.data.captions import Pairing, pair_keys
from bsjax.stages import preflight
from bsjax.stages.inputs import generated_name, refuse_duplicates
from bsjax.stats import comparison, datapoints, divergences, uncertainty, verdicts, words

# Image codes [n, K] of the real and of the generated image of each pair; rows agree.
PairedCodes = tuple[sp.csr_array, sp.csr_array]


class Measured(NamedTuple):
    """One arm's artifacts, rows of `codes` and `images` agree."""

    concepts: pa.Table
    images: pa.Table
    codes: sp.csr_array
    top_rows: np.ndarray


def compare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Compares the generated set with the real one and prints the strongest divergences."""
    name = generated_name(config)
    manifests = {
        arm: require_manifest(workdir / "measures" / arm, "measure") for arm in (REAL, name)
    }
    folder = workdir / "comparisons" / name
    settings = select(config, pipeline.BY_NAME["compare"].config_keys)
    parents = {f"measures/{arm}": m["config_hash"] for arm, m in manifests.items()}
    done = begin_stage(
        folder, config=settings, parents=parents, overwrite=config.overwrite, stage="compare"
    )
    if done is not None:
        return
    _check_comparable(manifests[REAL], manifests[name], name)
    real, generated = (
        _read(workdir / "measures" / arm, manifest) for arm, manifest in manifests.items()
    )
    keys = real.images["key"].to_pylist(), generated.images["key"].to_pylist()
    if config.generator.name == "none":
        preflight.check_pairing(config, *keys)
    pairing = pair_keys(*keys)
    if len(pairing.rows_real) < preflight.LEAST_PAIRS:
        raise UserError(
            f"only one pair of a real and a generated image, of {len(keys[0])} and {len(keys[1])};"
            " expected at least two: add captions, or raise --limit"
        )

    codes = real.codes[pairing.rows_real], generated.codes[pairing.rows_generated]
    table = _concept_table(config, real, generated, pairing, codes)
    for suffix in ("parquet", "csv"):
        with atomic_path(folder / f"concepts.{suffix}") as temporary:
            if suffix == "parquet":
                pq.write_table(table, temporary)
            else:
                pa_csv.write_csv(as_cells(table), temporary)
    with atomic_path(folder / "datapoints.parquet") as temporary:
        pq.write_table(_datapoint_table(real, pairing, codes), temporary)
    verdict = np.array(table["verdict"].to_pylist())
    counts = {
        "pairs": len(pairing.rows_real),
        "unpaired_real": len(pairing.unpaired_real),
        "unpaired_generated": len(pairing.unpaired_generated),
        **{kind.replace(" ", "_"): int((verdict == kind).sum()) for kind in verdicts.KINDS},
    }
    for arm, keys in ((REAL, pairing.unpaired_real), (name, pairing.unpaired_generated)):
        if keys:
            logging.warning("%d images of %s have no partner: %s", len(keys), arm, keys[:5])
    notes = list(dict.fromkeys(note for m in manifests.values() for note in m["notes"]))
    write_manifest(
        folder,
        stage="compare",
        config=settings,
        parents=parents,
        counts=counts,
        notes=notes,
        control=control_run(config, codes[0]),
        unpaired={REAL: pairing.unpaired_real[:1000], name: pairing.unpaired_generated[:1000]},
    )


def control_run(config: ml_collections.ConfigDict, real: sp.csr_array) -> dict[str, int]:
    """What would be called where nothing differs: one half of the real images against the other.

    Args:
      config: the experiment.
      real: image codes [n, K], divided by chance.

    Returns:
      pairs, and of the concepts those with enough data (eligible) and those called.
    """
    order = np.random.default_rng(config.seed).permutation(real.shape[0])
    n_pairs = real.shape[0] // 2
    counts = {"pairs": n_pairs, "eligible": 0, "called": 0}
    if n_pairs >= 2:
        halves = (real[order[part * n_pairs :][:n_pairs]] for part in range(2))
        verdict = comparison.compare_codes(*halves, _rules(config))["verdict"]
        counts |= verdicts.count_called(verdict)
    return counts


def _rules(config: ml_collections.ConfigDict) -> comparison.Rules:
    return comparison.Rules(**{name: config.compare[name] for name in comparison.Rules._fields})


def correlate(left: pathlib.Path, right: pathlib.Path) -> float:
    """Pearson's r of relative(k) of two comparison folders, over concepts that both can judge."""
    columns = []
    for folder in (left, right):
        manifest = read_manifest(pathlib.Path(folder), "compare")
        if manifest is not None:
            check_files(folder, manifest, ["concepts.parquet"])
        table = pq.read_table(folder / "concepts.parquet", columns=["relative", "verdict"])
        columns.append({name: np.array(table[name].to_pylist()) for name in table.column_names})
    return divergences.correlation(*columns)


def _check_comparable(real: dict, generated: dict, name: str) -> None:
    """Both arms must have gone through the same encoder, preprocessing and SAE."""
    for part in ("config", "parents"):
        for key in sorted(real[part]):
            if key not in ("set", "images") and real[part][key] != generated[part].get(key):
                raise UserError(
                    f"measures/real and measures/{name} differ in {key}: {real[part][key]} and"
                    f" {generated[part].get(key)}; measure both with one config"
                )


MEASURED = ("concepts.parquet", "images.parquet", "image_codes.npz", "top_images.npz")


def _read(folder: pathlib.Path, manifest: dict) -> Measured:
    """One arm's artifacts.

    Raises:
      UserError: a file is not what `measure` wrote, or the rows of two do not belong together.
    """
    check_files(folder, manifest, MEASURED)
    with np.load(folder / "top_images.npz") as top:
        top_rows = top["images"]
    measured = Measured(
        concepts=pq.read_table(folder / "concepts.parquet"),
        images=pq.read_table(folder / "images.parquet"),
        codes=sp.csr_array(sp.load_npz(folder / "image_codes.npz")),
        top_rows=top_rows,
    )
    n_images, n_concepts = measured.codes.shape
    found = (measured.images.num_rows, measured.concepts.num_rows)
    if found != (n_images, n_concepts):
        raise UserError(
            f"{folder}: image_codes.npz has {n_images} images x {n_concepts} concepts, the tables"
            f" {found[0]} x {found[1]}; {again('measure')}"
        )
    refuse_duplicates(measured.images["key"].to_pylist(), folder / "images.parquet")
    return measured


def _concept_table(
    config, real: Measured, generated: Measured, pairing: Pairing, codes: PairedCodes
) -> pa.Table:
    settings = config.compare
    weights = None
    if settings.bootstrap:
        key = stage_key(config.seed, "compare/bootstrap")
        weights = uncertainty.bootstrap_weights(key, settings.bootstrap, codes[0].shape[0])
    columns = comparison.compare_codes(*codes, _rules(config), weights)
    columns["fires_real"] = real.concepts["fires"].to_numpy()
    columns["fires_generated"] = generated.concepts["fires"].to_numpy()
    columns["words"] = _words(real, generated, pairing)
    columns["concept"] = np.arange(codes[0].shape[1], dtype=np.int32)
    order = ["concept", "energy_real", "energy_generated", "difference", "relative"]
    order += ["delta_difference", "delta_relative", "delta", "standard_error"]
    order += [name for name in columns if name not in (*order, "verdict", "words")]
    return pa.table({name: columns[name] for name in (*order, "verdict", "words")})


def _words(real: Measured, generated: Measured, pairing: Pairing) -> list[str]:
    """Caption words of each concept from its top images in both arms."""
    captions = real.images["caption"].to_pylist()
    # A generated image speaks through the caption that it was made from; the last entry is for
    # the row -1, which stands for no image.
    to_real = np.full(generated.images.num_rows + 1, -1)
    to_real[pairing.rows_generated] = pairing.rows_real
    top_rows = np.concatenate([real.top_rows, to_real[generated.top_rows]], axis=1)
    return words.describe_concepts(captions, top_rows)


def _datapoint_table(real: Measured, pairing: Pairing, codes: PairedCodes) -> pa.Table:
    scores = datapoints.score_pairs(*codes)
    order = datapoints.rank_pairs(scores)
    rows_real, rows_generated = pairing.rows_real[order], pairing.rows_generated[order]
    return pa.table(
        {
            "rank": np.arange(1, len(order) + 1, dtype=np.int32),
            "key": real.images["key"].take(rows_real),
            "caption": real.images["caption"].take(rows_real),
            "row_real": rows_real.astype(np.int32),
            "row_generated": rows_generated.astype(np.int32),
            **{name: values[order] for name, values in scores.items()},
        }
    )
