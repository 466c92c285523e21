"""Facts about the published X-CLIPs and CLIPs, and sizes that both formats read alike."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from converters import Options, formats, huggingface, limits, processors
from converters.formats import PREPROCESSOR
from vidjax.errors import UserError

CLIP_IMAGES = ("image", "image_text")  # heads with CLIP's image tower
TEXTS = ("text", "video_text", "image_text")  # heads with a text tower
WHOLE = ("video_text", "image_text")  # heads with both towers
EPS, ACT = 1e-5, "quick_gelu"  # of the originals
FRAMES, SIZE = 8, 224  # where a model does not tell
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
PROCESSORS = processors.Family(
    image="CLIPImageProcessor",
    video="VideoMAEVideoProcessor",
    videos_first=False,
    new=(PREPROCESSOR, "VideoMAEImageProcessor"),
    also="VideoMAEImageProcessor",
)
CLIP_PROCESSORS = replace(PROCESSORS, new=(PREPROCESSOR, "CLIPImageProcessor"), also=None)
PROMPTS = "prompts_generator.decoder"
_HEAD_DIM = 64  # of every attention in the originals
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
    """Returns depth and MLP width of the transformer `layers`, whose MLPs begin with `fc1`."""
    weight = f"{layers}.0.{fc1}.weight"
    return {
        f"{prefix}depth": formats.count(tensors, f"{layers}."),
        f"{prefix}mlp_dim": formats.shapes(tensors, "X-CLIP or CLIP")(weight)[0],
    }


def num_heads(
    model: Mapping[str, Any], options: Options, stated: Mapping[str, int]
) -> dict[str, int]:
    """Returns the numbers of heads: as given, as `stated` by config.json, or as originally.

    Raises:
        UserError: one does not divide its width, or is given for a part that the model has not.
    """
    if model["head"] != "video_text" and (options.mit_heads or options.prompt_heads):
        raise UserError(
            "--mit_heads and --prompt_heads are about parts that only a whole X-CLIP has, and this "
            f"model is one with head {model['head']!r}"
        )
    heads = {}
    for name, original in original_heads(model).items():
        width, flag = _HEADS[name]
        given, known = flag and getattr(options, flag), stated.get(name) or original
        heads[name] = huggingface.num_heads(flag or "heads", model[width], given, known, {}, [])
    return heads


def original_heads(model: Mapping[str, Any]) -> dict[str, int]:
    """Returns the numbers of heads of the same model in the originals."""
    return {
        name: model[width] // _HEAD_DIM
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
    """Raises UserError if `who` has no such head, or computes sizes as 4 times another's."""
    head = model["head"]
    limits.refuse(who, "X-CLIP", {f"head {head!r}": head not in heads}, otherwise)
    reasons = {
        f"{key} {model[key]} instead of {4 * model[width]}": model[key] != 4 * model[width]
        for key, width in computed.items()
        if model.get(key) is not None
    }
    if head != "text":
        (_, *grid), (_, *patch) = model["pos_grid"], model["patch_size"]
        patches = f"{grid[0]} x {grid[1]} patches of {patch[0]} x {patch[1]} pixels"
        reasons[patches] = len(set(grid)) > 1 or len(set(patch)) > 1
    limits.refuse(who, "X-CLIP", reasons)
