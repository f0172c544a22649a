"""Checkpoints in all the shapes that the hub has them in, and in the shapes it should not."""

import json
import shutil

import jax
import numpy as np
import pytest

from bsjax.core.errors import UserError
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from tests.generators import hub, layouts

SETTINGS = Settings(steps=4, guidance=7.5, height=32, width=32, dtype="float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    return hub.stable_diffusion(folder), folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[1], tmp_path / "copy")


def read(folder, **weights):
    opened = loading.open_generator("stable_diffusion", "", {"": str(folder)} | weights, SETTINGS)
    return opened.read_params(), opened.digest


def assert_same(got, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, expected)


def test_shards_bin_and_half_precision(saved, tmp_path):
    pipeline, folder = saved
    expected, digest = read(folder)
    for name, more in {
        "shards": {"max_shard_size": "300KB"},
        "bin": {"safe_serialization": False},
        "bin shards": {"safe_serialization": False, "max_shard_size": "300KB"},
    }.items():
        pipeline.save_pretrained(tmp_path / name, **more)
        files = {path.name for path in (tmp_path / name / "unet").iterdir()}
        assert any("index" in file for file in files) == ("shards" in name)
        got, other = read(tmp_path / name)
        assert_same(got, expected)
        assert other != digest
    unet = pipeline.unet.half()
    unet.save_pretrained(tmp_path / "shards" / "unet", variant="fp16")
    pipeline.unet.float()
    for file in (tmp_path / "shards" / "unet").glob("*pytorch_model-0*"):
        file.unlink()
    (tmp_path / "shards" / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    got, _ = read(tmp_path / "shards")
    assert_same(got["unet"], expected["unet"], atol=1e-3)


def test_old_names_of_the_vae(saved, copy):
    """The hub's Stable Diffusion 1.5 has query, key, value and proj_attn, some as convolutions."""
    from safetensors.numpy import load_file, save_file

    expected, _ = read(saved[1])
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {}
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name, tensor in load_file(path).items():
        for new, old in renames.items():
            if f"attentions.0.{new}." in name:
                name = name.replace(new, old)
                tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        tensors[name] = tensor
    save_file(tensors, path)
    assert_same(read(copy)[0], expected)


def test_another_unet(saved, copy, tmp_path):
    other = tmp_path / "dpo" / "unet"
    shutil.copytree(copy / "unet", other)
    path = next(other.glob("*.safetensors"))
    from safetensors.numpy import load_file, save_file

    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    plain, digest = read(copy)
    changed, other_digest = read(copy, unet=str(tmp_path / "dpo"))
    assert digest != other_digest
    assert_same(changed["vae"], plain["vae"])
    bias = changed["unet"]["conv_in"]["bias"] - plain["unet"]["conv_in"]["bias"]
    np.testing.assert_allclose(bias, 1, atol=1e-5)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: shutil.rmtree(f / "vae"), "vae has no config.json"),
        (lambda f: next((f / "unet").glob("*.safetensors")).unlink(), "has no diffusion_pytorch"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "no usable CLIPTokenizer"),
        (
            lambda f: edit(f / "unet" / "config.json", cross_attention_dim=64),
            "do not fit each other",
        ),
        (lambda f: edit(f / "unet" / "config.json", layers_per_block=2), "is missing"),
        (
            lambda f: edit(f / "unet" / "config.json", act_fn="gelu"),
            'act_fn="gelu": expected only "silu"',
        ),
        (lambda f: edit(f / "text_encoder" / "config.json", intermediate_size=38), "has shape"),
        (lambda f: edit(f / "model_index.json", scheduler=["diffusers", "X"]), 'scheduler "X"'),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "is no JSON"),
        (lambda f: (f / "unet" / "config.json").write_text("[" * 100_000), "is no JSON"),
        (
            lambda f: next((f / "unet").glob("*.safetensors")).write_bytes(b"x" * 100),
            "damaged or no safetensors",
        ),
    ],
)
def test_what_does_not_fit_is_told(copy, break_it, message):
    break_it(copy)
    with pytest.raises(UserError, match=message) as caught:
        read(copy)
    assert "\n" not in str(caught.value)


def test_another_systems_weights(copy, tmp_path):
    hub.pixart(tmp_path / "pixart")
    with pytest.raises(UserError, match="unet has no config.json"):
        loading.open_generator(
            "stable_diffusion", "", {"": str(tmp_path / "pixart")}, SETTINGS
        ).read_params()


