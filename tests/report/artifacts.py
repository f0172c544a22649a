"""Artifacts of hand for the tests of pages: two arms of four images and their comparisons."""

import base64
import json
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from PIL import Image

from bsjax.core import addresses
from bsjax.core.artifacts import write_manifest
from bsjax.results.columns import COMPARED_CONCEPTS, FINDINGS, SUBSTITUTIONS, make_table
from bsjax.stats import verdicts

EVIL = '<img src=x onerror=alert(1)> & "quoted" $x$'
COUNTS = {"pairs": 4, "clusters": 3, "unpaired_real": 0, "unpaired_generated": 1}
SETTINGS = {
    "compare.form": "relative",
    "compare.temperature": 0.4,
    "compare.margin": 1.5,
    "compare.aligned": 2.0,
    "compare.fdr": 0.05,
    "compare.confirm": 0.0,
    "compare.clusters": "auto",
}
RELIABILITY = {
    "control": {
        "share": 0.051,
        "called": 0.05,
        "inflation": 1.01,
        "eligible": 30,
        "draws": 20,
        "is_sound": True,
    },
    "detectable_fold": {"10": None, "20": 455.6, "50": 6.13, "100": 3.2},
    "global_shift": float(np.log(0.8)),
    "rarity": {
        "slope": float(np.log(2)),
        "low": float(np.log(1.25)),
        "high": float(np.log(4)),
        "spread": 0.3,
        "concepts": 44,
        "groups": 22,
    },
}
LOG_RATIOS = dict(zip(verdicts.KINDS, (-3.0, 3.0, -0.5, 0.5, 0.05, -0.2, -1.2), strict=True))


def finish(folder, stage, config, counts=COUNTS, notes=(), **more):
    write_manifest(
        folder, stage=stage, config=config, parents={}, counts=counts, notes=notes, **more
    )


def write_arm(workdir, name, n_concepts, n_special=5, resize=28, special=None):
    """Measures of four images, of which the last file is gone."""
    folder = workdir / "measures" / name
    folder.mkdir(parents=True)
    paths = []
    for i in range(4):
        paths.append(str(folder / f"{i}.png"))
        if i < 3:
            Image.new("RGB", (30, 30), (80 * i, 20, 60)).save(paths[-1])
    captions = [EVIL, "two", "three", "four"] if name == "real" else ["", "", "", ""]
    paths = [addresses.within(path, workdir) for path in paths]
    table = {"key": ["a", "b", "c", "d"], "caption": captions, "path": paths}
    pq.write_table(pa.table(table), folder / "images.parquet")
    np.savez(
        folder / "top_images.npz",
        images=np.tile(np.array([0, 3, -1], np.int32), (n_concepts, 1)),
        maps=np.ones((n_concepts, 3, 2, 2), np.float16),
        special=np.ones((n_concepts, 3, n_special), np.float16),
    )
    codes = np.arange(4 * n_concepts, dtype=np.float32).reshape(4, n_concepts) % 3
    sp.save_npz(folder / "image_codes.npz", sp.csr_array(codes))
    sp.save_npz(folder / "cooccurrence.npz", sp.csr_array(codes.T @ codes))
    counts = COUNTS | ({} if special is None else {"special_tokens": special})
    finish(folder, "measure", {"encoder.resize": resize, "encoder.crop": 28}, counts)


def finding(number, concepts, verdict, log_ratio, low, high, instead=(), asked=None, words=""):
    """A row of findings.parquet; `asked`: n, log ratio and its ends."""
    told = dict(finding=number, concepts=concepts, words=words, verdict=verdict, instead=instead)
    told |= dict(log_ratio=log_ratio, low=low, high=high)
    n, *ends = asked or (0, np.nan, np.nan, np.nan)
    names = ("asked_log_ratio", "asked_low", "asked_high")
    return told | {"asked_n": n} | dict(zip(names, ends, strict=True))


def substitution(concept, instead, n, lift):
    """A row of substitutions.parquet."""
    return dict(concept=concept, instead=instead, n=n, lift=lift, z=5.0, q=0.001)


