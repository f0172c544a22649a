"""stress/<set>/<finding>/: a finding asked for again and again, read and written here alone.

prompts.parquet   one row per prompt } columns as `bsjax.results.columns` lists them
samples.parquet   one row per image  }
images/           the images, as `bsjax generate` writes a set
generated/        their measures, as `bsjax measure` writes those of a set
real/             those of the real images that were measured for it; not where none was
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bsjax.core.artifacts import check_files, require_manifest, write_manifest
from bsjax.core.paths import AnyPath
from bsjax.results.columns import STRESS_PROMPTS, STRESS_SAMPLES, require_columns
from bsjax.results.measures import write_table

STAGE = "stress"
PROMPTS, SAMPLES = "prompts.parquet", "samples.parquet"
IMAGES, GENERATED, REAL_IMAGES = "images", "generated", "real"


@dataclasses.dataclass(frozen=True, eq=False)
class Stressed:
    """A finding, or a concept, that was asked for again and again.

    Attributes:
      prompts: one row per prompt, columns `bsjax.results.columns.STRESS_PROMPTS`.
      samples: one row per image, columns `bsjax.results.columns.STRESS_SAMPLES`.
      manifest: config, parents, counts, notes; target (label, concept, concepts, words, verdict),
        captions (how they were chosen, by which words, whether held out), rates (image,
        at_least_once and real: share, low, high; these: low and high of these very prompts) and
        pass_at (k -> share).
    """

    prompts: pa.Table
    samples: pa.Table
    manifest: Mapping[str, Any]

    def __str__(self) -> str:
        """In one paragraph."""
        return summary(self.manifest)


def summary(manifest: Mapping[str, Any]) -> str:
    """What a stress test found, in one paragraph."""
    target, counts, rates = (manifest[name] for name in ("target", "counts", "rates"))
    of = "prompt" if manifest["captions"]["how"] == "given" else "caption"
    of += "s" if counts["prompts"] != 1 else ""
    low, high = rates["these"]
    named = f" ({target['words']})" if target["words"] else f" (concept {target['concept']})"
    text = f"{target['label']}{named}: drawn in {counts['passes']} of {counts['images']} images"
    text += f" [{percent(low)}, {percent(high)}] of {counts['prompts']} {of};"
    text += f" over all such {of.rstrip('s')}s {_share(rates['image'])}, at least once in"
    text += f" {counts['tries']} tries {_share(rates['at_least_once'])}; "
    if rates["real"] is None:
        told = "every real image of these captions shows it, by which they were chosen"
        is_chosen = manifest["captions"]["how"] == "showing"
        text += told if is_chosen else "no real image of these prompts is known"
    else:
        text += f"real images of these captions show it in {_share(rates['real'])}"
        if counts["prompts_with_real"] < counts["prompts"]:
            text += f" (known of {counts['prompts_with_real']})"
    return f"{text}. {manifest['captions']['told']}"


def percent(share: float) -> str:
    """A share as a reader takes it; what is not nothing, or not all, is not said to be."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{100 * share:.1f} %"
    return f"{100 * share:.0f} %"


def _share(rate: Mapping[str, float]) -> str:
    return f"{percent(rate['share'])} [{percent(rate['low'])}, {percent(rate['high'])}]"


def write_stressed(folder: AnyPath, made: Stressed) -> None:
    """Writes the tables and finishes the folder."""
    write_table(folder / PROMPTS, require_columns(made.prompts, STRESS_PROMPTS))
    write_table(folder / SAMPLES, require_columns(made.samples, STRESS_SAMPLES))
    write_manifest(folder, stage=STAGE, **made.manifest)


def read_stressed(folder: AnyPath) -> Stressed:
    """Reads a finished one.

    Raises:
      UserError: it is not finished, or not what was written.
    """
    manifest = require_manifest(folder, STAGE)
    check_files(folder, manifest, (PROMPTS, SAMPLES))
    return Stressed(pq.read_table(folder / PROMPTS), pq.read_table(folder / SAMPLES), manifest)
