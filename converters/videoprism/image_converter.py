"""KerasHub's image_converter.json."""

import json
from collections.abc import Mapping
from typing import Any

from converters import huggingface
from converters.formats import (
    IMAGE_CONVERTER,
)
from vidjax.card import Card
from vidjax.errors import UserError


def read(file: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of Preprocessing from KerasHub's image_converter.json; {} without one."""
    if file is None:
        return {}
    config = file.get("config", {})
    if "image_size" not in config:
        raise UserError(f"{IMAGE_CONVERTER} has no config.image_size; fetch it again")
    filters = {"bilinear": "pil_bilinear", "bicubic": "pil_bicubic", "lanczos3": "pil_lanczos"}
    kind = config.get("interpolation", "bilinear")
    if kind not in filters or not config.get("antialias") or config.get("pad_to_aspect_ratio"):
        raise UserError(
            f"{IMAGE_CONVERTER} has interpolation {kind!r}, antialias {config.get('antialias')}, "
            f"pad_to_aspect_ratio {config.get('pad_to_aspect_ratio')}; known are "
            f"{', '.join(filters)}, with antialias and without padding (or --preprocessing=)"
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
        "resize": filters[kind],
        "fit": "crop_first" if config.get("crop_to_aspect_ratio", True) else "stretch",
        # The factors are rounded in the file.
        "mean": tuple(0.0 - round(o / (255 * s), 12) for s, o in pairs),
        "std": tuple(round(1 / (255 * s), 12) for s, _ in pairs),
    }


def write(card: Card, original: bytes | None, notes: list[str]) -> bytes:
    facts = card.preprocessing
    if original:
        stated = read(json.loads(original))
        if all(getattr(facts, key) == value for key, value in stated.items()):
            return original
    filters = {"pil_bilinear": "bilinear", "pil_bicubic": "bicubic", "pil_lanczos": "lanczos3"}
    if facts.fit == "crop" or facts.resize not in filters:
        notes.append(
            f"KerasHub crops before it resizes, and this model's frames are made by fit "
            f"{facts.fit!r} and resize {facts.resize!r}: its inputs differ slightly"
        )
    name = "VideoPrismImageConverter"
    config = {
        "image_size": [facts.size] * 2,
        "scale": [1 / (255 * s) for s in facts.std],
        "offset": [-m / s for m, s in zip(facts.mean, facts.std, strict=True)],
        "interpolation": filters.get(facts.resize, "bilinear"),
        "antialias": True,
        "crop_to_aspect_ratio": facts.fit != "stretch",
        "pad_to_aspect_ratio": False,
    }
    return huggingface.to_json(
        {
            "module": "keras_hub.src.models.video_prism.video_prism_image_converter",
            "class_name": name,
            "config": config,
            "registered_name": f"keras_hub>{name}",
        }
    )
