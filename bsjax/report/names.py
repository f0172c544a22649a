"""Names of concepts: caption words, unless a person wrote a better one into names.csv.

What a person wrote is never lost: a names.csv of another SAE is put aside and comes back with it.
"""

import csv
from collections.abc import Sequence

from absl import logging

from bsjax.core.artifacts import atomic_path
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.core.text import as_cell, from_cell, read_table

FILE = "names.csv"
COLUMNS = ("concept", "words", "name")
SAE = "sae"  # column with the digest of the SAE whose concepts are named


def read_names(folder: AnyPath, words: Sequence[str], sae: str = "") -> list[str]:
    """Names of the concepts; writes names.csv where a person may edit the column "name".

    Args:
      folder: of the report.
      words: caption words of each concept.
      sae: digest of the SAE; "": unknown.

    Raises:
      UserError: a row of names.csv cannot be understood.
    """
    path = folder / FILE
    own, owner = _read(path) if path.is_file() else ({}, "")
    if _is_of_another(own, owner, len(words), sae):
        aside = _unused(folder, owner or "other")
        path.rename(aside)
        logging.warning("%s names the concepts of another SAE: kept as %s", path, aside.name)
        own = {}
    former = folder / f"names-{sae}.csv"
    if sae and not own and former.is_file():
        own, _ = _read(former)
        logging.info("%s: names taken from %s", path, former.name)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow((COLUMNS[0], SAE, *COLUMNS[1:]))
        rows.writerows(
            (k, as_cell(sae), as_cell(text), as_cell(own.get(k, "")))
            for k, text in enumerate(words)
        )
    if sae and former.is_file():
        former.unlink()  # all of it stands in names.csv again
    return [own.get(k, text) for k, text in enumerate(words)]


def look_at_names(folder: AnyPath, n_concepts: int, sae: str = "") -> None:
    """Reads names.csv, and the names put aside that would come back; writes nothing.

    Warns where names.csv is of another SAE and will be put aside.

    Args:
      folder: of the report.
      n_concepts: of the SAE.
      sae: its digest; "": unknown.

    Raises:
      UserError: a row cannot be understood.
    """
    path, former = folder / FILE, folder / f"names-{sae}.csv"
    own, owner = _read(path) if path.is_file() else ({}, "")
    if _is_of_another(own, owner, n_concepts, sae):
        logging.warning("%s names the concepts of another SAE: `report` will put it aside", path)
        own = {}
    if sae and not own and former.is_file():
        _read(former)


def _is_of_another(own: dict[int, str], owner: str, n_concepts: int, sae: str) -> bool:
    return max(own, default=-1) >= n_concepts or bool(sae and owner and owner != sae)


def _read(path: AnyPath) -> tuple[dict[int, str], str]:
    """Concept -> the name that a person wrote, and the digest of the SAE, if it says so."""
    own, owner, seen = {}, "", {}
    columns, rows = read_table(path)
    for line, row in rows:
        concept = row.get("concept", "").strip()
        if not (concept.isascii() and concept.isdecimal()) or "name" not in columns:
            raise UserError(
                f"{path}, line {line}: expected columns {', '.join(COLUMNS)} with a"
                f" concept's number, got {concept!r}; mend the line or delete the file"
            )
        number, name = int(concept), from_cell(row["name"].strip())
        if seen.setdefault(number, line) != line:
            raise UserError(
                f"{path}, line {line}: concept {number} is named in line {seen[number]} as well;"
                " remove one of the lines"
            )
        owner = row.get(SAE, "").strip() or owner
        if name:
            own[number] = name
    return own, owner


def _unused(folder: AnyPath, owner: str) -> AnyPath:
    path, count = folder / f"names-{owner}.csv", 1
    while path.exists():
        count += 1
        path = folder / f"names-{owner}-{count}.csv"
    return path
