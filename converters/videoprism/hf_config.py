"""config.json of transformers' VideoPrism."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from converters import huggingface
from converters.formats import (
    CONFIG,
    Source,
)
from converters.videoprism import (
    architecture,
)
from vidjax.card import Card
from vidjax.errors import UserError

# transformers' names of what the towers compute: the exact GELU, and ReLU.
_ACTIVATIONS = {"vision_config": ("gelu_python", "gelu"), "text_config": ("relu",)}
VISION = {  # of transformers' VideoPrismVisionConfig, for what a config.json leaves out
    "image_size": 288,
    "num_frames": 16,
    "tubelet_size": [1, 18, 18],
    "num_channels": 3,
    "hidden_size": 768,
    "num_spatial_layers": 12,
    "num_temporal_layers": 4,
    "num_auxiliary_layers": 2,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_python",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "attn_logit_softcapping": 50.0,
    "apply_l2norm": True,
}
TEXT = {  # of its VideoPrismTextConfig
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "relu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "attn_logit_softcapping": 50.0,
    "apply_l2norm": True,
}
ARCHITECTURES = {
    None: "VideoPrismVisionModel",
    "video": "VideoPrismVideoModel",
    "text": "VideoPrismTextModel",
    "video_text": "VideoPrismClipModel",
    "classify": "VideoPrismForVideoClassification",
}


def kept(config: Mapping[str, Any], has_text: bool) -> dict[str, Any]:
    """Returns what config.json says that neither tensors nor outputs depend on."""
    if not has_text:
        return huggingface.kept(config, ("problem_type",))
    keys = ("max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id")
    return huggingface.kept(config.get("text_config") or config, keys)


def parts_of(source: Source, notes: list[str]) -> dict[str, dict[str, Any]]:
    """The video and the text part of config.json: of a single tower's, the whole file is both."""
    config = source.config
    if config is None:
        notes.append(f"no {CONFIG} beside the weights: all releases' numerics are assumed")
        config = {}
    flat = {} if "vision_config" in config or "text_config" in config else config
    return {
        "vision_config": VISION | (config.get("vision_config") or flat),
        "text_config": TEXT | (config.get("text_config") or flat),
    }


def sides(image_size: Any) -> Sequence[int]:
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def numerics(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> dict:
    """Epsilon and soft cap, after a check of what has one way here."""
    towers = {part: parts[part] for part in sizes_of(model)}
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
    found = {}
    for ours, theirs in (("eps", "layer_norm_eps"), ("softcap", "attn_logit_softcapping")):
        values = [config[theirs] or 0.0 for config in towers.values()]
        if len(set(values)) > 1:
            raise UserError(
                f"{CONFIG} has another {theirs} for video ({values[0]}) than for text "
                f"({values[1]}); VideoPrism here has one"
            )
        found[ours] = values[0]
    return found


def sizes_of(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The model's sizes in the words of transformers, for the parts of config.json that it has."""
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
    if head in ("text", "video_text"):
        sizes["text_config"] = {
            "vocab_size": model["vocab_size"],
            "hidden_size": model["width"],
            "intermediate_size": model["text_mlp_dim"] or 4 * model["width"],
            "num_hidden_layers": model["text_depth"],
        }
    return sizes


def write(card: Card, original: bytes | None) -> bytes:
    model, parts, head = card.model, sizes_of(card.model), card.model["head"]
    heads, _ = architecture.text_sizes(model)
    config = json.loads(original) if original else {}
    nested = model["head"] == "video_text" or "vision_config" in config or "text_config" in config
    defaults = {"vision_config": VISION, "text_config": TEXT}
    for part, want in parts.items():
        stated = defaults[part] | (config.get(part, {}) if nested else config)
        want |= {
            "num_attention_heads": heads if part == "text_config" else model["num_heads"],
            "layer_norm_eps": model["eps"],
            "attn_logit_softcapping": model["softcap"],
            "hidden_act": stated["hidden_act"],
            "qkv_bias": True,
            "apply_l2norm": stated["apply_l2norm"],
        }
        if part == "vision_config":
            want |= {"num_channels": 3, "image_size": _image_size(card, stated["image_size"])}
        elif not original and card.tokenizer:
            want["max_position_embeddings"] = card.tokenizer["length"]
        if part == "text_config" or head == "classify":
            want |= card.provenance.get("kept", {})
    if not nested:
        (part, want), *_ = parts.items()
        if model["head"] == "classify":
            want["id2label"] = huggingface.id2label(card.classes, model["num_classes"])
        kind = f"videoprism_{part.replace('config', 'model')}"
        return huggingface.config_json(
            original, want, defaults[part], kind, ARCHITECTURES[model["head"]]
        )
    changed = {}
    for part, want in parts.items():
        old = config.get(part, {})
        stated = defaults[part] | old
        new = {k: v for k, v in want.items() if not original or not huggingface.same(stated[k], v)}
        if new:
            kind = f"videoprism_{part.replace('config', 'model')}"
            changed[part] = {"model_type": kind} | old | new
    if original and not changed:
        return original
    top = {"architectures": [ARCHITECTURES["video_text"]], "model_type": "videoprism"}
    return huggingface.to_json(top | config | changed)


def _image_size(card: Card, stated: Any) -> Any:
    """The side of the frames that the positions are for; as it is stated, where that is right."""
    _, h, w = card.model["pos_grid"]
    _, *patch = card.model["patch_size"]
    if [side // step for side, step in zip(sides(stated), patch, strict=True)] == [h, w]:
        return stated
    return h * patch[0] if h * patch[0] == w * patch[1] else [h * patch[0], w * patch[1]]
