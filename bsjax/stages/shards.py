"""Shards of an unfinished `measure`; see `bsjax.results.shards`, where they are kept."""

from bsjax.results.shards import Progress, ShardStore

__all__ = ["Progress", "ShardStore"]
