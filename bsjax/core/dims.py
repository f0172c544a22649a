"""The letters that stand for array dimensions in every signature and comment.

========  ==========================================================
letter    meaning
========  ==========================================================
``B``     images in a batch
``H W``   image height and width in pixels
``h w``   height and width of the patch grid (or latent grid)
``T``     tokens an image: class token (if any), R registers, P patches
``P``     patch tokens an image, ``h * w``
``N``     tokens in a batch, ``B * T``
``D``     features a token (width of the encoder)
``K``     concepts
``k``     active concepts a token
``M``     candidate points of the archetypal dictionary
``n``     images in a set
``L``     images kept a concept in the list of its top images
``S``     prompt length
``G``     groups
========  ==========================================================
"""

from typing import NamedTuple


class Grid(NamedTuple):
    """How the tokens of an image lie: class token, registers, then ``h * w`` patches by rows."""

    n_registers: int
    h: int
    w: int
    n_class: int = 1  # 0: an encoder without a class token

    @property
    def n_special(self) -> int:
        """Tokens in front of the patches."""
        return self.n_class + self.n_registers

    @property
    def n_patches(self) -> int:
        return self.h * self.w

    @property
    def n_tokens(self) -> int:
        return self.n_special + self.n_patches
