"""Git-LFS pointers: the small text that a clone without git-lfs leaves in a weight file's place."""

import os
import pathlib

from bsjax.core.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1"


def refuse_pointer(path: str | os.PathLike) -> None:
    """Refuses a file that only names the weights instead of holding them.

    A path that is no file passes: whoever reads it says so.

    Raises:
      UserError: the file is a git-lfs pointer.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return
    with path.open("rb") as handle:
        head = handle.read(len(POINTER))
    if head == POINTER:
        raise UserError(
            f"{path} is a git-lfs pointer, not the file: run `git lfs pull` in its folder, or fetch"
            " the file itself"
        )
