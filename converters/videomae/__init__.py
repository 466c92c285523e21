"""VideoMAE and VideoMAE V2: Hugging Face folders and the original .pth files.

Sources: transformers/models/videomae (5.23) and the names in the published files, which differ
from its modules' (`q_bias` in files, `query.bias` in memory); MCG-NJU/VideoMAE and
OpenGVLab/VideoMAEv2, modeling_pretrain.py, modeling_finetune.py.
Numerics: Hugging Face has layer_norm_eps (1e-12 published) in blocks and encoder norm, but
PyTorch's default 1e-5 in fc_norm and the decoder's norm; the originals have 1e-6 throughout.
"""

from collections.abc import Mapping

from converters import Conversion, Export, Option, Options
from converters.formats import Source
from converters.options import FRAMES, HEADS, SIZE
from converters.originals import of_format
from converters.videomae import architecture, hf, original
from vidjax.card import Card

_MODULES = {"hf": hf, "original": original}
FORMATS = tuple(_MODULES)
OPTIONS = (
    HEADS,
    Option("decoder_heads", int, "Number of attention heads of the decoder."),
    FRAMES,
    SIZE,
)
TRAIN = "configs/videomae_k400_finetune.py"


def recognises(source: Source) -> bool:
    """Whether the tensors have VideoMAE's names, in either format."""
    return any(architecture.recognises(source, module.FORMAT) for module in _MODULES.values())


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' shapes, and from config.json what they lack.

    Raises:
        UserError: config.json contradicts the tensors, has another activation than GELU, or
            nothing tells the number of heads.
    """
    formats = [module.FORMAT for module in _MODULES.values()]
    format = next(format for format in formats if architecture.recognises(source, format))
    return architecture.describe(source, options, format)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """Plans how a model is written; JSON files in `originals` that still hold stay as they were."""
    naming, files = of_format(card.provenance, format, originals)
    naming = None if naming is None else architecture.Naming(**naming)
    return _MODULES[format].export(card, naming, files)
