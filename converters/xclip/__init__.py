"""X-CLIP and CLIP: Hugging Face folders, and the state dicts of microsoft's and OpenAI's code.

Sources: microsoft/VideoX X-CLIP/models, clip and datasets/build.py; openai/CLIP model.py;
transformers models/x_clip and models/clip (5.23) and its convert_x_clip_original_pytorch_to_hf.py.
Shapes: D width of images, W of texts, E of what they share, H heads of width K, N patches, L
layers, T frames.
"""

from collections.abc import Mapping

from converters import Conversion, Export, Option, Options
from converters.formats import Source
from converters.options import FRAMES, HEADS, PREPROCESSING, RAW_TEXT, SIZE, TOKENIZER
from converters.xclip import hf, hf_config, original
from vidjax.card import Card
from vidjax.errors import UserError

FORMATS = ("hf", "original")
OPTIONS = (
    HEADS,
    Option("mit_heads", int, "X-CLIP: attention heads of the transformer over frames."),
    Option("prompt_heads", int, "X-CLIP: attention heads of texts that look at a video."),
    FRAMES,
    SIZE,
    PREPROCESSING,
    TOKENIZER,
    RAW_TEXT,
)
TRAIN = "configs/xclip_k400.py"


def recognises(source: Source) -> bool:
    """Whether the tensors are an X-CLIP's or a CLIP's, from either home."""
    names = source.tensors
    if original.PATCH in names:
        return "ln_final.weight" in names
    texts = [name.removesuffix(hf.TOKENS) for name in names if name.endswith(hf.TOKENS)]
    return any(name.endswith(hf.CLASS) for name in names) or any(
        f"{text}{hf.TEXT_NORM}" in names for text in texts
    )


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and from config.json.

    Raises:
        UserError: config.json or the options contradict the tensors, the towers differ in what is
            one value here, or the model is a CLIP of another kind.
    """
    if original.PATCH in source.tensors:
        return original.describe(source, options)
    return hf.describe(source, options)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """How to write a model.

    Args:
        card: of the model.
        format: "hf", a folder of transformers; or "original", a state dict as microsoft's code
            (under "model") or OpenAI's (bare) reads it.
        originals: JSON files of the source the model was converted from; those that still hold
            are written again as they were.

    Raises:
        UserError: the format has no such model.
    """
    model, head = card.model, card.model["head"]
    who = {"hf": "transformers", "original": "the original code"}[format]
    heads = tuple(hf_config.ARCHITECTURES) if format == "hf" else ("video_text", "image_text")
    if head not in heads:
        raise UserError(f"{who} has no model with head {head!r}{_elsewhere(format, head)}")
    # What is computed from other sizes there.
    widths = {"prompt_mlp_dim": "embed_dim"}
    if format == "original":
        widths |= {"mit_mlp_dim": "embed_dim", "text_mlp_dim": "text_width", "mlp_dim": "width"}
    reasons = [
        f"{key} {model[key]} instead of {4 * model[width]}"
        for key, width in widths.items()
        if model.get(key) not in (None, 4 * (model.get(width) or 0))
    ]
    _, *grid = model.get("pos_grid", (1, 1, 1))
    _, *patch = model.get("patch_size", (1, 1, 1))
    if len(set(grid)) > 1 or len(set(patch)) > 1:
        reasons.append(f"{grid[0]} x {grid[1]} patches of {patch[0]} x {patch[1]} pixels")
    if reasons:
        raise UserError(f"{who} has no X-CLIP with {' and '.join(reasons)}")
    same = card.provenance.get("format") == format
    naming = card.provenance["naming"] if same else None
    if format == "hf":
        return hf.export(card, naming, originals if same else {})
    return original.export(card, naming)


def _elsewhere(format: str, head: str | None) -> str:
    """The way out, if there is one."""
    return "; export by --format=hf" if format != "hf" and head in hf_config.ARCHITECTURES else ""
