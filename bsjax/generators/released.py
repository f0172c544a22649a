"""Configs of the released systems, and of the same systems in small.

What a repository's json files say goes before this: it is read where weights are. These serve
`plan`, which compiles without weights, networks with random weights, and tests of sizes.
Sources: the repositories' conversion scripts in huggingface/diffusers and the papers; parameter
counts as tests/generators/test_full_size.py has them.
"""

SD_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
SD_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SD_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
CLIP_L_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
SD15 = {
    "unet": SD_UNET,
    "vae": SD_VAE,
    "text_encoder": CLIP_L_TEXT,
    "scheduler": SD_SCHEDULE | {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
}
SD21 = {
    "unet": SD_UNET
    | {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": SD_VAE,
    "text_encoder": CLIP_L_TEXT
    | {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
    },
    "scheduler": SD_SCHEDULE | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
}

TINY_VAE = SD_VAE | {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
}
TINY_CLIP_TEXT = CLIP_L_TEXT | {
    "vocab_size": 1000,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TINY_SD_UNET = SD_UNET | {
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": 32,
}
SD15_TINY = SD15 | {"unet": TINY_SD_UNET, "vae": TINY_VAE, "text_encoder": TINY_CLIP_TEXT}
SD21_TINY = SD21 | {
    "unet": TINY_SD_UNET | {"attention_head_dim": [2, 4], "use_linear_projection": True},
    "vae": TINY_VAE,
    "text_encoder": TINY_CLIP_TEXT | {"hidden_act": "gelu"},
}

PIXART_TRANSFORMER = {
    "sample_size": 128,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "attention_bias": True,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "activation_fn": "gelu-approximate",
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
}
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
PIXART_1024 = {
    "transformer": PIXART_TRANSFORMER,
    "vae": SD_VAE,
    "text_encoder": T5_XXL,
    "scheduler": {"_class_name": "DPMSolverMultistepScheduler"},
}
PIXART_512 = PIXART_1024 | {"transformer": PIXART_TRANSFORMER | {"sample_size": 64}}
PIXART_TINY = PIXART_1024 | {
    "transformer": PIXART_TRANSFORMER
    | {
        "num_layers": 2,
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "caption_channels": 32,
        "cross_attention_dim": 24,
    },
    "vae": TINY_VAE,
    "text_encoder": T5_XXL
    | {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4},
}

KANDINSKY_UNET = {
    "in_channels": 4,
    "out_channels": 8,
    "block_out_channels": [384, 768, 1152, 1536],
    "layers_per_block": 3,
    "attention_head_dim": 64,
    "cross_attention_dim": 768,
    "encoder_hid_dim": 1024,
    "encoder_hid_dim_type": "text_image_proj",
    "addition_embed_type": "text_image",
    "resnet_time_scale_shift": "scale_shift",
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
}
MOVQ = {
    "block_out_channels": [128, 256, 256, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
    "latent_channels": 4,
    "vq_embed_dim": 4,
    "norm_type": "spatial",
}
CLIP_L_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
XLM_R_LARGE = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "transformerDimensions": 1024,
    "numDims": 768,
}
KANDINSKY21 = {
    "prior": {},
    "clip_text": CLIP_L_TEXT,
    "clip_image": CLIP_L_VISION,
    "prior_scheduler": {
        "_class_name": "UnCLIPScheduler",
        "prediction_type": "sample",
        "clip_sample_range": 10.0,
    },
    "text_encoder": XLM_R_LARGE,
    "unet": KANDINSKY_UNET,
    "movq": MOVQ,
    "scheduler": SD_SCHEDULE | {"_class_name": "DDIMScheduler", "beta_schedule": "linear"},
}
KANDINSKY21_TINY = KANDINSKY21 | {
    "prior": {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "embedding_dim": 32,
    },
    "clip_text": TINY_CLIP_TEXT | {"projection_dim": 32},
    "clip_image": CLIP_L_VISION
    | {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "projection_dim": 32,
    },
    "text_encoder": XLM_R_LARGE
    | {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "transformerDimensions": 32,
        "numDims": 32,
    },
    "unet": KANDINSKY_UNET
    | {
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "encoder_hid_dim": 32,
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    },
    "movq": MOVQ
    | {
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    },
    # An untrained UNet leaves most of the noise where it is; with the released schedule the latents
    # would end at 90, and rounding errors of 1e-6 would show.
    "scheduler": KANDINSKY21["scheduler"] | {"beta_end": 0.002},
}

RELEASED = {
    "stable_diffusion": {
        "sd15": SD15,
        "sd21": SD21,
        "sd15_tiny": SD15_TINY,
        "sd21_tiny": SD21_TINY,
    },
    "pixart": {
        "pixart_512": PIXART_512,
        "pixart_1024": PIXART_1024,
        "pixart_1024_tiny": PIXART_TINY,
    },
    "kandinsky": {"kandinsky21": KANDINSKY21, "kandinsky21_tiny": KANDINSKY21_TINY},
}
