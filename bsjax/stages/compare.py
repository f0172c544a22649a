"""compare: statistics of two arms -> divergences, their uncertainty, verdicts, ranked pairs.

Reads measures/real/ and measures/<set>/; writes comparisons/<set>/. Everything is computed over the
captions for which both arms have a usable image.
"""

import pathlib
from typing import NamedTuple

import jax.numpy as jnp
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
    atomic_path,
    begin_stage,
    require_manifest,
    write_manifest,
)
from bsjax.core.config import select
from bsjax.core.errors import UserError
from bsjax.core.rng import stage_key
from bsjax.data.captions import Pairing, pair_keys
from bsjax.stages.inputs import generated_name
from bsjax.stats import datapoints, divergences, uncertainty, verdicts, words

# Largest dense block of image codes [pairs, concepts] held at a time, in values.
BLOCK_VALUES = 1 << 24
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
    done = begin_stage(folder, config=settings, parents=parents, overwrite=config.overwrite)
    if done is not None:
        return
    _check_comparable(manifests[REAL], manifests[name], name)
    real, generated = (_read(workdir / "measures" / arm) for arm in (REAL, name))
    pairing = pair_keys(real.images["key"].to_pylist(), generated.images["key"].to_pylist())
    if len(pairing.rows_real) < 2:
        raise UserError("only one pair of images in common; a comparison needs at least two")

    codes = real.codes[pairing.rows_real], generated.codes[pairing.rows_generated]
    table = _concept_table(config, real, generated, pairing, codes)
    for suffix in ("parquet", "csv"):
        with atomic_path(folder / f"concepts.{suffix}") as temporary:
            write = pq.write_table if suffix == "parquet" else pa_csv.write_csv
            write(table, temporary)
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
        unpaired={REAL: pairing.unpaired_real[:1000], name: pairing.unpaired_generated[:1000]},
    )


def correlate(left: pathlib.Path, right: pathlib.Path) -> float:
    """Pearson's r of relative(k) of two comparison folders, over concepts that both can judge."""
    columns = []
    for folder in (left, right):
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


def _read(folder: pathlib.Path) -> Measured:
    with np.load(folder / "top_images.npz") as top:
        top_rows = top["images"]
    return Measured(
        concepts=pq.read_table(folder / "concepts.parquet"),
        images=pq.read_table(folder / "images.parquet"),
        codes=sp.csr_array(sp.load_npz(folder / "image_codes.npz")),
        top_rows=top_rows,
    )


def _concept_table(
    config, real: Measured, generated: Measured, pairing: Pairing, codes: PairedCodes
) -> pa.Table:
    settings = config.compare
    n = len(pairing.rows_real)
    columns = _paired_columns(config, codes)
    energy_real, energy_generated = columns["energy_real"], columns["energy_generated"]
    form, temperature = settings.form, settings.temperature
    temperatures = divergences.REFERENCE_TEMPERATURE | {form: temperature}
    columns["difference"] = divergences.difference(energy_real, energy_generated)
    columns["relative"] = divergences.relative(energy_real, energy_generated)
    for each in divergences.FORMS:
        columns[f"delta_{each}"] = divergences.delta(columns[each], temperatures[each])
    columns["delta"] = columns[f"delta_{form}"]

    half_width = uncertainty.t_quantile(n) * columns["standard_error"]
    columns["interval_low"] = columns["difference"] - half_width
    columns["interval_high"] = columns["difference"] + half_width
    _add_relative_interval(columns, n)
    bounds = {
        "relative": (columns["relative_low"], columns["relative_high"]),
        "difference": (columns["interval_low"], columns["interval_high"]),
    }[form]
    columns["delta_low"], columns["delta_high"] = (
        divergences.delta(bound, temperature) for bound in bounds
    )

    eligible = columns.pop("present_either") >= settings.min_images
    columns["p"] = uncertainty.p_values(columns["difference"], columns["standard_error"], n)
    columns["q"] = uncertainty.q_values(columns["p"], eligible)
    columns["fires_real"] = real.concepts["fires"].to_numpy()
    columns["fires_generated"] = generated.concepts["fires"].to_numpy()
    columns["verdict"] = verdicts.judge(
        columns["delta"],
        columns["q"],
        eligible,
        suppressed=settings.suppressed,
        exaggerated=settings.exaggerated,
        fdr=settings.fdr,
    )
    columns["words"] = _words(real, generated, pairing)
    order = ["concept", "energy_real", "energy_generated", "difference", "relative"]
    order += ["delta_difference", "delta_relative", "delta", "standard_error"]
    columns["concept"] = np.arange(len(energy_real), dtype=np.int32)
    order += [name for name in columns if name not in order]
    return pa.table({name: columns[name] for name in order})


def _paired_columns(config, codes: PairedCodes) -> dict[str, np.ndarray]:
    """Energies, standard errors and prevalences over the pairs, a block of concepts at a time."""
    left, right = (arm.tocsc() for arm in codes)
    n, n_concepts = left.shape
    settings = config.compare
    weights = None
    if settings.bootstrap:
        key = stage_key(config.seed, "compare/bootstrap")
        weights = uncertainty.bootstrap_weights(key, settings.bootstrap, n)
    width = min(max(BLOCK_VALUES // n, 32), n_concepts)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, n_concepts, width):
        stop = min(start + width, n_concepts)
        block = []
        for arm in (left, right):
            dense = np.zeros((n, width), np.float32)
            dense[:, : stop - start] = arm[:, start:stop].toarray()
            block.append(jnp.asarray(dense))
        moments = uncertainty.paired_moments(*block)
        part = {
            "standard_error": np.asarray(moments.se_difference, np.float64),
            "relative_standard_error": np.asarray(moments.se_relative, np.float64),
            "prevalence_real": np.asarray(moments.present_real) / n,
            "prevalence_generated": np.asarray(moments.present_generated) / n,
            "present_either": np.asarray(moments.present_either),
        }
        if weights is not None:
            means = uncertainty.resample(*block, weights)
            ratios = divergences.relative(*(np.asarray(mean, np.float64) for mean in means))
            part["relative_low"], part["relative_high"] = np.quantile(
                ratios, (0.025, 0.975), axis=0
            )
        parts.append({name: values[: stop - start] for name, values in part.items()})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # Energies are summed in float64.
    columns["energy_real"] = np.asarray(left.astype(np.float64).sum(axis=0)) / n
    columns["energy_generated"] = np.asarray(right.astype(np.float64).sum(axis=0)) / n
    return columns


def _add_relative_interval(columns: dict[str, np.ndarray], n: int) -> None:
    """95 % interval of relative: bootstrap if there is one, else by its standard error.

    Where an arm never shows the concept both are blind to what it might still show; the rule of
    three then bounds that arm's energy.
    """
    if "relative_low" not in columns:
        half_width = uncertainty.t_quantile(n) * columns["relative_standard_error"]
        columns["relative_low"] = columns["relative"] - half_width
        columns["relative_high"] = columns["relative"] + half_width
    for absent, other, bound, pick in (
        ("generated", "real", "relative_high", np.maximum),
        ("real", "generated", "relative_low", np.minimum),
    ):
        nowhere = (columns[f"energy_{absent}"] == 0) & (columns[f"energy_{other}"] > 0)
        limit = uncertainty.absent_arm_bound(
            columns[f"energy_{other}"], columns[f"prevalence_{other}"], n
        )
        energies = {f"energy_{absent}": limit, f"energy_{other}": columns[f"energy_{other}"]}
        value = divergences.relative(energies["energy_real"], energies["energy_generated"])
        columns[bound] = np.where(nowhere, pick(columns[bound], value), columns[bound])
    for bound in ("relative_low", "relative_high"):
        columns[bound] = np.clip(columns[bound], -1.0, 1.0)


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
