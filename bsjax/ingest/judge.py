"""Whether bytes are an image worth keeping, and what it looks like from afar."""

from typing import NamedTuple

import imagehash
import numpy as np

from bsjax.data.decode import decode_rgb

HASH_SIDE = 8  # bits of the perceptual hash, squared


class Judged(NamedTuple):
    """Size of an image and its perceptual hash, or the reason why it is of no use."""

    reason: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    phash: int = 0  # 64 bits: signs of low frequencies of the brightness


def judge(body: bytes, min_side: int) -> Judged:
    """Decodes an image.

    Args:
      body: the encoded image.
      min_side: pixels that its short side has at least.
    """
    try:
        image = decode_rgb(body)
    except ValueError as error:
        return Judged("undecodable", str(error)[:200])
    width, height = image.size
    if min(width, height) < min_side:
        return Judged("too_small", f"{width} x {height}", width, height)
    bits = imagehash.phash(image, HASH_SIDE).hash
    return Judged("", "", width, height, int(np.packbits(bits).view(">u8")[0]))


class Seen:
    """Hashes of the images kept, to be searched for near ones.

    Args:
      most_bits: hashes that differ in so many bits at most are of the same image; -1: none are.
    """

    def __init__(self, most_bits: int):
        self._most_bits = most_bits
        self._hashes = np.empty(1024, np.uint64)
        self._n = 0

    def nearest(self, phash: int) -> int | None:
        """Which of the images added so far looks the same; None: none does."""
        if self._most_bits < 0 or not self._n:
            return None
        bits = np.bitwise_count(self._hashes[: self._n] ^ np.uint64(phash))
        place = int(bits.argmin())
        return place if bits[place] <= self._most_bits else None

    def add(self, phash: int) -> None:
        """Adds the next one."""
        if self._n == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._n] = phash
        self._n += 1
