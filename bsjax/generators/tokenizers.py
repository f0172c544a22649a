"""Captions to token ids: a repository's own tokenizer, or bytes for models without weights."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from bsjax.core.errors import UserError


class Tokens(NamedTuple):
    """Ids of each caption, padded and truncated to one length."""

    ids: Int[np.ndarray, "N T"]
    mask: Int[np.ndarray, "N T"]  # 1 where a token is no padding
    n_truncated: int


class Tokenizer(Protocol):
    """Captions -> ids."""

    def __call__(self, captions: Sequence[str], length: int) -> Tokens: ...


class HubTokenizer:
    """A tokenizer of transformers, from a folder in the hub's layout."""

    def __init__(self, folder: pathlib.Path, class_name: str):
        import transformers

        try:
            self.tokenizer = getattr(transformers, class_name).from_pretrained(str(folder))
        except Exception as error:  # transformers raises many types; each means: not to be had.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{folder} holds no usable {class_name} ({reason[:200]}); fetch the repository"
                " again, or set --config.generator.weights to a complete copy"
            ) from error

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

    def __call__(self, captions: Sequence[str], length: int) -> Tokens:
        ids = np.full((len(captions), length), self.PADDING, np.int32)
        n_truncated = 0
        for row, caption in zip(ids, captions, strict=True):
            encoded = [byte + self.FIRST for byte in caption.encode()] + [self.END]
            n_truncated += len(encoded) > length
            row[: len(encoded)] = encoded[:length]
        return Tokens(ids, (ids != self.PADDING).astype(np.int32), n_truncated)
