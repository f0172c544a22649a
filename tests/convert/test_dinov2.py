"""Weights files of every layout load strictly, and faulty ones end in one line."""

import json
import pathlib

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bsjax.convert import dinov2 as convert
from bsjax.core.errors import UserError
from bsjax.models.dinov2 import DinoV2, DinoV2Config
from tests.models.test_dinov2 import TINY, make_torch, port


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
    with pytest.raises(UserError, match=expected) as error:
        convert.load_dinov2("vits14", weights)
    assert "--config.encoder.weights" in one_line(error)
