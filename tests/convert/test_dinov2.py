"""Weights files of every layout load strictly, and faulty ones end in one line."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from bsjax.convert import dinov2 as convert
from bsjax.convert.dinov2_config import HARMLESS, check_encoder_config, encoder_keys
from bsjax.core.errors import UserError
from bsjax.models.dinov2 import DinoV2, DinoV2Config, interpolate_positions
from tests.models.test_dinov2 import TINY, make_torch, port, tokens_of_torch


def original_state_dict(params, config: DinoV2Config) -> dict[str, torch.Tensor]:
    """Our parameters under the names of the original release."""
    flat = {
        "/".join(k.key for k in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    first, second = ("fc1", "fc2") if config.mlp == "gelu" else ("w12", "w3")
    state = {"mask_token": np.zeros((1, config.width), np.float32)}
    for path, array in flat.items():
        name = path.replace("/", ".").replace("block_", "blocks.").replace(".scale", ".weight")
        if name == "patch_embed.kernel":
            name, array = "patch_embed.proj.weight", array.reshape(14, 14, 3, -1)
            array = array.transpose(3, 2, 0, 1)
        elif name == "patch_embed.bias":
            name = "patch_embed.proj.bias"
        elif name.endswith(".kernel"):
            name, array = name.replace(".kernel", ".weight"), array.T
        for old, new in (
            (".qkv.", ".attn.qkv."),
            (".proj.", ".attn.proj."),
            (".fc1.", f".mlp.{first}."),
            (".fc2.", f".mlp.{second}."),
        ):
            if name.startswith("blocks."):
                name = name.replace(old, new)
        name = name + ".gamma" if name.endswith((".ls1", ".ls2")) else name
        state[name] = array
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in state.items()}


@pytest.mark.parametrize("kind", ["registers", "swiglu"])
def test_original_pth_equals_hub_layout(kind, tmp_path):
    config = TINY[kind]
    hub = port(config, make_torch(config), tmp_path / "hub")
    path = tmp_path / "original.pth"
    torch.save(original_state_dict(hub.params, config), path)
    original = convert.load_config(DinoV2(config), str(path), "x")
    assert jax.tree.structure(original.params) == jax.tree.structure(hub.params)
    jax.tree.map(np.testing.assert_array_equal, original.params, hub.params)


def test_sharded_folder_and_bfloat16_load(tmp_path):
    config = TINY["plain"]
    oracle = make_torch(config)
    whole = port(config, oracle, tmp_path / "whole")
    oracle.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    sharded = convert.load_config(DinoV2(config), str(tmp_path / "shards"), "x")
    jax.tree.map(np.testing.assert_array_equal, sharded.params, whole.params)
    oracle.bfloat16().save_pretrained(tmp_path / "bf16")
    rounded = convert.load_config(DinoV2(config), str(tmp_path / "bf16"), "x")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), rounded.params, whole.params
    )


@pytest.mark.parametrize("max_shard_size", ["1GB", "40KB"])
def test_folders_with_torch_files_alone(max_shard_size, tmp_path):
    config = TINY["plain"]
    oracle = make_torch(config)
    whole = port(config, oracle, tmp_path / "safe")
    folder = tmp_path / "bin"
    oracle.save_pretrained(folder, max_shard_size=max_shard_size, safe_serialization=False)
    if max_shard_size == "40KB":
        assert (folder / "pytorch_model.bin.index.json").exists()
    assert not list(folder.glob("*.safetensors"))
    loaded = convert.load_config(DinoV2(config), str(folder), "x")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, whole.params)


INDEX = "pytorch_model.bin.index.json"
SHARD = "pytorch_model-00001-of-00001.bin"


@pytest.mark.parametrize(
    ("listed", "fetched"),
    [
        (
            ["config.json", "model.safetensors", "pytorch_model.bin", "x/model.safetensors"],
            [("config.json", "model.safetensors")],
        ),
        (["config.json", "pytorch_model.bin"], [("config.json", "pytorch_model.bin")]),
        ([INDEX, SHARD, "tf_model.h5"], [("config.json", INDEX), (SHARD,)]),
        (None, [convert.HUB_FILES]),
    ],
)
def test_only_what_is_read_is_fetched(listed, fetched, tmp_path, monkeypatch):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": SHARD}}))
    asked = []
    sizes = None if listed is None else dict.fromkeys(listed, 1)
    monkeypatch.setattr(convert, "list_repository", lambda *_: sizes)

    def download(repo, flag, patterns):
        assert (repo, flag) == ("owner/name", "--config.encoder.weights")
        asked.append(patterns)
        return tmp_path

    monkeypatch.setattr(convert, "download_snapshot", download)
    assert convert._download("owner/name") == tmp_path
    assert asked == fetched


def test_a_repository_without_weights_is_told_so(monkeypatch):
    monkeypatch.setattr(convert, "list_repository", lambda *_: {"config.json": 9, "m.onnx": 9})
    with pytest.raises(UserError, match="owner/name has no model.safetensors.*, but m.onnx; set"):
        convert.load_dinov2("vits14", "owner/name")


NAMES = {"plain": transformers.Dinov2Config, "registers": transformers.Dinov2WithRegistersConfig}


@pytest.mark.parametrize("kind", NAMES)
def test_every_key_of_the_config_is_accounted_for(kind, tmp_path):
    """Removes each, and gives it other values: transformers' own module stays this one, or not."""
    config = TINY[kind]
    make_torch(config).config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    keys = encoder_keys(config)
    every = {*NAMES[kind]().to_dict(), "torch_dtype"}
    assert {name for name in every if name[0] != "_"} - set(keys) <= HARMLESS

    def is_taken(content):
        path.write_text(json.dumps(content))
        try:
            check_encoder_config(tmp_path, config, "--flag")
        except UserError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error)
            return False
        return True

    def of_torch(content):
        theirs = NAMES[kind].from_dict(dict(content))
        # Of some keys in released files transformers knows nothing any more.
        return {name: getattr(theirs, name, keys[name].default) for name in keys}

    assert is_taken(saved)
    wanted = of_torch(saved)
    for name in keys:
        removed = {key: value for key, value in saved.items() if key != name}
        assert is_taken(removed) == (of_torch(removed) == wanted and name != "model_type"), name
        for value in (None, True, False, 0, 3, -1, 2.5, "gelu", "x", [], [14, 14], {}, 10**400):
            if name != "pruned_heads" and value != saved.get(name, keys[name].default):
                assert not is_taken(saved | {name: value}), (name, value)
    assert not is_taken(saved | {"pruned_heads": {"0": [1]}})
    assert not is_taken(saved | {"interpolate_mode": "nearest"})
    assert is_taken(saved | {"drop_path_rate": 0.5, "_commit": 1})
    original = {"interpolate_antialias": True, "interpolate_offset": 0.0}
    assert is_taken(saved | original) == (kind == "registers")
    for content in ("", "{", "[]", "null", "\ufeff{}"):
        path.write_text(content)
        with pytest.raises(UserError):
            check_encoder_config(tmp_path, config, "--flag")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match="git-lfs pointer"):
        check_encoder_config(tmp_path, config, "--flag")


