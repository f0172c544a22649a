"""Names of concepts: caption words, unless a person wrote a better one into names.csv."""

import csv
import pathlib
from collections.abc import Sequence

from bsjax.core.artifacts import atomic_path
from bsjax.core.errors import UserError

FILE = "names.csv"
COLUMNS = ("concept", "words", "name")


def read_names(folder: pathlib.Path, words: Sequence[str]) -> list[str]:
    """Names of the concepts; writes names.csv where a person may edit the column "name".

    Args:
      folder: of the report.
      words: caption words of each concept.

    Raises:
      UserError: a row of names.csv cannot be understood.
    """
    path = folder / FILE
    own: dict[int, str] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                concept = (row.get("concept") or "").strip()
                if not concept.isdecimal() or row.get("name") is None:
                    raise UserError(
                        f"{path}, line {line}: expected columns {', '.join(COLUMNS)} with a"
                        f" concept's number, got {concept!r}; mend the line or delete the file"
                    )
                if row["name"].strip():
                    own[int(concept)] = row["name"].strip()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows((k, text, own.get(k, "")) for k, text in enumerate(words))
    return [own.get(k, text) for k, text in enumerate(words)]
