"""Repositories as they were released, in small: the real JSON files and tensor names, tiny weights.

Only sizes are changed in the configs. The files hold what the released ones do: buffers of old
library versions, old names of the VAE's attention, a decoder's whole autoencoder.
"""

import json
import pathlib
import shutil

import diffusers
import torch
import transformers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from safetensors.torch import load_file, save_file

from tests.generators import hub

HUB = pathlib.Path(__file__).parents[3] / "shared" / "hub"

UNET = {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1}
VAE = {"block_out_channels": [32, 32, 32, 64], "layers_per_block": 1, "sample_size": 64}
TEXT = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 4}  # fmt: skip
POSITIONS = "text_model.embeddings.position_ids"
OLD_VAE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def shrunk(path, **sizes):
    """A real config with other sizes; every size must have been there."""
    config = json.loads((HUB / path).read_text())
    assert set(sizes) <= set(config), set(sizes) - set(config)
    return config | sizes


def arguments(config):
    return {key: value for key, value in config.items() if not key.startswith("_")}


def put(folder, config, model, name="diffusion_pytorch_model.safetensors", more=None, rename=None):
    """Writes a component: its config, and its tensors with what old files hold besides."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tensors = {k: v.clone().contiguous() for k, v in model.state_dict().items()} | (more or {})
    save_file({rename(k) if rename else k: v for k, v in tensors.items()}, folder / name)


def old_vae_name(name):
    """As diffusers wrote it before 0.15."""
    if ".attentions." in name:
        for new, old in OLD_VAE.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name


def scheduler(folder, path):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HUB / path, folder / "scheduler_config.json")


def randomise(model, std):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def stable_diffusion(folder, version):
    """SD 1.5 or 2.1 ("sd15", "sd21") with its real vocabulary."""
    torch.manual_seed(0)
    folder, is_two = pathlib.Path(folder), version == "sd21"
    heads = {"attention_head_dim": [2, 4, 4, 4] if is_two else 4}
    unet = shrunk(f"{version}/unet/config.json", **UNET, **heads, cross_attention_dim=32)
    put(folder / "unet", unet, diffusers.UNet2DConditionModel(**arguments(unet)))
    vae = shrunk(f"{version}/vae/config.json", **VAE)
    put(folder / "vae", vae, diffusers.AutoencoderKL(**arguments(vae)), rename=old_vae_name)
    text = shrunk(f"{version}/text_encoder/config.json", **TEXT, projection_dim=32)
    put(
        folder / "text_encoder", text,
        transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)), "model.safetensors",
        {POSITIONS: torch.arange(77)[None]},
    )  # fmt: skip
    scheduler(folder / "scheduler", f"{version}/scheduler/scheduler_config.json")
    shutil.copytree(HUB / version / "tokenizer", folder / "tokenizer")
    index = json.loads((HUB / version / "model_index.json").read_text())
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))


def pixart(folder):
    """PixArt-XL-2-1024-MS; its transformer's file holds the empty caption of training."""
    torch.manual_seed(0)
    folder = pathlib.Path(folder)
    config = shrunk(
        "pixart/transformer/config.json", num_attention_heads=3, attention_head_dim=8,
        num_layers=2, cross_attention_dim=24, caption_channels=32,
    )  # fmt: skip
    known = set(diffusers.PixArtTransformer2DModel.__init__.__wrapped__.__annotations__)
    taken = {k: v for k, v in arguments(config).items() if k in known}
    model = randomise(diffusers.PixArtTransformer2DModel(**taken), 0.15)
    empty = {"caption_projection.y_embedding": torch.randn(120, 32)}
    put(folder / "transformer", config, model, more=empty)
    text = shrunk("pixart/text_encoder/config.json", d_model=32, d_kv=8, d_ff=37, num_layers=2,
                  num_heads=4, vocab_size=200)  # fmt: skip
    encoder = randomise(transformers.T5EncoderModel(transformers.T5Config(**text)), 0.3)
    encoder.save_pretrained(folder / "text_encoder", max_shard_size="20KB")
    (folder / "text_encoder" / "config.json").write_text(json.dumps(text))
    vae = shrunk("sd15/vae/config.json", **VAE)
    put(folder / "vae", vae, diffusers.AutoencoderKL(**arguments(vae)))
    scheduler(folder / "scheduler", "pixart/scheduler/scheduler_config.json")
    hub.pieces(folder / "tokenizer", "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 120})
    )
    index = {
        "_class_name": "PixArtAlphaPipeline",
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def kandinsky(folder, prior_folder):
    """Kandinsky 2.1 and its prior."""
    torch.manual_seed(0)
    folder, prior_folder = pathlib.Path(folder), pathlib.Path(prior_folder)
    prior = shrunk("kandinsky21/prior/prior/config.json", num_attention_heads=2,
                   attention_head_dim=12, num_layers=2, embedding_dim=32)  # fmt: skip
    put(prior_folder / "prior", prior,
        randomise(diffusers.PriorTransformer(**arguments(prior)), 0.2))  # fmt: skip
    text = shrunk("kandinsky21/prior/text_encoder/config.json", **TEXT, projection_dim=32,
                  vocab_size=600)  # fmt: skip
    put(
        prior_folder / "text_encoder", text,
        transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**text)),
        "model.safetensors", {POSITIONS: torch.arange(77)[None]},
    )  # fmt: skip
    image = shrunk("kandinsky21/prior/image_encoder/config.json", **TEXT, projection_dim=32,
                   image_size=28)  # fmt: skip
    put(
        prior_folder / "image_encoder", image,
        transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**image)),
        "model.safetensors", {"vision_model.embeddings.position_ids": torch.arange(5)[None]},
    )  # fmt: skip
    scheduler(prior_folder / "scheduler", "kandinsky21/prior/scheduler/scheduler_config.json")
    hub.clip_tokenizer(prior_folder / "tokenizer")
    index = {"_class_name": "KandinskyPriorPipeline", "tokenizer": ["transformers",
             "CLIPTokenizer"], "scheduler": ["diffusers", "UnCLIPScheduler"]}  # fmt: skip
    (prior_folder / "model_index.json").write_text(json.dumps(index))

    xlm = shrunk("kandinsky21/text_encoder/config.json", **TEXT, vocab_size=200, numDims=32,
                 transformerDimensions=32)  # fmt: skip
    model = MultilingualCLIP(
        MCLIPConfig(**xlm, transformerDimSize=32, imageDimSize=32)
    )  # fmt: skip
    put(folder / "text_encoder", xlm, model, "model.safetensors",
        {"transformer.embeddings.position_ids": torch.arange(514)[None]})  # fmt: skip
    unet = shrunk("kandinsky21/unet/config.json", **UNET, attention_head_dim=8,
                  cross_attention_dim=32, encoder_hid_dim=32)  # fmt: skip
    put(folder / "unet", unet, diffusers.UNet2DConditionModel(**arguments(unet)))
    movq = shrunk("kandinsky21/movq/config.json", block_out_channels=[32, 32, 32, 64],
                  layers_per_block=1, num_vq_embeddings=16)  # fmt: skip
    put(folder / "movq", movq, diffusers.VQModel(**arguments(movq)))
    scheduler(folder / "scheduler", "kandinsky21/scheduler/scheduler_config.json")
    hub.pieces(folder / "tokenizer", "sentencepiece.bpe.model")
    index = {"_class_name": "KandinskyPipeline", "tokenizer": ["transformers",
             "XLMRobertaTokenizerFast"], "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))


def write(system, folder):
    """Writes a system; returns its weights as `open_generator` takes them."""
    folder = pathlib.Path(folder)
    if system == "kandinsky21":
        kandinsky(folder / "main", folder / "prior")
        return "kandinsky", {"": str(folder / "main"), "prior": str(folder / "prior")}
    if system == "pixart":
        pixart(folder)
        return "pixart", {"": str(folder)}
    stable_diffusion(folder, system)
    return "stable_diffusion", {"": str(folder)}


def edit_tensors(path, change):
    """Rewrites a weight file: `change` gets its tensors by name."""
    tensors = load_file(path)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
