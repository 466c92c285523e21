"""Sizes that a format leaves out or cannot express."""

import math
from collections.abc import Mapping
from typing import Any

from vidjax.errors import UserError


def side(count: int, what: str) -> int:
    """The root of a square number."""
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(f"{what} is {count}, no square number; VideoPrism's are square here")
    return side


def refuse(reasons: Mapping[str, bool], who: str, otherwise: str) -> None:
    if wrong := [reason for reason, holds in reasons.items() if holds]:
        raise UserError(f"{who} has no VideoPrism with {' and '.join(wrong)}; {otherwise}")


def pool_dim(model: Mapping[str, Any]) -> int | None:
    """The pooler's width, spelled out; None of a model without a pooler."""
    widths = {"classify": model["width"], "video": 4 * model["width"]}
    default = widths | {"video_text": widths["video"]}
    return model.get("pool_dim") or default.get(model["head"])


def text_sizes(model: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Heads and MLP width of the text tower, spelled out; None of a model without one."""
    if model["head"] not in ("text", "video_text"):
        return None, None
    return model["text_num_heads"] or model["num_heads"], model["text_mlp_dim"] or 4 * model[
        "width"
    ]
