"""The card of a pushed repository: what is in it, what was found, how the numbers came about.

Markdown with the hub's front matter, from what the workdir's own files say.
"""

import collections
import csv
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2

from bsjax import __version__
from bsjax.core.paths import AnyPath
from bsjax.report.card import grouped, value_text
from bsjax.results.parts import PARTS, Folder

NAME = "README.md"
# In cards of ours; one without it was written by hand.
MARK = "<!-- written by bsjax push; take this line away to keep what you change -->"
TEMPLATES = pathlib.Path(__file__).parent / "templates"
SHOWN = 20  # findings of a set
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Settings and counts of a training that tell what an SAE is.
TRAINED = (
    "encoder.variant", "encoder.weights", "train.activation", "train.n_concepts", "train.n_active",
    "train.relax_radius",
)  # fmt: skip
QUALITY = ("tokens", "steps", "r2", "l0", "dead_share", "stability", "threshold")


def write(workdir: AnyPath, repo: str, folders: Sequence[Folder]) -> str:
    """The card as Markdown.

    Args:
      workdir: of the results.
      repo: owner/name that it is for.
      folders: that travel.
    """
    by_part = collections.defaultdict(list)
    for folder in folders:
        by_part[folder.part].append(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown: `plain` escapes what people wrote
    )  # fmt: skip
    environment.filters["plain"] = plain
    trained = by_part["sae"][0].manifest if "sae" in by_part else None
    sets = [folder.name.rpartition("/")[2] for folder in by_part.get("statistics", ())]
    has_report = "report" in by_part
    return environment.get_template("model_card.md.j2").render(
        mark=MARK,
        repo=repo,
        version=__version__,
        bases=sorted(_bases(folders)),
        parts={part: (found, PARTS[part].holds) for part, found in by_part.items()},
        sae=None if trained is None else _of_sae(trained),
        findings={name: _findings(workdir, name) for name in sets} if has_report else {},
        cards={name: _card(workdir, name) for name in sets} if has_report else {},
        shown=SHOWN,
        has_report=has_report,
    )


def plain(text: Any) -> str:
    """Text on one line of Markdown that means nothing there but itself."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", line)


def _bases(folders: Iterable[Folder]) -> set[str]:
    """Repositories of the hub that the results are made from."""
    keys = ("encoder.weights", "generator.weights")
    values = {str(folder.manifest["config"].get(key, "")) for folder in folders for key in keys}
    return {value for value in values if HUB_ID.fullmatch(value)}


def _of_sae(manifest: dict[str, Any]) -> dict[str, str]:
    config, counts = manifest["config"], manifest["counts"]
    told = {key: value_text(config[key]) for key in TRAINED if config.get(key) not in ("", None)}
    return told | {key: value_text(counts[key]) for key in QUALITY if key in counts}


def _findings(workdir: AnyPath, name: str) -> list[dict[str, str]]:
    """Rows of report/findings.csv of one set."""
    path = workdir / "report" / "findings.csv"
    if not path.exists():
        return []
    rows = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    return [row for row in rows if row["set"] == name]


def _card(workdir: AnyPath, name: str) -> list[tuple[str, list[Any]]]:
    path = workdir / "report" / f"{name}__card.json"
    return grouped(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []
