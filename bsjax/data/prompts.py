"""Files of prompts, one after the other, and images numbered by them: 00000.png, 00001-7.png."""

import os
import re
from collections.abc import Sequence

import numpy as np

from bsjax.core.errors import UserError
from bsjax.core.foreign import valid_text
from bsjax.core.text import read_table, read_text, split_lines
from bsjax.data.caption_tables import read_objects
from bsjax.data.captions import ImageSet
from bsjax.data.text import CAPTION_FIELDS, captions_of, find_field, shown_names

# As DrawBench (Prompts) and PartiPrompts (Prompt) have it.
COLUMNS = (*CAPTION_FIELDS, "Prompt", "Prompts", "prompts", "Caption", "Text")
NAMES = ("prompts.txt", "prompts.csv", "prompts.tsv", "prompts.jsonl", "prompts.json")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
# What stands before a number that tells the images of one prompt apart: seed7, sample_2, s1.
_OTHER = re.compile(r"(?<![a-z])(?:seed|samples?|run|s)[_\- ]?$", re.I)


def read_prompts(path: str | os.PathLike, column: str = "") -> list[str]:
    """The prompts of a file in their order; empty lines of a text stay, for they count.

    Args:
      path: a text of one prompt a line, or a table (.csv, .tsv, .jsonl, .json, .parquet).
      column: of a table; "": a usual one, or the only one.

    Raises:
      UserError: it cannot be read, or a table has no column of prompts.
    """
    name = os.fspath(path).lower()
    if not name.endswith(TABLES):
        return [line.strip() for line in split_lines(read_text(path))]
    if name.endswith((".csv", ".tsv")):
        columns, rows = read_table(path)
    else:
        columns, rows = read_objects(path)
    chosen = find_field(columns, column, COLUMNS)
    if chosen is None and not column and len(columns) == 1:
        chosen = columns[0]
    if chosen is None:
        raise UserError(
            f"{path} has no column {column or 'Prompt'!r}, only {shown_names(columns)}; name the"
            " column of its prompts prompt"
        )
    prompts = []
    for line, row in rows:
        try:
            prompts.append(next(iter(captions_of(row.get(chosen))), ""))
        except ValueError as error:
            reason = str(error).replace("caption", "prompt")
            raise UserError(f"{path}, line {line}: {reason}; mend it") from error
    return prompts


def with_prompts(images: ImageSet, prompts: Sequence[str], path: str, section: str) -> ImageSet:
    """Numbered images with the prompts of their numbers.

    Numbers begin at 0 or at 1; where there are as many images a prompt, those of the first come
    first.

    Args:
      images: whose names have numbers.
      prompts: in their order.
      path: of the file of prompts, for messages.
      section: of the config, for messages.

    Raises:
      UserError: names without numbers, or numbers that do not fit the prompts.
    """
    keys = [record.cluster or record.key for record in images.records]
    numbers = _numbers(keys, len(prompts))
    if numbers is None:
        raise UserError(
            f"{path} has {len(prompts)} prompts, but the names of the images"
            f" (such as {keys[0]!r}) tell no number of one; name them 00000, 00001, ..., or"
            f" give a table of images and captions; set --config.{section}.prompts to another file"
        )
    records = [
        record._replace(caption=valid_text(prompts[number]))
        for record, number in zip(images.records, numbers.tolist(), strict=True)
    ]
    n_without = sum(not record.caption for record in records)
    return images._replace(
        records=tuple(records), n_without_caption=n_without, caption_source="prompts"
    )


def _numbers(keys: Sequence[str], n_prompts: int) -> np.ndarray | None:
    """The place of each image's prompt; None where the names do not tell.

    Of several numbers in a name the prompt's is not called a seed or a sample, if another is not;
    it reaches every prompt, or is written with zeros before it.
    """
    runs = [list(re.finditer(r"\d+", os.path.basename(key))) for key in keys]
    found = []
    for place in range(min(map(len, runs), default=0)):
        matches = [each[place] for each in runs]
        numbers = _from_first(np.array([int(each[0]) for each in matches], object), n_prompts)
        if numbers is None:
            continue
        is_called_other = all(_OTHER.search(each.string[: each.start()]) for each in matches)
        n_digits = {len(each[0]) for each in matches}
        is_padded = any(each[0].startswith("0") and len(each[0]) > 1 for each in matches)
        rank = (
            not is_called_other,
            len(set(numbers.tolist())) == n_prompts,
            is_padded and len(n_digits) == 1,
        )
        found.append((rank, numbers))
    if not found:
        return None
    best = max(rank for rank, _ in found)
    fits = [numbers for rank, numbers in found if rank == best]
    reaches_all = best[1]
    if not reaches_all and any((numbers != fits[0]).any() for numbers in fits):
        return None  # 1_2.png: which of the two is the prompt?
    return fits[0]


def _from_first(values: np.ndarray, n_prompts: int) -> np.ndarray | None:
    low, high = min(values), max(values)
    n = len(set(values))
    if n == 1 and len(values) > 1:
        return None  # a model's version, or a seed: sd15_1111.png, sd15_2222.png
    if high < n_prompts and (low == 0 or n == 1):
        return values.astype(np.int64)
    if low >= 1 and high == n_prompts:
        return values.astype(np.int64) - 1
    each, rest = divmod(high - low + 1, n_prompts) if n_prompts else (0, 1)
    if low in (0, 1) and each > 1 and not rest and n == len(values) == high - low + 1:
        return (values.astype(np.int64) - low) // each
    return None
