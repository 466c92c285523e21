"""Facts about the published X-CLIPs and CLIPs, and which parts a model of them has."""

from collections.abc import Mapping
from typing import Any

HEAD_DIM = 64  # of every attention in the originals
EPS, ACT = 1e-5, "quick_gelu"  # of the originals
FRAMES, SIZE = 8, 224  # where a model does not tell
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}


def is_clip(model: Mapping[str, Any]) -> bool:
    """Whether a model with frames is CLIP's, not X-CLIP's."""
    return model["head"] in ("image", "image_text")


def is_whole(model: Mapping[str, Any]) -> bool:
    """Whether a model has both towers."""
    return model["head"] in ("video_text", "image_text")


def has_frames(model: Mapping[str, Any]) -> bool:
    return model["head"] != "text"


def has_texts(model: Mapping[str, Any]) -> bool:
    return model["head"] not in (None, "image")
