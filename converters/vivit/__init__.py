"""ViViT: Hugging Face folders, Scenic's checkpoints, and image ViTs as flat npz files.

Sources: transformers/models/vivit (5.23) and the names in the published files, which differ from
its modules' (`attention.attention.query` in files, `attention.q_proj` in memory);
google-research/scenic projects/vivit; google-research/vision_transformer's npz files.
Numerics: tanh GELU and LayerNorm's epsilon 1e-6 in all releases.
"""

from collections.abc import Mapping

from converters import Conversion, Export, Option, Options
from converters.formats import Source
from converters.options import FRAMES, HEADS, INPUT_RANGE, SIZE
from converters.originals import of_format
from converters.vivit import hf, scenic
from vidjax.card import Card

FORMATS = ("hf", "original", "npz")  # "original" is Scenic's msgpack file; npz has its names
OPTIONS = (
    HEADS,
    FRAMES,
    SIZE,
    Option(
        "factorisation",
        ("joint", "encoder", "self_attention", "dot_product"),
        "ViViT: how it attends over space and time; files of joint and dot_product look the same.",
    ),
    Option(
        "attention_order",
        ("time_space", "space_time"),
        "ViViT: what a block of factorisation self_attention attends over first.",
    ),
    Option("pool", ("mean", "max", "sum"), "ViViT: pooling of a model without class token."),
    INPUT_RANGE,
)
TRAIN = "configs/vivit_k400.py"


def recognises(source: Source) -> bool:
    """Whether the tensors are a ViViT's, or an image ViT's in a Flax tree."""
    return scenic.recognises(source) or hf.recognises(source)


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and asks for what they lack.

    Raises:
        UserError: config.json or the options contradict the tensors, the model has parts that
            ViViT has not, or nothing tells its frames' number and size.
    """
    return (scenic if scenic.recognises(source) else hf).describe(source, options)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """Plans how a model is written; JSON files in `originals` that still hold stay as they were.

    Raises:
        UserError: Hugging Face's ViViT has no such model.
    """
    naming, files = of_format(card.provenance, format, originals)
    if format == "hf":
        return hf.export(card, naming, files)
    return scenic.export(card, format, naming)
