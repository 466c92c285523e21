"""Checks that all families share: what contradicts a file, and what a format cannot express."""

import math
from collections.abc import Mapping
from typing import Any

from converters.options import Options
from vidjax.errors import UserError


def side(area: int, what: str, family: str) -> int:
    """Returns the side of a square of `area`, the number of `what`; UserError if it is none."""
    side = math.isqrt(area)
    if side * side != area:
        raise UserError(
            f"the number of {what} is {area}, no square number; {family}'s are square here"
        )
    return side


def check_heads(options: Options, heads: int) -> None:
    """Raises UserError if --heads contradicts a file whose shapes tell the number of heads."""
    if options.heads not in (None, heads):
        raise UserError(f"--heads={options.heads}, but the file has {heads} heads; leave it out")


def refuse(who: str, family: str, reasons: Mapping[str, bool], otherwise: str = "") -> None:
    """Raises UserError if a model has properties that the format `who` reads cannot express.

    Args:
        who, family: the reader, and the model's family.
        reasons: properties in words, and whether the model has them.
        otherwise: the way out, if there is one.
    """
    if wrong := [reason for reason, holds in reasons.items() if holds]:
        way_out = f"; {otherwise}" if otherwise else ""
        raise UserError(f"{who} has no {family} with {' and '.join(wrong)}{way_out}")


def note_untold(model: Mapping[str, Any], assumed: Mapping[str, Any], notes: list[str]) -> None:
    """Notes where a model differs from what the original code assumes of such a file."""
    words = [
        f"{key} is {model[key]}" for key, value in assumed.items() if model.get(key, value) != value
    ]
    if words:
        notes.append(
            f"the file does not tell that {' and '.join(words)} here: the original code computes "
            "other outputs"
        )
