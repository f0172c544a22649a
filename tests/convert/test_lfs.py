import pytest

from bsjax.convert.lfs import refuse_pointer
from bsjax.core.errors import UserError

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    + b"\nsize 4400000000\n"
)


def test_a_pointer_is_refused_and_anything_else_passes(tmp_path):
    path = tmp_path / "sae.pth"
    path.write_bytes(POINTER)
    with pytest.raises(UserError, match="sae.pth is a git-lfs pointer, not the file.*git lfs pull"):
        refuse_pointer(path)
    for content in (b"", POINTER[1:], b"PK\x03\x04", POINTER[:20]):
        path.write_bytes(content)
        refuse_pointer(path)
    refuse_pointer(tmp_path / "absent")
    refuse_pointer(tmp_path)
