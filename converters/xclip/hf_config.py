"""config.json of transformers' X-CLIP and CLIP models.

A whole model's has a part for each tower; a single tower's is flat.
"""

import json
from collections.abc import Mapping
from typing import Any

from converters import huggingface
from converters.formats import CONFIG
from converters.xclip import published
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.models.layers import ACTIVATIONS

_LEGACY_END, _CLIP_END = 2, 49407  # of transformers: the largest id of a text; CLIP's default
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": _LEGACY_END}
_MODEL = {  # of transformers' XCLIPConfig, for what a config.json leaves out
    "projection_dim": 512,
    "prompt_layers": 2,
    "prompt_alpha": 0.1,
    "prompt_hidden_act": "quick_gelu",
    "prompt_num_attention_heads": 8,
    "logit_scale_init_value": 2.6592,
}
_TOWERS = {  # of its parts, and of CLIPConfig's
    "text_config": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mit_hidden_size": 512,
        "mit_intermediate_size": 2048,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 8,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
        "num_frames": 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
}
ARCHITECTURES = {  # and the model_type
    None: ("XCLIPVisionModel", "xclip_vision_model"),
    "image": ("CLIPVisionModel", "clip_vision_model"),
    "text": ("XCLIPTextModel", "xclip_text_model"),
    "video_text": ("XCLIPModel", "xclip"),
    "image_text": ("CLIPModel", "clip"),
}


def end_id(
    config: Mapping[str, Any], text: Mapping[str, Any], model: Mapping[str, Any], notes: list[str]
) -> int | None:
    """Returns the id at which transformers' CLIP has texts end; None: at their largest id."""
    # X-CLIP's text tower alone has no projection.
    is_clip = model["head"] == "image_text" or config.get("model_type") == "clip_text_model"
    is_clip = is_clip or (model["head"] == "text" and model["embed_dim"])
    end, largest = text.get("eos_token_id", _CLIP_END), model["vocab_size"] - 1
    if not is_clip or end in (_LEGACY_END, largest):
        return None
    if isinstance(end, int) and 0 <= end < largest:
        notes.append(f"texts end at id {end}, and the vocabulary goes on to {largest}")
        return end
    notes.append(
        f"{CONFIG} has eos_token_id {end}, which is no id of a vocabulary of "
        f"{model['vocab_size']}: a text ends at its largest id here"
    )
    return None


