"""Sizes that no tensor's shape tells."""

import math
from collections.abc import Mapping
from typing import Any

from converters import Options, huggingface
from converters.xclip import published
from vidjax.errors import UserError


def rows_of(positions: int) -> int:
    """Rows of the square of patches that a table with a class position is for."""
    rows = math.isqrt(positions - 1)
    if rows * rows != positions - 1:
        raise UserError(
            f"the table of positions is for {positions - 1} patches, no square number; X-CLIP's "
            "are square here"
        )
    return rows


def num_heads(
    flag: str, width: int, given: int | None, stated: int | None, notes: list[str]
) -> int:
    return huggingface.num_heads(
        flag, width, given, stated or width // published.HEAD_DIM, {}, notes
    )


def check_heads_options(options: Options, model: Mapping[str, Any]) -> None:
    if model["head"] != "video_text" and (options.mit_heads or options.prompt_heads):
        raise UserError(
            "--mit_heads and --prompt_heads are about parts that only a whole X-CLIP has, and this "
            f"model is one with head {model['head']!r}"
        )
