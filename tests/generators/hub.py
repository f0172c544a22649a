"""Tiny systems with random weights, written by torch's classes in the hub's layout."""

import io
import json
import pathlib

import diffusers
import sentencepiece
import torch
import transformers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 32,
}
SD_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SD_SCHEDULERS = {
    "pndm": lambda **more: diffusers.PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, **more),
    "ddim": lambda **more: diffusers.DDIMScheduler(
        **SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False, **more
    ),
    "dpm": lambda **more: diffusers.DPMSolverMultistepScheduler(**SD_SCHEDULE, **more),
}


def clip_tokenizer(folder):
    """A CLIP tokenizer of bytes, few merges."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    vocabulary = symbols + [f"{symbol}</w>" for symbol in symbols]
    merges = [("t", "h"), ("th", "e</w>"), ("a", "n</w>")]
    vocabulary += ["".join(pair) for pair in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    # Without ftfy the slow one splits Chinese characters; with it, it does as the fast one.
    return transformers.CLIPTokenizerFast(*files, model_max_length=77)


def clip_text(act, projection=False, **more):
    settings = {
        "vocab_size": 520,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": 16,
        "bos_token_id": 515,
        "eos_token_id": 516,
    }
    config = transformers.CLIPTextConfig(**settings | more, hidden_act=act)
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(config).eval()


def stable_diffusion(folder, version="1.5", scheduler="pndm", **scheduler_settings):
    """A tiny pipeline of torch, saved; returns it."""
    torch.manual_seed(0)
    is_two = version == "2.1"
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=[2, 4] if is_two else 4,
        use_linear_projection=is_two,
        upcast_attention=is_two,
    ).eval()
    more = {"prediction_type": "v_prediction"} if is_two else {}
    text = clip_text("gelu" if is_two else "quick_gelu")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**VAE).eval(),
        text_encoder=text,
        tokenizer=clip_tokenizer(pathlib.Path(folder) / "tokenizer"),
        unet=unet,
        scheduler=SD_SCHEDULERS[scheduler](**more, **scheduler_settings),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return pipeline


def pieces(folder, name, **ids):
    """A sentencepiece model of a few lines of text."""
    text = ["a red panda on the beach", "two owls in the rain", "the quick brown fox jumps"] * 9
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=60, model_type="unigram",
        hard_vocab_limit=False, minloglevel=2, **ids,
    )  # fmt: skip
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(model.getvalue())
    return str(folder / name)


def pixart(folder, sample_size=128, **scheduler_settings):
    """A tiny pipeline of torch, saved; returns it. The text encoder is saved in shards."""
    torch.manual_seed(0)
    spm = pieces(
        pathlib.Path(folder) / "tokenizer", "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1
    )
    text = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=200, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    for parameter in text.parameters():  # T5 starts with features far below one
        torch.nn.init.normal_(parameter, std=0.3)
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=24, sample_size=sample_size, patch_size=2, caption_channels=32,
        attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
    ).eval()  # fmt: skip
    for parameter in transformer.parameters():  # else the last layer starts near zero
        torch.nn.init.normal_(parameter, std=0.15)
    pipeline = diffusers.PixArtAlphaPipeline(
        tokenizer=transformers.T5Tokenizer(spm, legacy=True, extra_ids=0),
        text_encoder=text,
        vae=diffusers.AutoencoderKL(**VAE).eval(),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(**scheduler_settings),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for file in (pathlib.Path(folder) / "text_encoder").glob("model*.safetensors"):
        file.unlink()
    text.save_pretrained(pathlib.Path(folder) / "text_encoder", max_shard_size="20KB")
    return pipeline


def kandinsky(folder, prior_folder, n_prior_layers=2):
    """Tiny pipelines of torch, prior and decoder, saved; returns both."""
    torch.manual_seed(0)
    text = clip_text("quick_gelu", projection=True, hidden_size=32, projection_dim=32)
    vision = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
            image_size=28, patch_size=14, projection_dim=32,
        )
    ).eval()  # fmt: skip
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, num_layers=n_prior_layers, embedding_dim=32
    ).eval()
    for name, parameter in prior.named_parameters():
        if "norm" not in name:  # tables start as zeros
            torch.nn.init.normal_(parameter, std=0.2)
    prior_pipeline = diffusers.KandinskyPriorPipeline(
        prior=prior,
        image_encoder=vision,
        text_encoder=text,
        tokenizer=clip_tokenizer(pathlib.Path(prior_folder) / "tokenizer"),
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        image_processor=transformers.CLIPImageProcessor(size=28, crop_size=28),
    )
    spm = pieces(pathlib.Path(folder) / "tokenizer", "sentencepiece.bpe.model")
    config = MCLIPConfig(
        vocab_size=200, hidden_size=32, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=100, transformerDimSize=32,
        imageDimSize=32, type_vocab_size=1,
    )  # fmt: skip
    attention, plain = "SimpleCrossAttn", "Resnet"
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=8, block_out_channels=(32, 64),
        layers_per_block=1, cross_attention_dim=32, attention_head_dim=8, encoder_hid_dim=32,
        encoder_hid_dim_type="text_image_proj", addition_embed_type="text_image",
        down_block_types=(f"{plain}DownsampleBlock2D", f"{attention}DownBlock2D"),
        up_block_types=(f"{attention}UpBlock2D", f"{plain}UpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift",
    ).eval()  # fmt: skip
    movq = diffusers.VQModel(
        latent_channels=4, vq_embed_dim=4, num_vq_embeddings=16, norm_type="spatial",
        block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    ).eval()  # fmt: skip
    pipeline = diffusers.KandinskyPipeline(
        text_encoder=MultilingualCLIP(config).eval(),
        tokenizer=transformers.XLMRobertaTokenizerFast(spm),
        unet=unet,
        # With the released beta_end=0.012 an untrained UNet ends at latents of 90, where torch's
        # own images change by 2e-3 for 1e-6 of the noise.
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.002, beta_schedule="linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        movq=movq,
    )  # fmt: skip
    for each, place in ((prior_pipeline, prior_folder), (pipeline, folder)):
        each.set_progress_bar_config(disable=True)
        each.save_pretrained(place, safe_serialization=True)
    return prior_pipeline, pipeline
