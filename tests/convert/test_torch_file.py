"""torch.save files are read exactly, and nothing in them is ever executed."""

import os
import pickle
import time
import warnings
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


def test_nothing_is_left_out(tmp_path):
    """Every value of a checkpoint is a tensor or an attribute, whatever Python type it has."""
    linear = torch.nn.Linear(2, 3, bias=False)
    linear.note, linear._hidden = "hi", (1, 2.5)
    linear._forward_hooks[7] = torch.nn.ReLU
    values = {
        "none": None,
        "flag": True,
        "list": [1, "a", None],
        "size": torch.zeros(2, 3).shape,
        "set": {1},
        "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"),
        "double": np.float64(0.1),
        "single": np.float32(0.5),
        "count": np.int64(-3),
        "truth": np.bool_(True),
        "class": torch.nn.LayerNorm,
        "module": linear,
        "parts": [{"x": torch.ones(1), "lr": 0.1}, (torch.zeros(2),)],
        5: 6,
    }
    torch.save(values, tmp_path / "x.pth")
    file = open_torch_file(tmp_path / "x.pth")
    assert set(file.tensors) == {"module.weight", "parts.0.x", "parts.1.0"}
    assert file.modules == {"module": "torch.nn.modules.linear.Linear"}
    assert file.attributes == {
        "none": None,
        "flag": True,
        "list": [1, "a", None],
        "size": (2, 3),
        "set": {1},
        "dtype": "torch.bfloat16",
        "device": "cuda:1",
        "double": 0.1,
        "single": 0.5,
        "count": -3,
        "truth": True,
        "class": "torch.nn.modules.normalization.LayerNorm",
        "module.training": True,
        "module.in_features": 2,
        "module.out_features": 3,
        "module.bias": None,
        "module.note": "hi",
        "module._hidden": (1, 2.5),
        "module._forward_hooks.7": "torch.nn.modules.activation.ReLU",
        "parts.0.lr": 0.1,
        "5": 6,
    }
    assert type(file.attributes["truth"]) is bool


def quantised(dtype, axis=None):
    x = torch.ones(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will remove them; files with them stay
        if axis is None:
            return torch.quantize_per_tensor(x, 0.1, 0, dtype)
        return torch.quantize_per_channel(x, torch.ones(2), torch.zeros(2), axis, dtype)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torch.zeros(3, 4).T, "tensor w.x .4, 3. is not contiguous"),
        (lambda: torch.zeros(1).expand(5), "tensor w.x .5,. is not contiguous"),
        (lambda: torch.zeros(3).to(torch.float8_e5m2), "tensor w.x is of torch.float8_e5m2"),
        (lambda: torch.zeros(3).to(torch.float8_e4m3fn), "tensor w.x is of torch.float8_e4m3fn"),
        (lambda: torch.zeros(3, dtype=torch.uint16), "tensor w.x is of torch.uint16"),
        (lambda: torch.zeros(3, dtype=torch.complex64), "tensor w.x is of torch.ComplexFloatStor"),
        (lambda: torch.empty(3, dtype=torch.complex32), "tensor w.x is of torch.complex32"),
        (lambda: torch.empty(3, dtype=torch.bits8), "tensor w.x is of torch.bits8"),
        (lambda: quantised(torch.qint8), "tensor w.x is of torch.QInt8Storage"),
        (lambda: quantised(torch.qint32), "tensor w.x is of torch.QInt32Storage"),
        (lambda: quantised(torch.qint8, 0), "tensor w.x is of torch.QInt8Storage"),
    ],
)
def test_tensors_that_are_not_read_are_named(tmp_path, make, expected):
    torch.save({"w": {"x": make()}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=expected) as error:
        open_torch_file(tmp_path / "x.pth")
    assert "\n" not in str(error.value)
    # And how to have it read.
    assert "contiguous()" in str(error.value) or (
        "expected float32, float16 or bfloat16; save it as float32" in str(error.value)
    )


def test_empty_tensors_are_contiguous(tmp_path):
    torch.save({"a": torch.zeros(3, 0), "b": torch.zeros(0, 3)}, tmp_path / "x.pth")
    tensors = open_torch_file(tmp_path / "x.pth").tensors
    assert tensors["a"].read().shape == (3, 0) and tensors["b"].read().shape == (0, 3)


@pytest.mark.parametrize(
    "content",
    [
        {"a.b": torch.zeros(1), "a": {"b": torch.zeros(1)}},
        {"1": torch.zeros(1), 1: torch.zeros(1)},
        {"a": {"b": 1}, "a.b": torch.zeros(1)},
    ],
)
def test_a_name_twice_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="twice"):
        open_torch_file(tmp_path / "x.pth")