def test_a_folder_whose_config_is_of_another_model(tmp_path):
    config = TINY["plain"]
    port(config, make_torch(config), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"layer_norm_eps": 1e-06', '"layer_norm_eps": 1e-05'))
    with pytest.raises(UserError, match="layer_norm_eps=1e-05: expected only 1e-06; set --config"):
        convert.load_config(DinoV2(config), str(tmp_path), "x")
    # A file alone says nothing about itself.
    convert.load_config(DinoV2(config), str(tmp_path / "model.safetensors"), "x")


def positions_of_the_original(position, h, w, antialias, offset):
    """interpolate_pos_encoding of facebookresearch/dinov2, vision_transformer.py, restated."""
    side = int(math.sqrt(position.shape[1] - 1))
    if (h, w) == (side, side):
        return position
    how = {"scale_factor": ((h + offset) / side, (w + offset) / side)} if offset else {}
    patches = torch.nn.functional.interpolate(
        position[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2),
        mode="bicubic",
        antialias=antialias,
        **(how or {"size": (h, w)}),
    )
    assert patches.shape[-2:] == (h, w)
    patches = patches.permute(0, 2, 3, 1).reshape(1, h * w, -1)
    return torch.cat((position[:, :1], patches), dim=1)


@pytest.mark.parametrize(("antialias", "offset"), [(False, 0.1), (True, 0.0), (False, 0.0)])
@pytest.mark.parametrize(
    ("side", "h", "w"), [(37, 16, 16), (37, 8, 23), (37, 37, 37), (37, 40, 36), (5, 7, 3)]
)
def test_positions_are_those_of_the_original(side, h, w, antialias, offset):
    rng = np.random.default_rng(0)
    position = rng.normal(size=(1, 1 + side * side, 6)).astype(np.float32)
    wanted = positions_of_the_original(torch.from_numpy(position), h, w, antialias, offset)
    ours = interpolate_positions(jnp.asarray(position), h, w, antialias, offset)
    # torch computes places in float32, where those of 37 cells are wrong by 2e-6 of a cell.
    np.testing.assert_allclose(ours, wanted.numpy(), atol=2e-5)


def apply_model(loaded, images):
    return jax.jit(loaded.model.apply)({"params": loaded.params}, images)


@pytest.mark.parametrize("size", [(70, 70), (42, 98), (112, 84)])
@pytest.mark.parametrize(("kind", "offset"), [("plain", 0.1), ("swiglu", 0.1), ("registers", 0.0)])
def test_each_layout_has_its_own_interpolation(kind, offset, size, tmp_path, monkeypatch):
    config = TINY[kind]
    oracle = make_torch(config)
    hub = port(config, oracle, tmp_path / "hub")
    path = tmp_path / "original.pth"
    torch.save(original_state_dict(hub.params, config), path)
    original = convert.load_config(DinoV2(config), str(path), "x")
    assert (hub.model.config.interpolate_offset, original.model.config.interpolate_offset) == (
        0.0,
        offset,
    )
    images = np.random.default_rng(1).normal(size=(1, *size, 3)).astype(np.float32)
    of_hub = np.asarray(apply_model(hub, images))
    of_original = np.asarray(apply_model(original, images))
    np.testing.assert_allclose(of_hub, tokens_of_torch(oracle, images), atol=1e-4)

    embeddings = oracle.embeddings
    position = embeddings.position_embeddings
    monkeypatch.setattr(
        embeddings,
        "interpolate_pos_encoding",
        lambda _, height, width: positions_of_the_original(
            position, height // 14, width // 14, config.antialias, offset
        ),
    )
    np.testing.assert_allclose(of_original, tokens_of_torch(oracle, images), atol=1e-4)
    is_other = np.abs(of_hub - of_original).max() > 0.01
    assert is_other == (offset > 0 and size != (70, 70))
    notes = [list(loaded.notes) for loaded in (hub, original)]
    if offset:
        assert "without offset, as transformers" in notes[0][0]
        assert "with offset 0.1, as the original release" in notes[1][0]
    else:
        assert notes == [[], []]


def test_missing_shard_is_named(tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="lacks model-00001-of-00002.safetensors"):
        convert.load_dinov2("vits14", str(tmp_path))


def test_random_weights_depend_on_the_seed_alone():
    first, again, other = (
        convert.load_dinov2("vits14_reg", f"random:{seed}") for seed in (0, 0, 1)
    )
    assert first.is_random
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    kernels = [e.params["block_0"]["qkv"]["kernel"] for e in (first, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_weights_of_another_variant_are_named(tmp_path):
    port(TINY["plain"], make_torch(TINY["plain"]), tmp_path)
    with pytest.raises(UserError, match="another model .width 32, depth 2, 0 registers") as error:
        convert.load_dinov2("vitb14_reg", str(tmp_path))
    assert "--config.encoder.variant" in one_line(error)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_file(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"cls_token": torch.zeros(1, 1, 999)}, path)
    else:
        save_file({"cls_token": np.zeros((1, 1, 999), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated|damaged") as error:
        convert.load_dinov2("vits14", str(path))
    one_line(error)


def test_missing_extra_and_misshapen_tensors_are_listed_together(tmp_path):
    config = TINY["plain"]
    port(config, make_torch(config), tmp_path)
    path = pathlib.Path(tmp_path / "model.safetensors")
    tensors = load_file(path)
    del tensors["layernorm.bias"]
    tensors["surprise"] = np.zeros(3, np.float32)
    save_file(tensors, path)
    with pytest.raises(UserError) as error:
        convert.load_config(DinoV2(config), str(path), "x")
    assert "surprise is unexpected" in one_line(error)
    assert "norm/bias is missing" in one_line(error)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("nowhere.safetensors", "does not exist"),
        ("/no/such/folder", "expected a hub id"),
        ("random:x", "whole number"),
        ("no-such-owner-7/no-such-model", "could not be fetched"),
    ],
)
def test_absent_weights(weights, expected, monkeypatch):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(convert, "list_repository", lambda *_: None)
    with pytest.raises(UserError, match=expected) as error:
        convert.load_dinov2("vits14", weights)
    assert "--config.encoder.weights" in one_line(error)
