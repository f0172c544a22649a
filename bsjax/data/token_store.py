"""Encoder tokens on disk: bfloat16 ArrayRecord shards, shuffled once, read back in any order.

A record is a block of `BLOCK` tokens. The images of a shard are a random sample of the whole set,
and the tokens within a shard are shuffled, so that blocks drawn from all shards are as good as
tokens drawn from all images. A shard appears whole or not at all; `manifest.json` comes last and
tells each file's size, so that a truncated one is found before training starts. Beside each shard
lie the checksums of its blocks, and each block is checked when it is read.
"""

import bisect
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np
from array_record.python import array_record_module
from jaxtyping import Float, Int

from bsjax.core import checksums
from bsjax.core.artifacts import atomic_path, check_files, read_manifest
from bsjax.core.errors import UserError
from bsjax.data.record_files import ArrayRecords, Stretch, whole_file

BLOCK = 256  # tokens per record
DTYPE = np.dtype(ml_dtypes.bfloat16)
FLAG = "--config.train.token_store"
SUM_BYTES = 16  # of a block's sha256 that are kept


class StoreShard(NamedTuple):
    """One finished file."""

    name: str
    n_blocks: int
    n_bytes: int


def storage_bill(n_images: int, tokens_per_image: int, width: int) -> int:
    """Bytes that the tokens of a set of images take."""
    return n_images * tokens_per_image * width * DTYPE.itemsize


def shard_name(index: int, n_shards: int) -> str:
    """File name of a shard."""
    return f"tokens-{index:05d}-of-{n_shards:05d}.arrayrecord"


def write_shard(
    path: str | os.PathLike,
    tokens: Float[np.ndarray, "N D"],
    rng: np.random.Generator,
    identity: str = "",
) -> None:
    """Shuffles the tokens and writes them whole or not at all; an incomplete block is dropped.

    The checksums of its blocks come first: a shard that is there has them.

    Args:
      path: of the shard.
      tokens: of its images.
      rng: decides the order.
      identity: what the store is made from, as `is_whole` asks for.

    Raises:
      UserError: the disk is full.
    """
    path = pathlib.Path(path)
    order = rng.permutation(len(tokens))
    blocks = [
        tokens[order[i * BLOCK : (i + 1) * BLOCK]].astype(DTYPE).tobytes()
        for i in range(len(tokens) // BLOCK)
    ]
    sums = np.array([np.frombuffer(_sum(block), np.uint8) for block in blocks], np.uint8)
    with atomic_path(sums_path(path)) as temporary:
        checksums.save_arrays(temporary, f"{identity}/{path.name}", sums=sums)
    with atomic_path(path) as temporary:
        # Blocks are read one by one, so each is a chunk of its own.
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for block in blocks:
            writer.write(block)
        writer.close()


def sums_path(path: pathlib.Path) -> pathlib.Path:
    """Where the checksums of a shard's blocks lie."""
    return path.with_suffix(".sums.npz")


def _sum(block: bytes) -> bytes:
    return hashlib.sha256(block).digest()[:SUM_BYTES]


def _read_sums(path: pathlib.Path, identity: str) -> np.ndarray:
    sums = checksums.load_arrays(sums_path(path), f"{identity}/{path.name}")["sums"]
    return sums.reshape(-1, SUM_BYTES)


def is_whole(path: pathlib.Path, identity: str = "") -> bool:
    """Whether a shard of an unfinished store is what was written there."""
    if not path.is_file():
        return False
    try:
        sums = _read_sums(path, identity)
        source = ArrayRecords([whole_file(str(path))])
        return len(source) == len(sums) and all(
            _sum(source[i]) == sums[i].tobytes() for i in range(len(sums))
        )
    except (UserError, RuntimeError, ValueError, OSError, IndexError):  # by which byte is damaged
        return False


def describe_shard(path: pathlib.Path) -> StoreShard:
    """What the manifest tells of a finished shard."""
    n_blocks = array_record_module.ArrayRecordReader(str(path)).num_records()
    return StoreShard(path.name, n_blocks, path.stat().st_size)


class TokenStore:
    """A finished store: blocks of tokens by index; threads may read at once."""

    def __init__(self, folder: str | os.PathLike, parents: dict[str, str] | None = None):
        """Opens a store; checks every shard's size, and the checksums against the manifest.

        Args:
          folder: where `write_shard` wrote, with its manifest.
          parents: hashes that the store must have been made from ("encoder", ...).

        Raises:
          UserError: unfinished, made from something else, or a shard absent or truncated.
        """
        folder = pathlib.Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise UserError(f"{folder} is no finished token store; set {FLAG} to one")
        for name, digest in (parents or {}).items():
            if manifest["parents"].get(name) != digest:
                raise UserError(
                    f"{folder} holds tokens of another {name}: expected {digest}, got"
                    f" {manifest['parents'].get(name)}; set {FLAG} to another folder"
                )
        self.shards = [StoreShard(*shard) for shard in manifest["shards"]]
        self.width: int = manifest["counts"]["width"]
        for shard in self.shards:
            path = folder / shard.name
            n_bytes = path.stat().st_size if path.is_file() else 0
            if n_bytes != shard.n_bytes:
                raise UserError(
                    f"{path} is truncated or absent: expected {shard.n_bytes} bytes, got {n_bytes};"
                    f" delete it and {folder / 'manifest.json'}, then run again to make it anew"
                )
        sums = [sums_path(folder / shard.name).name for shard in self.shards]
        check_files(folder, manifest, sums)
        self._sums = [_read_sums(folder / s.name, manifest["identity"]) for s in self.shards]
        self._ends = np.cumsum([shard.n_blocks for shard in self.shards]).tolist()
        self._paths = [str(folder / shard.name) for shard in self.shards]
        self._records = ArrayRecords(
            [
                Stretch(path, 0, shard.n_blocks)
                for path, shard in zip(self._paths, self.shards, strict=True)
            ]
        )

    def _mend(self, path: str) -> str:
        manifest = pathlib.Path(self._paths[0]).parent / "manifest.json"
        return f"delete {path} and {manifest}, then run again to make it anew"

    @property
    def n_tokens(self) -> int:
        return BLOCK * sum(shard.n_blocks for shard in self.shards)

    def read_blocks(self, blocks: Sequence[int] | np.ndarray) -> Float[np.ndarray, "N D"]:
        """The tokens of some blocks, in float32.

        Raises:
          UserError: a block is damaged, or holds numbers that are not finite.
        """
        try:
            records = self._records.__getitems__([int(block) for block in blocks])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{self._paths[0]} or a sibling cannot be read"
                f" ({' '.join(str(error).split())[:200]}); {self._mend('the damaged one')}"
            ) from error
        for block, record in zip(blocks, records, strict=True):
            shard = bisect.bisect_right(self._ends, int(block))
            place = int(block) - self._ends[shard] + self.shards[shard].n_blocks
            if _sum(record) != self._sums[shard][place].tobytes():
                path = self._paths[shard]
                raise UserError(
                    f"{path} is damaged or another file: block {place} is not what was written;"
                    f" {self._mend(path)}"
                )
        tokens = np.frombuffer(b"".join(records), DTYPE).reshape(-1, self.width).astype(np.float32)
        require_finite(tokens, f"{self._records.stretches[0].path} and its siblings")
        return tokens


