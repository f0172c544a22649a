"""Weight files and indices of every kind: the right ones are read, faulty ones end in one line."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import save_file

from bsjax.convert.tensors import choose_files, open_files, open_folder, shards_of
from bsjax.core.errors import UserError

FLAG = "--config.generator.weights"
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(tmp_path):
    """Tensors a, b in the first shard, c in the second."""
    save_file({"a": np.ones(2, np.float32), "b": np.full(3, 2, np.float32)}, tmp_path / FIRST)
    save_file({"c": np.full((2, 2), 3, np.float32)}, tmp_path / SECOND)
    write_index(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND})
    return tmp_path


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def refusal(call, *args):
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        # Two libraries, two orders.
        (["model.safetensors", INDEX], "model.safetensors"),
        (
            [
                "diffusion_pytorch_model.safetensors",
                "diffusion_pytorch_model.safetensors.index.json",
            ],
            "diffusion_pytorch_model.safetensors.index.json",
        ),
        ([INDEX, FIRST, SECOND, "pytorch_model.bin"], INDEX),
        (["pytorch_model.bin", "model.fp16.safetensors"], "model.fp16.safetensors"),
        (["pytorch_model.bin", "model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
        (["pytorch_model.fp16.bin", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model.bin.index.json", "tf_model.h5"], "pytorch_model.bin.index.json"),
        (["model.safetensors.index.fp16.json"], "model.safetensors.index.fp16.json"),
        (["diffusion_pytorch_model.non_ema.safetensors", "config.json"], None),
        (["openvino_model.bin", "flax_model.msgpack", "model.onnx", "rust_model.ot"], None),
        ([FIRST, SECOND], None),
        ([], None),
    ],
)
def test_choice_among_files(names, chosen):
    stems = ("model", "pytorch_model", "diffusion_pytorch_model")
    assert choose_files(names, stems) == ((chosen,) if chosen else None)
    assert choose_files(names[::-1], stems) == ((chosen,) if chosen else None)


def test_shards_are_read_as_one(sharded):
    assert shards_of(sharded / INDEX) == (FIRST, SECOND)
    source = open_folder(sharded, ("model",), FLAG)
    assert source.shapes == {"a": (2,), "b": (3,), "c": (2, 2)}
    np.testing.assert_array_equal(source.read("c"), np.full((2, 2), 3, np.float32))
    # Another precision's shards, and torch's own, are no shards of this set.
    for other in ("model.fp16-00001-of-00001.safetensors", "pytorch_model-00001-of-00003.bin"):
        (sharded / other).write_bytes(b"")
    assert open_folder(sharded, ("model",), FLAG).shapes == source.shapes


def test_files_of_other_kinds_are_named(tmp_path):
    for name in ("flax_model.msgpack", "model.non_ema.safetensors", FIRST, "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    text = refusal(open_folder, tmp_path, ("model",), FLAG)
    assert f"but flax_model.msgpack, {FIRST}, model.non_ema.safetensors; set {FLAG}" in text
    assert "has no model.safetensors" in refusal(open_folder, tmp_path / "no", ("model",), FLAG)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cut off or no JSON"),
        (b'{"weight_map": {"a": "model-0', "cut off or no JSON"),
        (b"\xff\xfe{}", "cut off or no JSON"),
        (b"[" * 100_000, "cut off or no JSON"),
        (b"{}", "has no weight_map"),
        (b"[]", "has no weight_map"),
        (b"null", "has no weight_map"),
        (b'{"weight_map": {}}', "has no weight_map"),
        (b'{"weight_map": ["a"]}', "has no weight_map"),
        (b'{"weight_map": {"a": 3}}', "'a' is in 3: expected the name of a .safetensors file"),
        (b'{"weight_map": {"a": null}}', "'a' is in null"),
        (b'{"weight_map": {"a": "../x.safetensors"}}', 'is in "../x.safetensors": expected'),
        (b'{"weight_map": {"a": "/etc/x.safetensors"}}', 'is in "/etc/x.safetensors": expected'),
        (b'{"weight_map": {"a": "x\\\\y.safetensors"}}', "expected the name of a .safetensors"),
        (b'{"weight_map": {"a": "x.bin"}}', "expected the name of a .safetensors"),
        (b'{"weight_map": {"a": "gone.safetensors"}}', "lacks gone.safetensors, which"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "git-lfs pointer"),
    ],
)
def test_faulty_indices(content, said, sharded):
    (sharded / INDEX).write_bytes(content)
    text = refusal(open_folder, sharded, ("model",), FLAG)
    assert said in text
    assert INDEX in text


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        (
            {"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND},
            f"do not hold: d in {SECOND}; fetch",
        ),
        ({"a": SECOND, "b": FIRST, "c": SECOND}, f"do not hold: a in {SECOND} (it is in {FIRST})"),
        ({"a": FIRST, "b": FIRST}, f"has {SECOND}, which {INDEX} does not name"),
    ],
)
def test_indices_that_their_shards_belie(weight_map, said, sharded):
    write_index(sharded, weight_map)
    assert said in refusal(open_folder, sharded, ("model",), FLAG)


def test_a_tensor_in_two_shards(sharded):
    save_file({"a": np.zeros(2, np.float32), "c": np.zeros((2, 2), np.float32)}, sharded / SECOND)
    text = refusal(open_folder, sharded, ("model",), FLAG)
    assert f"{SECOND} and {FIRST} both hold a;" in text


def test_shards_of_another_set_left_over(sharded):
    (sharded / "model-00003-of-00003.safetensors").write_bytes(b"")
    text = refusal(open_folder, sharded, ("model",), FLAG)
    assert "has model-00003-of-00003.safetensors, which" in text


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_pointers_in_place_of_weights(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438167536\n")
    text = refusal(open_folder, tmp_path, ("model",), FLAG)
    assert f"{path} is a git-lfs pointer" in text


def save(tensors, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


SUFFIXES = [".safetensors", ".bin"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_is_read_as_float32(dtype, suffix, tmp_path):
    values = torch.tensor([[1.5, -2.0], [0.1, 300.0]]).to(dtype)
    scalar = torch.tensor(0.25, dtype=dtype)
    path = save({"x": values, "y": scalar, "z": torch.arange(3)}, tmp_path / f"m{suffix}")
    source = open_files((path,))
    assert source.shapes == {"x": (2, 2), "y": (), "z": (3,)}
    for name, wanted in (("x", values), ("y", scalar)):
        found = source.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted.float().numpy())


@pytest.mark.parametrize(
    ("dtype", "suffix", "kind"),
    [
        (torch.float8_e4m3fn, ".safetensors", "F8_E4M3"),
        (torch.float8_e5m2, ".safetensors", "F8_E5M2"),
        (torch.int8, ".safetensors", "I8"),
        (torch.int64, ".safetensors", "I64"),
        (torch.bool, ".safetensors", "BOOL"),
        (torch.int8, ".bin", "int8"),
        (torch.int64, ".bin", "int64"),
        (torch.bool, ".bin", "bool"),
    ],
)
def test_quantised_weights_are_named(dtype, suffix, kind, tmp_path):
    path = save({"unet.w": torch.ones(4).to(dtype)}, tmp_path / f"m{suffix}")
    text = refusal(open_files((path,)).read, "unet.w")
    assert f"{path} holds unet.w as {kind}, expected float32" in text


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite(dtype, bad, suffix, tmp_path):
    tensors = {"good": torch.ones(3, dtype=dtype), "bad": torch.ones(2, 3, dtype=dtype)}
    tensors["bad"][1, 2] = bad
    source = open_files((save(tensors, tmp_path / f"m{suffix}"),))
    assert source.read("good").sum() == 3
    assert "holds bad with 1 of 6 numbers that are NaN or infinite" in refusal(source.read, "bad")


def test_doubles_beyond_float32(tmp_path):
    path = save({"w": torch.full((2,), 1e300, dtype=torch.float64)}, tmp_path / "m.safetensors")
    assert "2 of 2 numbers" in refusal(open_files((path,)).read, "w")


def test_headers_that_lie(tmp_path):
    path = save({"w": torch.ones(4)}, tmp_path / "m.safetensors")
    data = path.read_bytes()
    for wrong in (b"", data[:5], data[:20], data[:-1], data + b"x", b"\xff" * 40, b"{}" * 20):
        path.write_bytes(wrong)
        assert "is damaged or no safetensors file" in refusal(open_files, (path,))