def write_comparison(workdir, name, kinds, notes=(), findings=(), substitutions=(), **more):
    """`more`: columns of concepts.parquet."""
    n = len(kinds)
    folder = workdir / "comparisons" / name
    folder.mkdir(parents=True)
    delta = np.array(
        [{verdicts.SUPPRESSED: 0.02, verdicts.EXAGGERATED: 0.97}.get(k, 0.45) for k in kinds]
    )
    columns = {
        "concept": np.arange(n, dtype=np.int32),
        "delta": delta,
        "delta_low": delta - 0.01,
        "delta_high": delta + 0.01,
        "delta_relative": delta,
        "delta_difference": 1 - delta,
        "relative": 0.4 * np.log(delta / (1 - delta)) + 0.01 * np.arange(n),
        "difference": delta - 0.5,
        "verdict": kinds,
        "verdict_paper": verdicts.judge_as_paper(delta).astype(str),
        "log_ratio": np.array([LOG_RATIOS[kind] for kind in kinds]),
        "se": np.full(n, 0.2),
        "words": [EVIL] * n,
    }
    for arm in ("real", "generated"):
        columns |= {f"{c}_{arm}": np.full(n, 0.5) for c in ("energy", "prevalence")}
        columns[f"fires_{arm}"] = np.arange(n) * 7
    is_known = np.array(kinds) != verdicts.NOT_ENOUGH_DATA
    # No generated image shows those without enough data: one end is open.
    columns["low"] = np.where(is_known, columns["log_ratio"] - 0.4, -np.inf)
    columns["high"] = columns["log_ratio"] + 0.4
    for name in ("q_material", "q_direction", "q_aligned"):
        columns[name] = np.where(is_known, 0.01, np.nan)
    columns |= more
    for column in COMPARED_CONCEPTS:
        unknown = np.full(n, np.nan) if column.type == "double" else np.zeros(n, np.int64)
        columns.setdefault(column.name, unknown)
    table = pa.table({column.name: columns[column.name] for column in COMPARED_CONCEPTS})
    pq.write_table(table, folder / "concepts.parquet")
    for file, listed, rows in (
        ("findings", FINDINGS, findings),
        ("substitutions", SUBSTITUTIONS, substitutions),
    ):
        table = make_table(listed, {c.name: [row[c.name] for row in rows] for c in listed})
        pq.write_table(table, folder / f"{file}.parquet")
    pairs = {"rank": [1], "key": ["a"], "caption": [EVIL], "row_real": [0], "row_generated": [3]}
    pairs |= {"cosine": [0.99], "absolute_difference": [0.1], "mean_difference": [-0.01]}
    pq.write_table(pa.table(pairs), folder / "datapoints.parquet")
    counts = {kind.replace(" ", "_"): kinds.count(kind) for kind in verdicts.KINDS}
    finish(folder, "compare", SETTINGS, COUNTS | counts, notes, **RELIABILITY)


def read_data(path):
    """The payload of a data file of the explorer."""
    text = path.read_text(encoding="ascii").strip().removeprefix("bsjaxReceive(").removesuffix(");")
    _, payload, _, *is_deflated = json.loads(f"[{text}]")
    if not is_deflated:
        return payload
    blob = zlib.decompress(base64.b85decode(payload))
    (length,) = struct.unpack("<I", blob[:4])
    body = blob[4 + length :]

    def whole(packed):
        """With its bytes in place, as in a small payload."""
        if "at" not in packed:
            return packed
        dtype, n = np.dtype(packed["dtype"]), int(np.prod(packed["shape"]))
        data = np.frombuffer(body, np.uint8, n * dtype.itemsize, packed["at"])
        if packed["split"]:
            data = data.reshape(dtype.itemsize, n).T
        told = {name: packed[name] for name in ("dtype", "shape")}
        return told | {"data": base64.b64encode(data.tobytes()).decode()}

    return json.loads(blob[4 : 4 + length], object_hook=whole)


def unpack(packed):
    """A packed array."""
    data = base64.b64decode(packed["data"])
    return np.frombuffer(data, packed["dtype"]).reshape(packed["shape"])


def unpack_sparse(packed, n_columns):
    """A table of which what is not 0 alone is told."""
    counts, gaps, values = (unpack(packed[name]) for name in ("counts", "gaps", "values"))
    table, at = np.zeros((len(counts), n_columns), np.int64), 0
    for row, count in enumerate(counts.tolist()):
        columns = np.cumsum(gaps[at : at + count].astype(np.int64) + 1) - 1
        table[row, columns] = values[at : at + count]
        at += count
    assert at == len(gaps) == len(values)
    return table
