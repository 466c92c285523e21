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
from converters.originals import of_format
from converters.xclip import hf, original
from vidjax.card import Card

_MODULES = {"hf": hf, "original": original}
FORMATS = tuple(_MODULES)
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
    """Whether the tensors are an X-CLIP's or a CLIP's, in any format."""
    return any(module.recognises(source) for module in _MODULES.values())


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and from config.json.

    Raises:
        UserError: config.json or the options contradict the tensors, the towers differ in what is
            one value here, or the model is a CLIP of another kind.
    """
    return next(m for m in _MODULES.values() if m.recognises(source)).describe(source, options)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """Plans how a model is written; JSON files in `originals` that still hold stay as they were.

    Raises:
        UserError: the format has no such model.
    """
    return _MODULES[format].export(card, *of_format(card.provenance, format, originals))
