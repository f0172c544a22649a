"""Which tensors of a CLIP or SigLIP repository make which parameters of its image tower.

Sources: the state dicts of transformers' CLIPModel, CLIPVisionModel(WithProjection), SiglipModel
and SiglipVisionModel. Tensors of the text's tower and of what compares both are left out by name.
"""

from bsjax.convert.dinov2 import patch_kernel
from bsjax.convert.tables import Rule, transpose
from bsjax.models.vision_transformer import ClipVision, SiglipVision

_LAYER = r"vision_model\.encoder\.layers\.(\d+)\."
_BLOCK_RULES = (
    *(
        rule
        for part, name in enumerate(("q_proj", "k_proj", "v_proj"))
        for rule in (
            Rule(_LAYER + rf"self_attn\.{name}\.weight", rf"block_\1/qkv/kernel#{part}", transpose),
            Rule(_LAYER + rf"self_attn\.{name}\.bias", rf"block_\1/qkv/bias#{part}"),
        )
    ),
    Rule(_LAYER + r"self_attn\.out_proj\.weight", r"block_\1/proj/kernel", transpose),
    Rule(_LAYER + r"self_attn\.out_proj\.bias", r"block_\1/proj/bias"),
    Rule(_LAYER + r"layer_norm([12])\.weight", r"block_\1/norm\2/scale"),
    Rule(_LAYER + r"layer_norm([12])\.bias", r"block_\1/norm\2/bias"),
    Rule(_LAYER + r"mlp\.(fc[12])\.weight", r"block_\1/\2/kernel", transpose),
    Rule(_LAYER + r"mlp\.(fc[12])\.bias", r"block_\1/\2/bias"),
)
_EMBEDDINGS = r"vision_model\.embeddings\."
_BOTH = (
    Rule(_EMBEDDINGS + r"patch_embedding\.weight", "patch_embed/kernel", patch_kernel),
    Rule(_EMBEDDINGS + r"position_embedding\.weight", "pos_embed"),
    Rule(_EMBEDDINGS + "position_ids", None),  # 0, 1, 2 ..., in older files
    Rule(r"text_model\..*|logit_scale|logit_bias", None),
    *_BLOCK_RULES,
)
CLIP_RULES = (
    *_BOTH,
    Rule(_EMBEDDINGS + "class_embedding", "cls_token"),
    Rule(r"vision_model\.pre_layrnorm\.weight", "norm_pre/scale"),  # spelled so
    Rule(r"vision_model\.pre_layrnorm\.bias", "norm_pre/bias"),
    # Behind the tokens: see `ClipVision`.
    Rule(r"vision_model\.post_layernorm\.(weight|bias)", None),
    Rule(r"(visual|text)_projection\.weight", None),
)
SIGLIP_RULES = (
    *_BOTH,
    Rule(_EMBEDDINGS + r"patch_embedding\.bias", "patch_embed/bias"),
    Rule(r"vision_model\.post_layernorm\.weight", "norm/scale"),
    Rule(r"vision_model\.post_layernorm\.bias", "norm/bias"),
    Rule(r"vision_model\.head\..*", None),  # pools the tokens
)
RULES = {ClipVision: CLIP_RULES, SiglipVision: SIGLIP_RULES}
