"""VideoMAE and VideoMAE V2: Hugging Face folders and the original .pth files.

Sources: transformers/models/videomae (5.23) and the names in the published files, which differ
from its modules' (`q_bias` in files, `query.bias` in memory); MCG-NJU/VideoMAE and
OpenGVLab/VideoMAEv2, modeling_pretrain.py, modeling_finetune.py.
Numerics: Hugging Face has layer_norm_eps (1e-12 published) in blocks and encoder norm, but
PyTorch's default 1e-5 in fc_norm and the decoder's norm; the originals have 1e-6 throughout.
"""

from collections.abc import Mapping

import numpy as np

from converters import Conversion, Export, Option, Options
from converters.formats import Source
from converters.options import FRAMES, HEADS, SIZE
from converters.videomae import architecture, hf, original
from vidjax.card import Card
from vidjax.lazy import spec_of

FORMATS = ("hf", "original")
OPTIONS = (
    HEADS,
    Option("decoder_heads", int, "Number of attention heads of the decoder."),
    FRAMES,
    SIZE,
)
TRAIN = "configs/videomae_k400_finetune.py"


def recognises(source: Source) -> bool:
    """Whether the tensors have VideoMAE's names, in either format."""
    return _format(source.tensors) is not None


def _format(tensors: Mapping[str, np.ndarray]) -> architecture.Format | None:
    # ViViT has the same patch embedding in Hugging Face's format, but a class token, and VideoPrism
    # one of frames, and positions in the file.
    others = ("cls_token", "spatial_embeddings.position_embeddings", ".attn.qkv.bias")
    if any(name.endswith(others) for name in tensors):
        return None
    for format in (hf.FORMAT, original.FORMAT):
        patches = [name for name in tensors if name.endswith(format.patch_kernel)]
        if patches and any(name.endswith(format.telling) for name in tensors):
            return format if len(spec_of(tensors, patches[0]).shape) == 5 else None
    return None


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' shapes, and from config.json what they lack.

    Raises:
        UserError: config.json contradicts the tensors, has another activation than GELU, or
            nothing tells the number of heads.
    """
    return architecture.describe(source, options, _format(source.tensors))


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """How to write a model as a Hugging Face folder ("hf") or as the original's .pth ("original").

    Args:
        card: of the model.
        format: "hf" or "original".
        originals: JSON files of the source the model was converted from; those that still hold
            are written again as they were.
    """
    same = card.provenance.get("format") == format
    naming = architecture.Naming(**card.provenance["naming"]) if same else None
    notes = []
    if card.model["pos_grid"] is not None:
        notes.append("the resampled position table (pos_grid) is not part of the exported format")
    if format == "hf":
        return hf.export(card, naming, originals if same else {}, notes)
    return original.export(card, naming, notes)