def write_pickle(path, data):
    """A checkpoint with one tensor in its archive whose pickle is `data`."""
    torch.save({"a": torch.arange(50.0)}, path)
    edit(path, "data.pkl", lambda _: data)


def nested(make, seed, depth):
    node = seed
    for _ in range(depth):
        node = make(node)
    return node


def cycle():
    content = {}
    content["a"] = content["b"] = content
    return content


def grown_afterwards(depth=60):
    """Dicts that are empty when they are put into each other, and filled from the outside in."""
    text = b"\x80\x02" + b"".join(b"}q%c" % i for i in range(depth))
    for i in range(depth - 1):
        text += b"h%c(U\x01ah%cU\x01bh%cu0" % (i, i + 1, i + 1)
    return text + b"h\x00."


def endless_text(n=60):
    """A device of the name of a device of ..., each twice as long."""
    return (
        b"\x80\x02ctorch\ndevice\nq\x00U\x04cudaq\x01"
        + n * (b"h\x00h\x01h\x01\x86Rq\x01")
        + b"U\x01a}U\x01bh\x01s."
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pickle.dumps(nested(lambda n: {"a": n, "b": n}, {}, 60)), "unfold without end"),
        (pickle.dumps(nested(lambda n: [n, n], [], 60)), "unfold without end"),
        # As keys and members tuples are hashed, each through all that it holds.
        (b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s.", "unfold without end"),
        (
            b"\x80\x02})" + (b"q\x00(" + b"h\x00" * 200 + b"t") * 8 + b"K\x01s.",
            "unfold without end",
        ),
        (b"\x80\x04\x8f()" + b"q\x00h\x00\x86" * 60 + b"\x90.", "unfold without end"),
        (pickle.dumps(nested(lambda n: {"a": n}, {}, 300)), "nested more than 200 deep"),
        (pickle.dumps(cycle()), "holds itself"),
        (grown_afterwards(), "unfold without end"),
        (b"\x80\x02" + b"}" + b"U\x01a)" + b"\x85" * 100_000 + b"s.", "nested more than 200"),
        (endless_text(), "damaged"),
        (b"\x80\x02}(U\x01aK\x01U\x01aK\x02u.", "the name 'a' is given twice"),
        (b"\x80\x02}U\x01a\x8b\xff\x00\x00\x00" + b"\x7f" * 255 + b"s.", "a number of 20"),
        (pickle.dumps({"n" * 2000: {"a": 1}}), "a name of 2000 letters"),
        (pickle.dumps({(1, 2): 1}), "a name that is a tuple"),
        (b"\x80\x02]K\x01a.", "neither a state dict nor a module"),
        (b"\x80\x02\x86.", "empty stack"),
        (b"\x80\x02(q\x00.", "empty stack"),
        (b"\x80\x02}u.", "empty stack"),
        (b"\x80\x02h\x05.", "damaged"),
    ],
    ids=range(19),
)
def test_what_unfolds_without_end_is_refused_at_once(tmp_path, data, expected):
    path = tmp_path / "x.pth"
    write_pickle(path, data)
    started = time.perf_counter()
    with pytest.raises(UserError, match=expected) as error:
        open_torch_file(path)
    assert time.perf_counter() - started < 5
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_shared_tensors_are_no_bomb(tmp_path):
    """A module that stands in a graph twice, and many names of one tensor, are honest."""
    tied = torch.nn.Linear(3, 3)
    torch.save(torch.nn.Sequential(tied, tied), tmp_path / "x.pth")
    assert len(open_torch_file(tmp_path / "x.pth").tensors) == 4
    weight = torch.zeros(3)
    torch.save({f"layer{i}": weight for i in range(3000)}, tmp_path / "x.pth")
    assert len(open_torch_file(tmp_path / "x.pth").tensors) == 3000


def test_nothing_of_a_pickle_stays_behind(tmp_path):
    """A pickle may set attributes of what it asked for, not of the functions that stand for it."""
    data = b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}U\x0c__defaults__)s\x86b."
    write_pickle(tmp_path / "x.pth", data)
    with pytest.raises(UserError, match="damaged"):
        open_torch_file(tmp_path / "x.pth")
    torch.save({"a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "x.pth")
    np.testing.assert_array_equal(open_torch_file(tmp_path / "x.pth").tensors["a"].read(), [1, 1])


def test_an_entry_twice_in_the_archive_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(50.0)}, path)
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("x/data/0", np.zeros(50, np.float32).tobytes())
    with pytest.raises(UserError, match="two entries x/data/0"):
        open_torch_file(path)


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
