"""JSON files of KerasHub's VideoPrism presets."""

import json
from collections.abc import Mapping
from typing import Any

from converters import huggingface
from converters.formats import IMAGE_CONVERTER
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

DEFAULTS = {  # of VideoPrismBackbone, for what a config.json leaves out
    "vocabulary_size": 0,
    "num_text_layers": 0,
    "attention_logit_soft_cap": None,
    "layer_norm_epsilon": 1e-6,
    "image_shape": [288, 288, 3],
}
METADATA = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0", "tasks": []}
_INTERPOLATIONS = {
    "bilinear": "pil_bilinear",
    "bicubic": "pil_bicubic",
    "lanczos3": "pil_lanczos",
}


def sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the model's sizes as arguments of VideoPrismBackbone."""
    _, patch, _ = model["patch_size"]
    t, h, w = model["pos_grid"]
    sizes = {
        "num_frames": t,
        "patch_size": patch,
        "hidden_dim": model["width"],
        "intermediate_dim": model["mlp_dim"],
        "num_heads": model["num_heads"],
        "num_spatial_layers": model["depth"],
        "num_temporal_layers": model["temporal_depth"],
        "vocabulary_size": model.get("vocab_size", 0),
        "num_text_layers": model.get("text_depth", 0),
        "image_shape": [h * patch, w * patch, 3],
    }
    if model["head"] == "video_text":
        sizes["num_auxiliary_layers"] = model["auxiliary_depth"]
    return sizes


def config(model: Mapping[str, Any], original: bytes | None) -> bytes:
    """Returns the config.json of a model; the original as it was if it still holds."""
    file = json.loads(original) if original else {}
    old = file.get("config", {})
    want = {"num_auxiliary_layers": 0} | sizes(model)
    want["attention_logit_soft_cap"] = model["softcap"] or None
    want["layer_norm_epsilon"] = model["eps"]
    stated = DEFAULTS | {"num_auxiliary_layers": 0} | old
    if original and all(stated.get(key) == value for key, value in want.items()):
        return original
    return huggingface.to_json(_serialised("backbone", {}) | file | {"config": old | want})


def tokenizer() -> bytes:
    """Returns the tokenizer.json that names the vocabulary's class."""
    config = {"name": "video_prism_tokenizer", "proto": None, "config_file": "tokenizer.json"}
    return huggingface.to_json(_serialised("tokenizer", config))


def read_converter(file: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns fields of Preprocessing from image_converter.json; {} without one.

    Raises:
        UserError: it prepares frames in a way that is not known here.
    """
    if file is None:
        return {}
    config = file.get("config", {})
    if "image_size" not in config:
        raise UserError(f"{IMAGE_CONVERTER} has no config.image_size; fetch it again")
    kind = config.get("interpolation", "bilinear")
    antialias, pad = config.get("antialias"), config.get("pad_to_aspect_ratio")
    if kind not in _INTERPOLATIONS or not antialias or pad:
        raise UserError(
            f"{IMAGE_CONVERTER} has interpolation {kind!r}, antialias {antialias}, "
            f"pad_to_aspect_ratio {pad}; known are {', '.join(_INTERPOLATIONS)}, with antialias "
            "and without padding (or --preprocessing=)"
        )

    def channels(value: Any) -> list[float]:
        value = value if isinstance(value, list) else [value]
        return value * 3 if len(value) == 1 else value

    # It computes p * scale + offset of pixels p in 0..255.
    scale = channels(1.0 if config.get("scale") is None else config["scale"])
    offset = channels(config.get("offset") or 0.0)
    pairs = list(zip(scale, offset, strict=True))
    return {
        "size": min(config["image_size"]),
        "resize": _INTERPOLATIONS[kind],
        "fit": "crop_first" if config.get("crop_to_aspect_ratio", True) else "stretch",
        # The factors are rounded in the file.
        "mean": tuple(0.0 - round(o / (255 * s), 12) for s, o in pairs),
        "std": tuple(round(1 / (255 * s), 12) for s, _ in pairs),
    }


def converter(preprocessing: Preprocessing, original: bytes | None, notes: list[str]) -> bytes:
    """Returns the image_converter.json of a model; the original as it was if it still holds."""
    fit, resize = preprocessing.fit, preprocessing.resize
    if original:
        stated = read_converter(json.loads(original))
        if all(getattr(preprocessing, key) == value for key, value in stated.items()):
            return original
    interpolations = {ours: theirs for theirs, ours in _INTERPOLATIONS.items()}
    if fit == "crop" or resize not in interpolations:
        notes.append(
            "KerasHub crops before it resizes, and this model's frames are made by fit "
            f"{fit!r} and resize {resize!r}: its inputs differ slightly"
        )
    mean, std = preprocessing.mean, preprocessing.std
    config = {
        "image_size": [preprocessing.size] * 2,
        "scale": [1 / (255 * s) for s in std],
        "offset": [-m / s for m, s in zip(mean, std, strict=True)],
        "interpolation": interpolations.get(resize, "bilinear"),
        "antialias": True,
        "crop_to_aspect_ratio": fit != "stretch",
        "pad_to_aspect_ratio": False,
    }
    return huggingface.to_json(_serialised("image_converter", config))


def _serialised(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one of VideoPrism's objects as Keras serialises it."""
    name = "VideoPrism" + part.title().replace("_", "")
    return {
        "module": f"keras_hub.src.models.video_prism.video_prism_{part}",
        "class_name": name,
        "config": config,
        "registered_name": f"keras_hub>{name}",
    }