def parts_of(config: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the whole ("model") and the towers of a config.json, its defaults filled in.

    What old files have in `text_config_dict` replaces `text_config`, as in transformers.
    """
    config = dict(config or {})
    is_nested = any(key.startswith(tuple(_TOWERS)) for key in config)
    parts = {"model": _MODEL | config}
    for part, defaults in _TOWERS.items():
        old = config.get(f"{part}_dict")
        own = old if old is not None else config.get(part)
        parts[part] = defaults | ((own or {}) if is_nested else config)
    return parts


def num_heads(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Returns the numbers of heads by our names."""
    return {
        "num_heads": parts["vision_config"]["num_attention_heads"],
        "text_num_heads": parts["text_config"]["num_attention_heads"],
        "mit_num_heads": parts["vision_config"]["mit_num_attention_heads"],
        "prompt_num_heads": parts["model"]["prompt_num_attention_heads"],
    }


def numerics(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns epsilon and activation.

    Raises:
        UserError: the towers differ in them, or the activation is unknown here.
    """
    towers = {part: parts[part] for part in _sizes(model) if part != "model"}
    epsilons = {part: config["layer_norm_eps"] for part, config in towers.items()}
    names = {part: config["hidden_act"] for part, config in towers.items()}
    if model["head"] == "video_text":
        names["prompts"] = parts["model"]["prompt_hidden_act"]
    activations = {
        part: huggingface.activation({"hidden_act": name}, ACTIVATIONS, "X-CLIP")
        for part, name in names.items()
    }
    return {
        "eps": huggingface.one_value("layer_norm_eps", epsilons, "X-CLIP"),
        "act": huggingface.one_value("hidden_act", activations, "X-CLIP"),
    }


def _sizes(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the model's sizes in the words of transformers, for the parts that it has."""
    sizes = {}
    if model.get("embed_dim"):
        sizes["model"] = {"projection_dim": model["embed_dim"]}
    if model["head"] in published.TEXTS:
        sizes["text_config"] = {
            "vocab_size": model["vocab_size"],
            "hidden_size": model["text_width"],
            "intermediate_size": model["text_mlp_dim"] or 4 * model["text_width"],
            "num_hidden_layers": model["text_depth"],
            "max_position_embeddings": model["context_length"],
        }
    if model["head"] != "text":
        sizes["vision_config"] = {
            "hidden_size": model["width"],
            "intermediate_size": model["mlp_dim"],
            "num_hidden_layers": model["depth"],
            "patch_size": model["patch_size"][1],
        }
    if model["head"] == "video_text":
        sizes["model"]["prompt_layers"] = model["prompt_depth"]
        sizes["vision_config"] |= {
            "num_frames": model["pos_grid"][0],
            "mit_hidden_size": model["embed_dim"],
            "mit_intermediate_size": model["mit_mlp_dim"] or 4 * model["embed_dim"],
            "mit_num_hidden_layers": model["mit_depth"],
        }
    return sizes


def check(parts: Mapping[str, Mapping[str, Any]], model: Mapping[str, Any]) -> None:
    """Raises UserError if config.json is not about these tensors."""
    for part, sizes in _sizes(model).items():
        huggingface.contradictions(parts[part], sizes)
    if model["head"] != "text":
        side, rows = huggingface.square(parts["vision_config"]["image_size"]), model["pos_grid"][1]
        stated = side // model["patch_size"][1]
        if stated != rows:
            raise UserError(
                f"{CONFIG} has image_size {side}, {stated} x {stated} patches, but the position "
                f"table is for {rows} x {rows}; fetch both anew from one place"
            )


def write(card: Card, original: bytes | None) -> bytes:
    """Returns the config.json of a model; the original as it was if it still holds."""
    model, config = card.model, json.loads(original) if original else {}
    stated = parts_of(config)
    parts = _wanted(card, stated)
    if original and all(
        stated[part].get(key) == value
        for part, want in parts.items()
        for key, value in want.items()
    ):
        return original
    if not original and "text_config" in parts:
        # transformers' CLIP then takes a text's largest id for its end, as all others do.
        ids = IDS | card.provenance.get("kept", {})
        if ids["eos_token_id"] != model["vocab_size"] - 1:
            ids["eos_token_id"] = _LEGACY_END
        parts["text_config"] = ids | parts["text_config"]
    architecture, kind = ARCHITECTURES[model["head"]]
    if model["head"] == "text" and (model.get("embed_dim") or model.get("end_id")):
        architecture, kind = "CLIPTextModel", "clip_text_model"  # X-CLIP's has neither
    if model.get("embed_dim") and model["head"] not in published.WHOLE:
        architecture += "WithProjection"
    new = {"architectures": [architecture], "model_type": kind} | config
    if model["head"] not in published.WHOLE:
        for want in parts.values():
            new |= want
        return huggingface.to_json(new)
    new |= parts["model"]
    for part in _TOWERS:
        start = {"model_type": f"{kind}_{part.replace('config', 'model')}"}
        new[part] = start | (stated[part] if original else {}) | parts[part]
        new.pop(f"{part}_dict", None)
    return huggingface.to_json(new)


def _wanted(card: Card, stated: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns what the parts of a model's config.json must say; `stated` is the original's."""
    model, parts = card.model, _sizes(card.model)
    for part, prefix in (("text_config", "text_"), ("vision_config", "")):
        if part in parts:
            parts[part] |= {
                "num_attention_heads": model[f"{prefix}num_heads"],
                "layer_norm_eps": model["eps"],
                "hidden_act": huggingface.hidden_act(model["act"], stated[part]["hidden_act"]),
            }
    if model.get("end_id"):
        parts["text_config"]["eos_token_id"] = model["end_id"]
    if vision := parts.get("vision_config"):
        side, patch = stated["vision_config"]["image_size"], model["patch_size"][1]
        holds = huggingface.square(side) // patch == model["pos_grid"][1]
        vision["image_size"] = side if holds else model["pos_grid"][1] * patch
        if model["head"] is None:
            vision["num_frames"] = card.preprocessing.frames
    if model["head"] == "video_text":
        vision["mit_num_attention_heads"] = model["mit_num_heads"]
        act = huggingface.hidden_act(model["act"], stated["model"]["prompt_hidden_act"])
        parts["model"] |= {
            "prompt_num_attention_heads": model["prompt_num_heads"],
            "prompt_hidden_act": act,
            "prompt_alpha": model["prompt_alpha"],
        }
    if model["head"] in published.WHOLE:
        parts["model"]["logit_scale_init_value"] = model["logit_scale"]
    return parts
