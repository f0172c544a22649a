"""What `bsjax ingest` is told."""

import math
from typing import NamedTuple

from bsjax.core.errors import UserError

DOWNLOADERS = ("aiohttp", "img2dataset")
# Least and greatest value.
BOUNDS = {
    "images": (1, None), "tries": (1, None), "seed": (0, None), "min_side": (1, None),
    "max_megabytes": (0.001, None), "duplicate_bits": (-1, 63), "timeout": (0.01, None),
    "retries": (0, None), "per_host": (1, None), "connections": (1, None),
}  # fmt: skip


class Settings(NamedTuple):
    """What `bsjax ingest` is told; as its flags."""

    source: str
    images: int = 10_000
    tries: int | None = None
    seed: int = 0
    url_field: str = ""
    caption_field: str = ""
    min_side: int = 64  # pixels
    max_megabytes: float = 20.0
    duplicate_bits: int = 4
    timeout: float = 10.0  # seconds
    retries: int = 2
    per_host: int = 8
    connections: int = 256
    downloader: str = "aiohttp"
    allow_private: bool = False

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
          UserError: a value beyond its bounds.
        """
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is None and self._field_defaults[name] is None:
                continue
            is_in = least <= value and math.isfinite(value) and (most is None or value <= most)
            if not is_in:
                expected = f"from {least} up" if most is None else f"from {least} to {most}"
                raise UserError(f"--{name}={value}: expected {expected}; set it so")
        if self.downloader not in DOWNLOADERS:
            raise UserError(
                f"--downloader={self.downloader}: expected {' or '.join(DOWNLOADERS)}; set it so"
            )
