"""Captions to token ids: a repository's own tokenizer, or bytes for models without weights."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from bsjax.convert.lfs import refuse_pointer
from bsjax.core.errors import UserError

# Classes of transformers that a repository may name. The slow and the fast one of a kind split some
# captions differently (curly quotes, Chinese, emoji), so the one that is named is taken.
CLASSES = tuple(
    f"{kind}Tokenizer{speed}" for kind in ("CLIP", "T5", "XLMRoberta") for speed in ("", "Fast")
)
# What transformers gives as the length of a tokenizer that names none is far beyond this.
LONGEST = 1 << 20


class Tokens(NamedTuple):
    """Ids of each caption, padded and truncated to one length."""

    ids: Int[np.ndarray, "N T"]
    mask: Int[np.ndarray, "N T"]  # 1 where a token is no padding
    n_truncated: int


@runtime_checkable
class Tokenizer(Protocol):
    """Captions -> ids."""

    n_ids: int  # all ids are below
    length: int | None  # to which captions are padded; None: to what the text encoder takes

    def __call__(self, captions: Sequence[str], length: int) -> Tokens: ...


class HubTokenizer:
    """A tokenizer of transformers, from a folder in the hub's layout.

    Args:
      folder: with the vocabulary.
      class_name: one of `CLASSES`.
      flag: what an error tells the user to set.

    Raises:
      UserError: another class, files that are missing, damaged or git-lfs pointers.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        class_name: str,
        flag: str = "--config.generator.weights",
    ):
        import transformers

        folder = pathlib.Path(folder)
        if class_name not in CLASSES:
            raise UserError(
                f"{folder}: the repository names the tokenizer {class_name}, expected one of"
                f" {', '.join(CLASSES)}; set {flag}"
            )
        for path in sorted(folder.glob("*")):
            refuse_pointer(path)
        try:
            self.tokenizer = getattr(transformers, class_name).from_pretrained(str(folder))
        except Exception as error:  # transformers raises many types; each means: not to be had.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{folder} holds no usable {class_name} ({reason[:200]}); fetch the repository"
                f" again, or set {flag} to a complete copy"
            ) from error
        self.class_name = class_name
        self.n_ids = max(self.tokenizer.get_vocab().values()) + 1
        length = self.tokenizer.model_max_length
        self.length = int(length) if length < LONGEST else None

    def __call__(self, captions: Sequence[str], length: int) -> Tokens:
        captions = list(captions)
        whole = self.tokenizer(captions, verbose=False)["input_ids"]
        fitted = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=length, return_tensors="np"
        )
        n_truncated = sum(len(ids) > length for ids in whole)
        return Tokens(
            fitted["input_ids"].astype(np.int32),
            fitted["attention_mask"].astype(np.int32),
            n_truncated,
        )


class ByteTokenizer:
    """UTF-8 bytes, for networks with random weights, which no tokenizer comes with.

    Ids: 0 padding, 1 end, byte + 2; the vocabulary needs 258 entries.
    """

    PADDING, END, FIRST = 0, 1, 2
    n_ids, length = 258, None

    def __call__(self, captions: Sequence[str], length: int) -> Tokens:
        ids = np.full((len(captions), length), self.PADDING, np.int32)
        n_truncated = 0
        for row, caption in zip(ids, captions, strict=True):
            encoded = [byte + self.FIRST for byte in caption.encode()] + [self.END]
            n_truncated += len(encoded) > length
            row[: len(encoded)] = encoded[:length]
        return Tokens(ids, (ids != self.PADDING).astype(np.int32), n_truncated)