@pytest.mark.parametrize(
    ("weights", "flag"),
    [
        ({"": "nobody/none"}, "--config.generator.weights"),
        ({"": "nobody/none", "unet": "nobody/other"}, "--config.generator.unet_weights"),
    ],
)
def test_offline_names_the_flag_that_was_set(weights, flag, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="could not be fetched from the Hugging Face hub") as caught:
        loading.open_generator("stable_diffusion", "", weights, SETTINGS)
    assert f"set {flag} to" in str(caught.value)


@pytest.mark.parametrize("weights", [{}, {"unet": "here"}])
def test_faults_of_a_config_name_the_flag_that_was_set(copy, weights):
    edit(copy / "unet" / "config.json", act_fn="gelu")
    more = {key: str(copy) for key in weights}
    with pytest.raises(UserError) as caught:
        read(copy, **more)
    flag = "unet_weights" if weights else "weights"
    assert f"set --config.generator.{flag} to" in str(caught.value)


def test_a_tokenizer_of_another_text_encoder(copy):
    edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=100)
    with pytest.raises(UserError, match="pads captions to 100 tokens.*has 77 positions"):
        read(copy)
    edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=50)
    opened = loading.open_generator("stable_diffusion", "", {"": str(copy)}, SETTINGS)
    assert opened.generator.prompts(["a"]).arrays["ids"].shape == (1, 50)
    edit(copy / "text_encoder" / "config.json", vocab_size=500)
    with pytest.raises(UserError, match="tokenizer has 517 ids.*vocab_size=500"):
        read(copy)


def pointers(folder):
    """Files of a clone without git-lfs, with the sizes that its pointers tell."""
    return {
        str(path.relative_to(folder)): int(text.split("size ")[1])
        if (text := path.read_text()).startswith("version https://git-lfs")
        else path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.skipif(not layouts.HUB.is_dir(), reason="the repositories' own files are not here")
@pytest.mark.parametrize(("version", "gigabytes"), [("sd15", 4.27), ("sd21", 5.16)])
def test_of_a_repository_what_is_read_is_fetched(version, gigabytes):
    root = layouts.HUB / version
    listing = pointers(root)
    plan = loading.plan_download(listing, ["unet", "vae", "text_encoder", "scheduler"], root)
    assert sorted(plan) == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert sum(listing[file] for file in plan) / 1e9 == pytest.approx(gigabytes, abs=0.01)


def test_a_plan_takes_what_the_reader_takes(tmp_path):
    """T5 of PixArt at 512 pixels is there twice, in shards."""
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    files = [*names, "model.safetensors.index.json", "pytorch_model.bin.index.json",
             *(f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)), "config.json"]  # fmt: skip
    listing = [f"text_encoder/{name}" for name in files] + ["other/model.safetensors"]
    plan = loading.plan_download(listing, ["text_encoder"], tmp_path)
    assert plan == [f"text_encoder/{name}" for name in names]
    only_bin = ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin"]
    assert loading.plan_download(only_bin, ["unet"], tmp_path) == only_bin[:1]
    only_half = ["unet/diffusion_pytorch_model.fp16.safetensors"]
    assert loading.plan_download([*only_half, *only_bin], ["unet"], tmp_path) == only_half


def test_a_fetch_asks_for_the_plan_alone(saved, monkeypatch):
    folder, asked = saved[1], []
    sizes = {str(p.relative_to(folder)): 1 for p in folder.rglob("*") if p.is_file()}
    more = [
        "safety_checker/model.safetensors",
        *(f"unet/diffusion_pytorch_model.{kind}" for kind in ("fp16.safetensors", "bin")),
        "unet/diffusion_pytorch_model.non_ema.safetensors",
    ]

    def download(name, flag, patterns, revision=None):
        asked.append((name, patterns, revision))
        return folder

    monkeypatch.setattr(loading, "download_snapshot", download)
    monkeypatch.setattr(loading, "list_repository", lambda *_: sizes | dict.fromkeys(more, 1))
    weights = {"": "owner/main", "unet": "owner/unet"}
    loading.open_generator("stable_diffusion", "", weights, SETTINGS, revision="fp16")
    fetched = {name: set(patterns) for name, patterns, _ in asked[1::2]}
    assert fetched == {
        "owner/unet": {"unet/diffusion_pytorch_model.safetensors"},
        "owner/main": {"vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"},
    }
    # The revision is the main repository's.
    assert {(name, revision) for name, _, revision in asked} == {
        ("owner/main", "fp16"), ("owner/unet", None)}  # fmt: skip
    assert set(sizes) >= set().union(*fetched.values())
