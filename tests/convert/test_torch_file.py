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
        (lambda p: edit(p, "byteorder", lambda d: b"big"), "big-endian"),
        (lambda p: edit(p, "data.pkl", lambda d: d[: len(d) // 2]), "damaged"),
        (lambda p: edit(p, "data.pkl", lambda d: b"\x80\x02}q\x00U\x01ah\x00s."), "damaged"),
        (lambda p: edit(p, "data.pkl", lambda d: b"\x80\x04\x95" + b"\xff" * 8 + b"."), "damaged"),
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
