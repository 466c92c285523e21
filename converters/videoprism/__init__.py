"""VideoPrism: google-deepmind's npz files, Hugging Face folders, KerasHub presets.

Sources: google-deepmind/videoprism models.py and encoders.py; transformers models/videoprism
(5.23); keras_hub models/video_prism (0.32), its names in a file by Keras 3.15.
The LayerNorm scales of npz and Hugging Face's files are added to 1, KerasHub's are used as they are
(`scale_offset`): 1 + scale rounds, so neither is written from the other.
Shapes: D width, H heads of width K (of the pooler: its own), L layers.
"""

import dataclasses
from collections.abc import Mapping

from converters import Conversion, Export, Options
from converters.formats import Source
from converters.options import FRAMES, HEADS, PREPROCESSING, RAW_TEXT, SIZE, TOKENIZER
from converters.originals import of_format
from converters.videoprism import hf, hf_config, keras, npz, published
from vidjax.card import Card
from vidjax.errors import UserError

_MODULES = {"hf": hf, "original": npz, "keras": keras}
FORMATS = tuple(_MODULES)
OPTIONS = (HEADS, FRAMES, SIZE, PREPROCESSING, TOKENIZER, RAW_TEXT)
TRAIN = "configs/videoprism_probe_k400.py"
HUB_FILES = published.HUB_FILES


def recognises(source: Source) -> bool:
    """Whether the tensors are a VideoPrism's, in any format."""
    return any(module.recognises(source) for module in _MODULES.values())


def describe(source: Source, options: Options) -> Conversion:
    """Reads the architecture from the tensors' names and shapes, and from config.json.

    Raises:
        UserError: config.json or the options contradict the tensors, the text positions are of an
            unknown formula, or the model has parts that VideoPrism has not.
    """
    return next(m for m in _MODULES.values() if m.recognises(source)).describe(source, options)


def export(card: Card, format: str, originals: Mapping[str, bytes]) -> Export:
    """Plans how a model is written; JSON files in `originals` that still hold stay as they were.

    Raises:
        UserError: the format has no such model, or wants LayerNorm scales in another form.
    """
    model = card.model
    if model["head"] not in hf_config.ARCHITECTURES:
        raise UserError(f"no published format has a VideoPrism with head {model['head']!r}")
    wanted, forms = float(format != "keras"), {0.0: "as they are used", 1.0: "less 1"}
    if model["scale_offset"] != wanted:
        raise UserError(
            f"--format={format} holds LayerNorm scales {forms[wanted]}, and this model's are held "
            f"{forms[model['scale_offset']]}: changing them would round them; convert the same "
            "checkpoint from a file of that format instead"
        )
    plan = _MODULES[format].export(card, *of_format(card.provenance, format, originals))
    scalars = [key for key in ("logit_scale", "logit_bias") if model.get(key) is not None]
    if not scalars:
        return plan
    note = f"{' and '.join(scalars)} are left out: no published format has them"
    return dataclasses.replace(plan, left_out=scalars, notes=[note, *plan.notes])
