"""The letters that stand for array dimensions in every signature and comment.

========  ==========================================================
letter    meaning
========  ==========================================================
``B``     images in a batch
``H W``   image height and width in pixels
``h w``   height and width of the patch grid (or latent grid)
``a b``   height and width of latents, where images of another size meet them
``T``     tokens per image: class token (if any), R registers, P patches; of a text its tokens
``P``     patch tokens per image, ``h * w``
``N``     tokens in a batch, ``B * T``
``D``     features per token (width of the encoder)
``E e``   features of what attention looks at, of the timestep's embedding
``c o z`` channels that come in, that go out, of latents
``K``     concepts
``k``     active concepts per token
``M``     candidate points of the archetypal dictionary; in PixArt values of a modulation
``n``     images in a set
``L``     images kept per concept in the list of its top images
``R``     weighted sums that are solved at once
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
    def special_names(self) -> tuple[str, ...]:
        """What they are, in their order."""
        return (
            *("class" for _ in range(self.n_class)),
            *(f"register {i + 1}" for i in range(self.n_registers)),
        )

    @property
    def n_patches(self) -> int:
        return self.h * self.w

    @property
    def n_tokens(self) -> int:
        return self.n_special + self.n_patches
