"""Sizes of X-CLIP that formats share: those that shapes tell, and those that none tells."""

from collections.abc import Collection, Mapping
from typing import Any

from converters import Options, formats, huggingface, limits
from converters.xclip import published
from vidjax.errors import UserError

PROMPTS = "prompts_generator.decoder"
# Number of heads -> the width that they share, and the flag that overrides it.
_HEADS = {
    "num_heads": ("width", "heads"),
    "text_num_heads": ("text_width", None),
    "mit_num_heads": ("embed_dim", "mit_heads"),
    "prompt_num_heads": ("embed_dim", "prompt_heads"),
}


def rows(positions: int) -> int:
    """Returns the rows of the square of patches that a table with a class position is for."""
    return limits.side(positions - 1, "patches", "X-CLIP")


def stack(tensors: Mapping[str, Any], layers: str, fc1: str, prefix: str = "") -> dict[str, int]:
    """Returns the sizes of a transformer.

    Args:
        layers: names of its layers, without their numbers.
        fc1: a layer's first Linear of the MLP.
        prefix: of the sizes' names.
    """
    shape = formats.shapes(tensors, "X-CLIP or CLIP")
    return {
        f"{prefix}depth": formats.count(tensors, f"{layers}."),
        f"{prefix}mlp_dim": shape(f"{layers}.0.{fc1}.weight")[0],
    }


def num_heads(
    model: Mapping[str, Any], options: Options, stated: Mapping[str, int]
) -> dict[str, int]:
    """Returns the numbers of heads: as given, as stated, or as in the originals.

    Args:
        model: its other sizes.
        options: of the command.
        stated: by config.json.

    Raises:
        UserError: one does not divide its width, or is given for a part that the model has not.
    """
    if model["head"] != "video_text" and (options.mit_heads or options.prompt_heads):
        raise UserError(
            "--mit_heads and --prompt_heads are about parts that only a whole X-CLIP has, and this "
            f"model is one with head {model['head']!r}"
        )
    heads = {}
    for name, default in original_heads(model).items():
        width, flag = _HEADS[name]
        given = getattr(options, flag) if flag else None
        known = stated.get(name) or default
        heads[name] = huggingface.num_heads(flag or "heads", model[width], given, known, {}, [])
    return heads


def original_heads(model: Mapping[str, Any]) -> dict[str, int]:
    """Returns the numbers of heads of the same model in the originals."""
    return {
        name: model[width] // published.HEAD_DIM
        for name, (width, _) in _HEADS.items()
        if name.replace("num_heads", "depth") in model
    }


def check_expressible(
    model: Mapping[str, Any],
    who: str,
    heads: Collection[str | None],
    computed: Mapping[str, str],
    otherwise: str = "",
) -> None:
    """Raises UserError if a format cannot express a model.

    Args:
        model: to be exported.
        who: reads the format.
        heads: that the format has.
        computed: sizes that are 4 times another there.
        otherwise: the way out for other heads.
    """
    head = model["head"]
    limits.refuse(who, "X-CLIP", {f"head {head!r}": head not in heads}, otherwise)
    reasons = {
        f"{key} {model[key]} instead of {4 * model[width]}": model[key] != 4 * model[width]
        for key, width in computed.items()
        if model.get(key) is not None
    }
    if published.has_frames(model):
        (_, *grid), (_, *patch) = model["pos_grid"], model["patch_size"]
        patches = f"{grid[0]} x {grid[1]} patches of {patch[0]} x {patch[1]} pixels"
        reasons[patches] = len(set(grid)) > 1 or len(set(patch)) > 1
    limits.refuse(who, "X-CLIP", reasons)
