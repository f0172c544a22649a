"""The tables of known keys, held to the classes that diffusers and transformers build."""

import functools
import inspect
import json
import pathlib

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig

from bsjax.convert.config_keys import ABSENT, ANY, check_keys, read_object
from bsjax.core.errors import UserError
from bsjax.generators import loading, network_keys, released
from bsjax.generators.protocol import Settings

HUB = pathlib.Path(__file__).parents[3] / "shared" / "hub"
SETTINGS = Settings(steps=20, guidance=4.0, height=512, width=512, dtype="float32")
# System -> variant, and the real JSON files by the names of the family's CONFIGS.
SYSTEMS = {
    "sd15": ("stable_diffusion", "sd15", {
        name: f"sd15/{name}/config.json" for name in ("unet", "vae", "text_encoder")}),
    "sd21": ("stable_diffusion", "sd21", {
        name: f"sd21/{name}/config.json" for name in ("unet", "vae", "text_encoder")}),
    "pixart": ("pixart", "pixart_1024", {
        name: f"pixart/{name}/config.json" for name in ("transformer", "text_encoder")}),
    "kandinsky21": ("kandinsky", "kandinsky21", {
        "prior": "kandinsky21/prior/prior/config.json",
        "clip_text": "kandinsky21/prior/text_encoder/config.json",
        "clip_image": "kandinsky21/prior/image_encoder/config.json",
        "text_encoder": "kandinsky21/text_encoder/config.json",
        "unet": "kandinsky21/unet/config.json",
        "movq": "kandinsky21/movq/config.json"}),
}  # fmt: skip
CLASSES = {
    "SD_UNET": diffusers.UNet2DConditionModel,
    "KANDINSKY_UNET": diffusers.UNet2DConditionModel,
    "VAE": diffusers.AutoencoderKL,
    "MOVQ": diffusers.VQModel,
    "PIXART_TRANSFORMER": diffusers.PixArtTransformer2DModel,
    "PRIOR": diffusers.PriorTransformer,
    "CLIP_TEXT": transformers.CLIPTextConfig,
    "CLIP_VISION": transformers.CLIPVisionConfig,
    "T5": transformers.T5Config,
    "XLM_ROBERTA": MCLIPConfig,
}


def signature(cls):
    parents = [cls, *(parent for parent in cls.__mro__[1:] if parent.__name__.endswith("Config"))]
    found = {}
    for each in reversed(parents[:2] if cls is MCLIPConfig else [cls]):
        found |= {
            name: parameter.default
            for name, parameter in inspect.signature(each.__init__).parameters.items()
            if name not in ("self", "kwargs")
        }
    # What they are called in the file.
    names = {"transformerDimSize": "transformerDimensions", "imageDimSize": "numDims"}
    for old, new in names.items():
        if old in found:
            found[new] = found.pop(old)
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_of_the_class_is_accounted_for(name):
    network = getattr(network_keys, name)
    arguments = signature(CLASSES[name])
    assert not set(arguments) - set(network.known) - set(network.harmless)
    assert not set(network.known) & set(network.harmless)
    for key, default in arguments.items():
        known = network.known.get(key)
        if known is None or known.needed:
            continue
        expected = list(default) if isinstance(default, tuple) else default
        got = list(known.default) if isinstance(known.default, tuple) else known.default
        assert got == expected and type(got) is type(expected), key


@pytest.mark.parametrize("name", ["CLIP_TEXT", "CLIP_VISION", "T5", "XLM_ROBERTA"])
def test_what_transformers_writes_into_every_config_is_accounted_for(name):
    network = getattr(network_keys, name)
    general = {key for key in transformers.PretrainedConfig().to_dict() if key[0] != "_"}
    assert not general - set(network.known) - set(network.harmless)
    # And what it writes for this class is followed, once it is of the kind that is built in.
    config = CLASSES[name]().to_dict()
    if name == "T5":
        config |= {"feed_forward_proj": "gated-gelu", "is_gated_act": True}
        config |= {"dense_act_fn": "gelu_new"}
    check_keys(name, config, network.known, network.harmless)


@functools.cache
def real(system):
    """Family, and all its configs: the released ones with the real files in their places."""
    family, variant, files = SYSTEMS[system]
    configs = dict(released.RELEASED[family][variant])
    if HUB.is_dir():
        configs |= {key: read_object(HUB / path) for key, path in files.items()}
    return loading.family_of(family), configs