class TokenArray:
    """Tokens in memory, with the interface of a store whose blocks are single tokens."""

    def __init__(self, tokens: Float[np.ndarray, "N D"]):
        require_finite(tokens, "the encoder's output")
        self.tokens = tokens

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    def read_blocks(self, blocks: Sequence[int] | np.ndarray) -> Float[np.ndarray, "N D"]:
        return self.tokens[np.asarray(blocks)]


def require_finite(tokens: Float[np.ndarray, "N D"], origin: str) -> None:
    """Refuses NaN and infinity before they spoil a training."""
    if not np.isfinite(tokens).all():
        raise UserError(
            f"{origin}: values that are not finite in {int((~np.isfinite(tokens)).any(1).sum())} of"
            f" {len(tokens)} tokens; check --config.encoder.weights and --config.encoder.dtype"
        )


class EpochOrder:
    """Items in a new random order epoch after epoch: an endless sequence that the seed decides."""

    def __init__(self, seed: int, n_items: int):
        self.seed, self.n_items = seed, n_items
        self._known: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def stretch(self, i: int, length: int) -> Int[np.ndarray, " S"]:
        """Stretch i, where the sequence is cut into stretches of this length."""
        places = np.arange(i * length, (i + 1) * length)
        items = np.empty_like(places)
        for epoch in np.unique(places // self.n_items):
            here = places // self.n_items == epoch
            items[here] = self._permutation(int(epoch))[places[here] % self.n_items]
        return items

    def _permutation(self, epoch: int) -> Int[np.ndarray, " S"]:
        known, order = self._known
        if known != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_items)
            self._known = (epoch, order)
        return order


class StepReader:
    """Tokens of a training step, a function of seed and step alone.

    Step i takes the i-th stretch of blocks of an `EpochOrder`. So it does not matter how many hosts
    read, who reads ahead, or where a run was interrupted. Worker processes can pickle it.
    """

    def __init__(
        self,
        source: TokenStore | TokenArray,
        seed: int,
        tokens_per_step: int,
        parts: Iterable[tuple[int, int]],
        n_micro: int = 1,
    ):
        """Reads for one host.

        Args:
          source: where the tokens lie.
          seed: of the order.
          tokens_per_step: of all hosts, all micro-batches.
          parts: stretches [start, stop) of each micro-batch that this host needs, disjoint and
            ascending.
          n_micro: micro-batches per step.

        Raises:
          UserError: steps that are not made of whole blocks.
        """
        block = BLOCK if isinstance(source, TokenStore) else 1
        if tokens_per_step % (block * n_micro):
            raise UserError(
                f"train.tokens_per_step={tokens_per_step}: expected a multiple of {block * n_micro}"
                f" (train.accumulate={n_micro} micro-batches of blocks of {block} tokens); set"
                " --config.train.tokens_per_step"
            )
        self.source, self.block, self.n_micro = source, block, n_micro
        self.blocks_per_step = tokens_per_step // block
        self.n_blocks = source.n_tokens // block
        self.parts = list(parts)
        if self.n_blocks < 1:
            raise UserError("there is not one block of tokens; add images")
        self.order = EpochOrder(seed, self.n_blocks)

    def __call__(self, step: int) -> Float[np.ndarray, "G N D"]:
        """This host's part of the tokens of step `step`, micro-batch by micro-batch."""
        blocks = self.blocks_of(step).reshape(self.n_micro, -1)
        return np.stack([self._read_parts(row) for row in blocks])

    def blocks_of(self, step: int) -> Int[np.ndarray, " S"]:
        """The blocks of a step, over all hosts."""
        return self.order.stretch(step, self.blocks_per_step)

    def _read_parts(self, blocks: Int[np.ndarray, " S"]) -> Float[np.ndarray, "N D"]:
        found = []
        for start, stop in self.parts:
            first = start // self.block
            last = -(-stop // self.block)
            tokens = self.source.read_blocks(blocks[first:last])
            found.append(tokens[start - first * self.block : stop - first * self.block])
        return np.concatenate(found)
