"""Captions from wherever they come: one door, the names under which they are looked for.

A caption is text, or bytes in UTF-8; a list of these is several captions of one image. All else is
a mistake in that record, which is counted with its reason and stops nothing.
"""

import codecs
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsjax.core.errors import UserError
from bsjax.core.foreign import printable, valid_text

CAPTION_FIELDS = ("caption", "text", "TEXT", "prompt", "captions")
IMAGE_FIELDS = ("image", "jpg", "png", "webp", "img", "image_bytes")
FIRST, ALL = "first", "all"
SHOWN = 10


class Fields(NamedTuple):
    """Where a record has its image and captions; "" stands for the usual names."""

    caption: str = ""
    image: str = ""
    captions: str = FIRST  # of several: the first | all, each with the same image
    root: str = ""  # folder of the images that a table names; "": beside it

    def beside(self, split: str) -> str:
        """The split of a source with these fields, as one text: train?caption=alt+text."""
        chosen = {name: value for name, value in self._asdict().items() if value}
        if self.captions == FIRST:
            del chosen["captions"]
        return f"{split}?{urllib.parse.urlencode(chosen)}" if chosen else split


def split_and_fields(text: str) -> tuple[str, Fields]:
    """What `Fields.beside` was given."""
    split, _, query = text.partition("?")
    return split, Fields(**dict(urllib.parse.parse_qsl(query)))


def captions_of(value: Any) -> list[str]:
    """The captions of a record, without those that are empty.

    Raises:
      ValueError: neither text nor a list of texts.
    """
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [caption for item in value for caption in _captions_of_one(item)]
    return _captions_of_one(value)


def find_field(names: Collection[str], chosen: str, usual: Sequence[str]) -> str | None:
    """The field among `names` that is meant: the chosen one, else the first of the usual ones."""
    if chosen:
        return chosen if chosen in names else None
    return next((name for name in usual if name in names), None)


def shown_names(names: Collection[str]) -> str:
    """Field names for a message."""
    listed = ", ".join(map(repr, list(names)[:SHOWN]))
    return f"{listed} and {len(names) - SHOWN} more" if len(names) > SHOWN else listed or "none"


def captions_in(fields: Mapping[str, Any], chosen: str) -> list[str]:
    """The captions of a record; none where it has no such field.

    Raises:
      ValueError: as `captions_of`.
    """
    name = find_field(fields, chosen, CAPTION_FIELDS)
    return [] if name is None else captions_of(fields[name])


def no_captions_note(where: str, names: Collection[str], chosen: str, section: str) -> str:
    """The warning where no caption is found.

    Raises:
      UserError: a field was asked for by name.
    """
    flag = f"--config.{section}.caption_field"
    if chosen:
        raise UserError(
            f"{where} has no field {chosen!r} for captions, only {shown_names(names)}; set {flag}"
        )
    return (
        f"NO CAPTIONS: {where} has none of {', '.join(CAPTION_FIELDS)}, only {shown_names(names)};"
        f" all its images count as without caption. If one of these holds captions, set {flag}"
    )


def _captions_of_one(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig" if value.startswith(codecs.BOM_UTF8) else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"its caption is no UTF-8 text (byte {error.start})") from error
    if not isinstance(value, str):
        raise ValueError(
            f"its caption is a {type(value).__name__}, expected text (got {printable(value)[:40]})"
        )
    text = valid_text(value).strip()
    return [text] if text else []