@pytest.mark.skipif(not HUB.is_dir(), reason="the repositories' own files are not here")
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_repositories_own_files_give_the_released_networks(system):
    family, configs = real(system)
    built = family(configs, SETTINGS).components
    name, variant, _ = SYSTEMS[system]
    expected = loading.build(name, variant, SETTINGS).components
    assert {key: each.shapes for key, each in built.items()} == {
        key: each.shapes for key, each in expected.items()
    }


NAN, INFINITY = float("nan"), float("inf")
WRONG = ("x", None, True, -1, 0, 1.5, NAN, INFINITY, [], ["x"], [0], {}, {"x": 1}, 10**30)


@pytest.mark.parametrize("system", SYSTEMS)
def test_removed_and_wrong_values_are_followed_or_told(system):
    """Over every key of every file: one line, or the network that the change asks for."""
    family, configs = real(system)
    for name in SYSTEMS[system][2]:
        table, place = family.NETWORKS[name], family.CONFIGS[name]
        whole = network_keys.read_settings(table, configs[name], place)
        for key in configs[name]:
            without = {k: v for k, v in configs[name].items() if k != key}
            known = table.known.get(key)
            for value in (ABSENT, *WRONG):
                changed = without if value is ABSENT else without | {key: value}
                try:
                    found = network_keys.read_settings(table, changed, place)
                except UserError as error:
                    assert key in str(error) and "\n" not in str(error)
                    assert known is not None or key == "_class_name", (key, value)
                    continue
                if known is None:  # changes nothing
                    assert found == whole, (key, value)
                    continue
                if value is ABSENT:
                    assert not known.needed
                    assert found.get(key, ABSENT) == known.default
                else:
                    assert found == whole | {key: value}
                    assert known.only is ANY or value in known.choices
                    assert np.isfinite(value) if isinstance(value, float) else True


@pytest.mark.parametrize("system", SYSTEMS)
def test_unknown_keys_are_refused(system):
    family, configs = real(system)
    for name in SYSTEMS[system][2]:
        with pytest.raises(UserError, match="quantization_config=.* is unknown"):
            family(configs | {name: configs[name] | {"quantization_config": {"bits": 4}}}, SETTINGS)


