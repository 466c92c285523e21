"""config.json of transformers' VideoPrism models.

A model of two towers has a part for each; the config.json of a single tower is flat.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from converters import huggingface, limits
from converters.formats import CONFIG
from converters.videoprism import published
from vidjax.card import Card
from vidjax.errors import UserError

# transformers' names of what the towers compute: the exact GELU, and ReLU.
_ACTIVATIONS = {"vision_config": ("gelu_python", "gelu"), "text_config": ("relu",)}
_TOWER = {  # of both of transformers' configs, for what a config.json leaves out
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "attn_logit_softcapping": 50.0,
    "apply_l2norm": True,
}
_VISION = {  # of VideoPrismVisionConfig
    "image_size": 288,
    "num_frames": 16,
    "tubelet_size": [1, 18, 18],
    "num_channels": 3,
    "num_spatial_layers": 12,
    "num_temporal_layers": 4,
    "num_auxiliary_layers": 2,
    "hidden_act": "gelu_python",
}
_TEXT = {  # of VideoPrismTextConfig
    "vocab_size": 32000,
    "num_hidden_layers": 12,
    "max_position_embeddings": 64,
    "hidden_act": "relu",
}
_DEFAULTS = {"vision_config": _TOWER | _VISION, "text_config": _TOWER | _TEXT}
_TEXT_KEPT = ("max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id")
ARCHITECTURES = {
    None: "VideoPrismVisionModel",
    "video": "VideoPrismVideoModel",
    "text": "VideoPrismTextModel",
    "video_text": "VideoPrismClipModel",
    "classify": "VideoPrismForVideoClassification",
}


def parts_of(config: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the video and the text part of a config.json, its defaults filled in.

    Of a single tower's, the whole file is both.
    """
    config = config or {}
    flat = {} if _is_nested(config) else config
    return {part: own | (config.get(part) or flat) for part, own in _DEFAULTS.items()}


def _is_nested(config: Mapping[str, Any]) -> bool:
    return not _DEFAULTS.keys().isdisjoint(config)


def kept(config: Mapping[str, Any], has_text: bool) -> dict[str, Any]:
    """Returns what config.json says that neither tensors nor outputs depend on."""
    if not has_text:
        return huggingface.kept(config, ("problem_type",))
    return huggingface.kept(config.get("text_config") or config, _TEXT_KEPT)


def sides(image_size: Any) -> Sequence[int]:
    """Returns height and width of config.json's frames."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def grid(patches: int, patch: Sequence[int], image_size: Any) -> tuple[int, int]:
    """Returns rows and columns of a table of `patches` positions; square without image_size."""
    if image_size is None:
        rows = limits.side(patches, "patches", "VideoPrism")
        return rows, rows
    rows, columns = (s // step for s, step in zip(sides(image_size), patch[1:], strict=True))
    if rows * columns != patches:
        raise UserError(
            f"{CONFIG} has image_size {image_size}, {rows} x {columns} patches, but the position "
            f"table is for {patches}; fetch both anew from one place"
        )
    return rows, columns


def numerics(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns epsilon and soft cap.

    Raises:
        UserError: the towers differ in them, or compute something that VideoPrism here does not.
    """
    towers = {part: parts[part] for part in sizes(model)}
    for part, config in towers.items():
        wrong = {
            "hidden_act": config["hidden_act"] not in _ACTIVATIONS[part],
            "qkv_bias": not config["qkv_bias"],
            "apply_l2norm": model.get("l2_eps") and not config["apply_l2norm"],
        }
        if reasons := [f"{key} {config[key]!r}" for key, holds in wrong.items() if holds]:
            raise UserError(
                f"{CONFIG} ({part}) has {' and '.join(reasons)}; VideoPrism here computes "
                f"hidden_act {_ACTIVATIONS[part][0]!r}, qkv_bias True and apply_l2norm True only"
            )

    def common(key: str) -> float:
        values = {part: config[key] or 0.0 for part, config in towers.items()}
        return huggingface.one_value(key, values, "VideoPrism")

    return {"eps": common("layer_norm_eps"), "softcap": common("attn_logit_softcapping")}


def sizes(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the model's sizes in the words of transformers, for the parts that it has."""
    head, sizes = model["head"], {}
    if head != "text":
        sizes["vision_config"] = {
            "hidden_size": model["width"],
            "num_spatial_layers": model["depth"],
            "num_temporal_layers": model["temporal_depth"],
            "intermediate_size": model["mlp_dim"],
            "tubelet_size": list(model["patch_size"]),
            "num_frames": model["pos_grid"][0],
        }
        if head in ("video", "video_text"):
            sizes["vision_config"]["num_auxiliary_layers"] = model["auxiliary_depth"]
    if model["head"] in published.TEXTS:
        sizes["text_config"] = {
            "vocab_size": model["vocab_size"],
            "hidden_size": model["width"],
            "intermediate_size": model["text_mlp_dim"] or 4 * model["width"],
            "num_hidden_layers": model["text_depth"],
        }
    return sizes


def write(card: Card, original: bytes | None) -> bytes:
    """Returns the config.json of a model; the original as it was if it still holds."""
    head, config = card.model["head"], json.loads(original) if original else {}
    parts = _wanted(card, config)
    if head != "video_text" and not _is_nested(config):
        ((part, want),) = parts.items()
        if head == "classify":
            want["id2label"] = huggingface.id2label(card.classes, card.model["num_classes"])
        kind = f"videoprism_{part.replace('config', 'model')}"
        return huggingface.config_json(original, want, _DEFAULTS[part], kind, ARCHITECTURES[head])
    changed = {}
    for part, stated in parts_of(config).items():
        want = parts.get(part, {})
        if original:
            want = {k: v for k, v in want.items() if not huggingface.same(stated[k], v)}
        if want:
            start = {"model_type": f"videoprism_{part.replace('config', 'model')}"}
            changed[part] = start | config.get(part, {}) | want
    if original and not changed:
        return original
    start = {"architectures": [ARCHITECTURES["video_text"]], "model_type": "videoprism"}
    return huggingface.to_json(start | config | changed)


def _wanted(card: Card, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what the parts of a model's config.json must say; `config` is the original's."""
    model, wanted = card.model, sizes(card.model)
    for part, want in wanted.items():
        stated = parts_of(config)[part]
        is_text = part == "text_config"
        want |= {
            "num_attention_heads": published.text_sizes(model)[0]
            if is_text
            else model["num_heads"],
            "layer_norm_eps": model["eps"],
            "attn_logit_softcapping": model["softcap"],
            "hidden_act": stated["hidden_act"],
            "qkv_bias": True,
            "apply_l2norm": stated["apply_l2norm"],
        }
        if not is_text:
            want |= {"num_channels": 3, "image_size": _image_size(model, stated["image_size"])}
        elif not config and card.tokenizer:
            want["max_position_embeddings"] = card.tokenizer["length"]
        if is_text or model["head"] == "classify":
            want |= card.provenance.get("kept", {})
    return wanted


def _image_size(model: Mapping[str, Any], stated: Any) -> Any:
    """Returns the side of the frames that the positions are for; `stated` where that is right."""
    (_, *grid), (_, *patch) = model["pos_grid"], model["patch_size"]
    if [side // step for side, step in zip(sides(stated), patch, strict=True)] == grid:
        return stated
    height, width = (n * step for n, step in zip(grid, patch, strict=True))
    return height if height == width else [height, width]
