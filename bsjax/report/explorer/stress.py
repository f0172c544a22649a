"""What the explorer says of findings that were asked for again and again, with best and worst."""

import base64
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from bsjax.core.artifacts import read_manifest
from bsjax.report.overlays import LoadThumbnail, encode_thumbnail
from bsjax.report.tables import Comparison
from bsjax.results.measures import Measured, read_measured
from bsjax.results.stress import GENERATED, STAGE, Stressed, read_stressed

SHOWN = 6  # best and worst images of each, one a prompt
THUMBNAIL = 128  # pixels

Stress = Mapping[int, Sequence[Mapping[str, Any]]]  # number of a finding -> its tests


def stress_payload(
    workdir: pathlib.Path, comparison: Comparison, load: LoadThumbnail
) -> dict[int, list[dict[str, Any]]]:
    """Tests of a set's findings: of captions first, then of prompts of one's own.

    Those of another comparison than the one that is there are left out: its findings may bear other
    numbers.

    Args:
      workdir: of a run.
      comparison: of the set.
      load: reads an image.

    Raises:
      UserError: a file is not what was written.
    """
    found: dict[int, list[dict[str, Any]]] = {}
    for number in (row["finding"] for row in comparison.findings):
        for name in (f"finding-{number}", f"finding-{number}-prompts"):
            folder = workdir / "stress" / comparison.name / name
            manifest = read_manifest(folder, STAGE)
            if manifest is None:
                continue
            made_of = manifest["parents"].get(f"comparisons/{comparison.name}")
            if made_of != comparison.manifest.get("config_hash"):
                logging.warning(
                    "%s is left out: it is of another comparison than the one that is there; run"
                    " `bsjax stress --overwrite` to make it anew", folder,
                )  # fmt: skip
                continue
            made, measured = read_stressed(folder), read_measured(folder / GENERATED)
            found.setdefault(number, []).append(_tell(made, measured, load))
    return found


def _tell(made: Stressed, measured: Measured, load: LoadThumbnail) -> dict[str, Any]:
    counts = made.manifest["counts"]
    samples = made.samples.to_pylist()
    order = sorted(range(len(samples)), key=lambda row: -samples[row]["energy"])
    best = [row for row in order if samples[row]["fires"]]
    worst = [row for row in reversed(order) if not samples[row]["fires"]]
    show = functools.partial(_show, made, measured, load)
    return {
        "headline": f"{counts['passes']} of {counts['images']}",
        "told": str(made),
        "best": [show(row) for row in _one_a_prompt(samples, best)],
        "worst": [show(row) for row in _one_a_prompt(samples, worst)],
    }


def _one_a_prompt(samples: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[int]:
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(samples[row]["prompt"], row)
    return list(first.values())[:SHOWN]


def _show(made: Stressed, measured: Measured, load: LoadThumbnail, row: int) -> dict[str, Any]:
    path = measured.paths[row]
    data = encode_thumbnail(load, path, measured.resize, measured.crop, THUMBNAIL, "webp")
    prompt = made.prompts["text"][made.samples["prompt"][row].as_py()].as_py()
    return {"image": data and base64.b64encode(data).decode(), "prompt": prompt}
