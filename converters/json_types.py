"""Types of what converters read from JSON files of Hugging Face's and KerasHub's folders.

Of any other key nothing is known, and nothing is read. Which values a family supports is its own
matter; here is what a key can mean at all. Processors' files are not here: what their keys can be
depends on their class, and processors.py checks all of it.
"""

from collections.abc import Mapping
from typing import Any

from vidjax.json_files import Count, Digits, Nullable, Positive, Size


def _all(names: str, kind: Any) -> dict[str, Any]:
    """One type for each of several keys, which spaces separate."""
    return dict.fromkeys(names.split(), kind)


_CONFIG: dict[str, Any] = {
    "model_type": str | None,
    "architectures": tuple[str, ...] | None,
    "id2label": Mapping[Digits, str] | None,
    **_all("image_size img_size patch_size tubelet_size", Size | tuple[Size, ...]),
    **_all(
        "hidden_size intermediate_size num_attention_heads num_heads decoder_hidden_size "
        "decoder_intermediate_size decoder_num_attention_heads decoder_num_heads mit_hidden_size "
        "mit_intermediate_size mit_num_attention_heads prompt_num_attention_heads projection_dim "
        "vocab_size num_channels num_frames all_frames max_position_embeddings",
        Size,
    ),
    **_all(
        "num_hidden_layers decoder_num_hidden_layers mit_num_hidden_layers num_spatial_layers "
        "num_temporal_layers num_auxiliary_layers prompt_layers",
        Count,
    ),
    "num_labels": Count | None,
    "pooler_output_size": Size | None,
    "layer_norm_eps": Positive,
    "attn_logit_softcapping": float | None,
    **_all("prompt_alpha logit_scale_init_value", float),
    **_all("hidden_act prompt_hidden_act pooler_act", str),
    **_all("qkv_bias use_mean_pooling apply_l2norm norm_pix_loss", bool),
    **_all("bos_token_id eos_token_id", int | tuple[int, ...] | None),
}
_PARTS = "text_config vision_config text_config_dict vision_config_dict"
_CONFIG |= _all(_PARTS, Nullable(_CONFIG)) | {"model_config": dict(_CONFIG)}
# KerasHub's config.json has its keywords under "config".
_CONFIG["config"] = {
    "vocabulary_size": Count,
    "image_shape": tuple[Size, ...],
    "layer_norm_epsilon": Positive,
    "attention_logit_soft_cap": float | None,
    **_all(
        "num_frames patch_size hidden_dim intermediate_dim num_heads num_text_layers "
        "num_spatial_layers num_temporal_layers num_auxiliary_layers",
        Count,
    ),
}

_FILES: dict[str, dict[str, Any]] = {
    "config.json": _CONFIG,
    "image_converter.json": {
        "config": {
            "image_size": tuple[Size, Size],
            "scale": Positive | tuple[Positive] | tuple[Positive, Positive, Positive] | None,
            "offset": float | tuple[float] | tuple[float, float, float] | None,
            "interpolation": str,
            **_all("antialias pad_to_aspect_ratio crop_to_aspect_ratio", bool | None),
        }
    },
}


def of(name: str) -> dict[str, Any]:
    """Returns the types of a file's keys by the file's name; {} where nothing is read from it."""
    if name.endswith(".index.json"):
        return {"weight_map": Mapping[str, str]}
    return _FILES.get(name, {})