@pytest.mark.parametrize(
    ("system", "name", "changes", "message"),
    [
        ("sd15", "unet", {"in_channels": 9}, "expected equal widths.*unet.in_channels=9"),
        ("sd15", "unet", {"out_channels": 8}, "expected equal widths.*unet.out_channels=8"),
        ("sd15", "unet", {"cross_attention_dim": 1024}, "text_encoder.hidden_size=768"),
        ("sd15", "unet", {"block_out_channels": [320, 640, 1280, 1281]}, "cannot be built"),
        ("sd15", "unet", {"attention_head_dim": [5, 10]}, "attention_head_dim"),
        ("sd15", "unet", {"down_block_types": ["DownBlock2D"] * 3}, "expected 4 of"),
        ("sd15", "unet", {"up_block_types": ["AttnUpBlock2D"] * 4}, "expected 4 of"),
        ("sd15", "vae", {"up_block_types": ["AttnUpDecoderBlock2D"] * 4}, "expected 4 of"),
        ("sd15", "vae", {"scaling_factor": None}, "scaling_factor=null"),
        ("sd15", "vae", {"scaling_factor": 0}, "scaling_factor=0"),
        ("sd15", "vae", {"latent_channels": 16}, "vae.latent_channels=16"),
        ("sd15", "text_encoder", {"num_attention_heads": 7}, "cannot be built"),
        ("sd15", "text_encoder", {"use_attention_mask": True}, "use_attention_mask=true"),
        ("pixart", "transformer", {"caption_channels": 2048}, "text_encoder.d_model=4096"),
        ("pixart", "transformer", {"cross_attention_dim": 768}, "cross_attention_dim=768"),
        ("pixart", "transformer", {"out_channels": 5}, "expected 4 or 8"),
        ("pixart", "transformer", {"sample_size": 32}, "expected only 64 or 128"),
        ("pixart", "text_encoder", {"dense_act_fn": "relu"}, 'dense_act_fn="relu"'),
        ("kandinsky21", "unet", {"encoder_hid_dim": 768}, "unet.encoder_hid_dim=768"),
        ("kandinsky21", "unet", {"in_channels": 9, "out_channels": 18}, "movq.vq_embed_dim=4"),
        ("kandinsky21", "prior", {"embedding_dim": 1280}, "prior.embedding_dim=1280"),
        ("kandinsky21", "text_encoder", {"max_position_embeddings": 78}, "expected more than 78"),
        ("kandinsky21", "text_encoder", {"position_embedding_type": "relative_key"}, "only \"abs"),
        ("kandinsky21", "clip_text", {"max_position_embeddings": 60}, "prior.num_embeddings=77"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_told(system, name, changes, message):
    family, configs = real(system)
    with pytest.raises(UserError, match=message) as caught:
        family(configs | {name: configs[name] | changes}, SETTINGS)
    assert "--config.generator." in str(caught.value) and "\n" not in str(caught.value)


SMALL_UNET = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 4,
}  # fmt: skip
SMALL_DECODER = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
SMALL_PIXART = {
    "num_attention_heads": 3, "attention_head_dim": 8, "num_layers": 1, "cross_attention_dim": 24,
    "sample_size": 64, "caption_channels": 32,
}  # fmt: skip


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# Network: base settings, what is computed, other values of the harmless keys.
HARMLESS = {
    "SD_UNET": (
        SMALL_UNET, lambda m: m(noise(1, 4, 8, 8), 7, noise(1, 5, 32)).sample,
        {"sample_size": 96, "dropout": 0.5, "upcast_attention": True, "addition_time_embed_dim": 8,
         "use_linear_projection": True, "addition_embed_type_num_heads": 2},
    ),
    "VAE": (
        SMALL_DECODER, lambda m: m.decode(noise(1, 4, 8, 8)).sample,
        {"in_channels": 4, "down_block_types": ("AttnDownEncoderBlock2D",) * 2, "sample_size": 8,
         "force_upcast": False, "use_quant_conv": False},
    ),
    "MOVQ": (
        SMALL_DECODER | {"vq_embed_dim": 4, "norm_type": "spatial"},
        lambda m: m.decode(noise(1, 4, 8, 8), force_not_quantize=True).sample,
        {"in_channels": 4, "down_block_types": ("AttnDownEncoderBlock2D",) * 2, "sample_size": 8,
         "force_upcast": True, "num_vq_embeddings": 9, "scaling_factor": 3.0},
    ),
    "PIXART_TRANSFORMER": (
        SMALL_PIXART,
        lambda m: m(
            noise(1, 4, 8, 8), noise(1, 5, 32), torch.ones(1),
            {"resolution": None, "aspect_ratio": None},
        ).sample,
        {"dropout": 0.5, "norm_num_groups": 7, "num_embeds_ada_norm": 9, "upcast_attention": True},
    ),
    "PRIOR": (
        {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "embedding_dim": 16},
        lambda m: m(noise(1, 16), 7, noise(1, 16), noise(1, 77, 16)).predicted_image_embedding,
        {"dropout": 0.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_called_harmless_changes_nothing(name):
    """torch's own module, with the same weights under another value of the key."""
    base, compute, others = HARMLESS[name]
    make = CLASSES[name]
    assert set(others) == set(getattr(network_keys, name).harmless)
    torch.manual_seed(0)
    model = make(**base).eval()
    for parameter in model.parameters():  # some start as zeros
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        expected = compute(model)
    assert expected.abs().max() > 1e-3
    for key, value in others.items():
        other = make(**base | {key: value}).eval()
        wanted = {k: v.shape for k, v in other.state_dict().items()}
        weights = {
            k: v.reshape(wanted[k]) if v.numel() == wanted[k].numel() else None
            for k, v in model.state_dict().items()
            if k in wanted
        }
        missing, _ = other.load_state_dict(
            {k: v for k, v in weights.items() if v is not None}, strict=False
        )
        assert all(k.startswith(("encoder.", "quantize.", "quant_conv.")) for k in missing), key
        with torch.no_grad():
            torch.testing.assert_close(compute(other), expected, rtol=1e-5, atol=1e-5)


def test_dumped_json_is_read_as_it_is(tmp_path):
    """Tuples become lists, and a list is what a table accepts."""
    text = json.dumps({"block_out_channels": (64,), "up_block_types": ("UpDecoderBlock2D",)})
    (tmp_path / "config.json").write_text(text)
    found = network_keys.read_settings(
        network_keys.VAE, read_object(tmp_path / "config.json"), ("", "vae")
    )
    assert found["block_out_channels"] == [64] and found["scaling_factor"] == 0.18215
