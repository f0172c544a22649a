"""torch.save files are read exactly, and nothing in them is ever executed."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from bsjax.convert.torch_file import open_torch_file
from bsjax.core.errors import UserError


def test_state_dict_of_every_dtype(tmp_path):
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
    state = {str(d).split(".")[1]: (10 * torch.randn(5, 3)).abs().to(d) for d in dtypes}
    state["scalar"] = torch.tensor(2.5)
    state["view"] = torch.arange(12.0).reshape(4, 3)[1:3]
    path = tmp_path / "state.pth"
    torch.save(state, path)
    tensors = open_torch_file(path).tensors
    assert set(tensors) == set(state)
    for name, expected in state.items():
        got = tensors[name].read()
        np.testing.assert_array_equal(got.astype(np.float64), expected.double().numpy())
    np.testing.assert_array_equal(tensors["float32"].read_rows(1, 4), state["float32"][1:4].numpy())


def test_state_dict_of_a_module(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(module.state_dict(), tmp_path / "state.pth")
    tensors = open_torch_file(tmp_path / "state.pth").tensors
    assert set(tensors) == set(module.state_dict())
    for name, expected in module.state_dict().items():
        np.testing.assert_array_equal(tensors[name].read(), expected.numpy())


def test_module_graph(golden_dir):
    file = open_torch_file(golden_dir / "ra_sae" / "ra_sae_published.pth")
    assert (
        file.tensors["module.dictionary.W"].shape[1] == file.tensors["module.dictionary.C"].shape[0]
    )
    assert file.attributes["module.dictionary.delta"] == 1.0


class Bomb:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("function", [os.system, eval])
def test_code_is_refused_before_anything_runs(tmp_path, function, nested):
    sentinel = tmp_path / "ran"
    argument = (
        f"touch {sentinel}" if function is os.system else f"open({str(sentinel)!r}, 'w').close()"
    )
    bomb = Bomb(function, argument)
    content = {"weights": torch.zeros(2), "deep": [{"deeper": bomb}]} if nested else bomb
    path = tmp_path / "bad.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="refused before anything ran") as error:
        open_torch_file(path)
    assert "\n" not in str(error.value)
    assert not sentinel.exists()
    # The test can fail: plain unpickling does run it.
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        if not nested:
            pickle.loads(archive.read(name))
            assert sentinel.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins exec",
        "builtins getattr",
        "builtins __import__",
        "os system",
        "posix system",
        "subprocess Popen",
        "torch.hub load",
        "torch load",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2.__globals__",
        "collections OrderedDict.fromkeys",
        "numpy.core.multiarray _reconstruct",
        "overcomplete.sae.modules os",
    ],
)
def test_every_other_global_is_refused_by_name(tmp_path, name):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(50.0)}, path)
    module, attribute = name.split()
    asks = b"\x80\x04\x8c%c%s\x8c%c%s\x93." % (
        *(len(module), module.encode()),
        *(len(attribute), attribute.encode()),
    )
    edit(path, "data.pkl", lambda data: asks)
    with pytest.raises(UserError, match=f"asks for {module}.{attribute}") as error:
        open_torch_file(path)
    assert "\n" not in str(error.value)


def test_rows_outside_a_tensor_are_no_data(tmp_path):
    torch.save({"a": torch.zeros(4, 2), "b": torch.ones(4, 2)}, tmp_path / "x.pth")
    tensor = open_torch_file(tmp_path / "x.pth").tensors["a"]
    assert tensor.read_rows(4, 4).shape == (0, 2)
    for start, stop in ((0, 5), (-1, 2), (3, 2)):
        with pytest.raises(IndexError):
            tensor.read_rows(start, stop)


def resize(data, size):
    """The pickle of `arange(50)` with another length in the shape of the tensor alone."""
    assert data.count(b"K2\x85") == 1
    return data.replace(b"K2\x85", b"\x8a\x08" + size.to_bytes(8, "little", signed=True) + b"\x85")


def deflate(path):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def patch_directory(path, place, value):
    """Overwrites a byte of the first entry in the archive's central directory."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    path.write_bytes(data)


def edit(path, target, change):
    """Rewrites a checkpoint's archive with one entry changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(data) if name.endswith(target) else data)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-200]), "truncated"),
        (lambda p: p.write_bytes(b"hello"), "no torch checkpoint"),
        (lambda p: p.write_bytes(b""), "no torch checkpoint"),
        (lambda p: edit(p, "data/0", lambda d: d[:-8]), "truncated"),
        (lambda p: edit(p, "data.pkl", lambda d: resize(d, 51)), "truncated"),
        (lambda p: edit(p, "data.pkl", lambda d: resize(d, 2**62)), "truncated"),
        (lambda p: edit(p, "data.pkl", lambda d: resize(d, -1)), "impossible shape"),
        (deflate, "compressed archive"),
        (lambda p: patch_directory(p, 6, 200), "no torch checkpoint"),  # zip version
        (lambda p: patch_directory(p, 8, 1), "no torch checkpoint"),  # encrypted
        (lambda p: patch_directory(p, 47, 0x9B), "no torch checkpoint"),  # name, not UTF-8
        (lambda p: p.unlink(), "does not exist"),
        (lambda p: edit(p, "byteorder", lambda d: b"big"), "big-endian"),
        (lambda p: edit(p, "data.pkl", lambda d: d[: len(d) // 2]), "damaged"),
        (lambda p: edit(p, "data.pkl", lambda d: b"\x80\x02}q\x00U\x01ah\x00s."), "damaged"),
        (lambda p: edit(p, "data.pkl", lambda d: b"\x80\x04\x95" + b"\xff" * 8 + b"."), "damaged"),
        (lambda p: edit(p, "data.pkl", lambda d: b"\x80\x02}r\xff\xff\xff\x7f."), "memo place"),
        (lambda p: torch.save({"a": torch.zeros(3, 4).T}, p), "not contiguous"),
        (lambda p: torch.save({"a": 1}, p), "no tensors"),
        (
            lambda p: torch.save({"a": torch.zeros(3)}, p, _use_new_zipfile_serialization=False),
            "before 1.6",
        ),
    ],
)
def test_damaged_files_end_in_one_line(tmp_path, damage, expected):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(50.0)}, path)
    damage(path)
    with pytest.raises(UserError, match=expected) as error:
        open_torch_file(path)
    assert "\n" not in str(error.value)
