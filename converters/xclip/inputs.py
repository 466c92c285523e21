"""Frames and texts as each format prepares them."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters import Options, TokenizerFile, huggingface, processors
from converters.formats import MERGES, PREPROCESSOR, Source
from converters.xclip import hf_config, published
from vidjax.card import Card
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.tokenizers import clip_tokenizer_json

PROCESSORS = processors.Family(
    image="CLIPImageProcessor",
    video="VideoMAEVideoProcessor",
    videos_first=False,
    new=(PREPROCESSOR, "VideoMAEImageProcessor"),
    also="VideoMAEImageProcessor",
)
CLIP_PROCESSORS = replace(PROCESSORS, new=(PREPROCESSOR, "CLIPImageProcessor"), also=None)


def preprocessing(
    default: str,
    source: Source,
    options: Options,
    model: Mapping[str, Any],
    num_frames: int | None,
    notes: list[str],
) -> Preprocessing:
    """How the model gets its video: as its home prepares it, or as --preprocessing says.

    Args:
        num_frames: of a vision tower alone, by config.json; None where that does not tell.
    """
    head, size = model["head"], published.SIZE
    clip = head in ("image", "image_text")
    if head != "text":
        size = model["pos_grid"][1] * model["patch_size"][1]
        if default == "hf" and source.config is not None:
            size = huggingface.square(
                hf_config.parts_of(source.config)["vision_config"]["image_size"]
            )
            huggingface.note_rest("pixels", size, model["patch_size"][1], notes)
    frames = model["pos_grid"][0] if head == "video_text" else num_frames
    if not (frames or options.frames or head == "text"):
        notes.append(f"clips of {published.FRAMES} frames are assumed (--frames=)")
    for given, known, what in ((options.size, size, "pixels"), (options.frames, frames, "frames")):
        if given and known and given != known:
            notes.append(f"positions are for {known} {what}: for {given} they are resampled")
    size = options.size or size
    values = {
        "frames": options.frames or frames or published.FRAMES,
        "stride": 1,
        "sampling": "segment",
        "size": size,
        "short_side": size,
        "resize": "pil_bicubic" if clip else "pil_bilinear",
        # CLIP knows no protocol of videos.
        "temporal_views": 1 if clip else 4,
        "spatial_views": 1 if clip else 3,
        **(published.CLIP if clip else published.IMAGENET),
    }
    kind = options.preprocessing or default
    stated = None
    if kind == "hf":
        only = frames if head == "video_text" and not options.frames else None
        family = CLIP_PROCESSORS if clip else PROCESSORS
        stated = processors.read(source.json, family, only, notes)
    if default == "hf" and not (stated or options.preprocessing):
        notes.append(f"no {PREPROCESSOR} beside the weights: the original's is assumed")
        kind = "original"
    if kind not in ("original", "hf"):
        raise UserError(f"--preprocessing={kind} is not known of X-CLIP; give original or hf")
    if stated:
        fields = _for_model(stated, size)
        if fields["size"] != stated["size"]:
            notes.append(
                f"its processor makes frames of {stated['size']} pixels, and the model wants "
                f"{size}: they are made so, in transformers set crop_size to {size}"
            )
        elif fields["size"] != size and head != "text" and not options.size:
            raise UserError(
                f"its processor makes frames of {fields['size']} pixels; expected {size}, which "
                f"the model takes. Correct crop_size, or give --size={fields['size']} or "
                "--preprocessing=original"
            )
        values |= fields | {"frames": values["frames"]}
        if options.size:
            values |= {"size": size, "short_side": size, "stretch_to": None}
    if clip or head == "text":
        return Preprocessing(**values)
    if kind == "original":
        # X-CLIP's datasets/build.py: one crop of a larger frame, or three of a smaller one.
        values |= {
            "resize": "mmcv_linear",
            "short_side": int(256 / 224 * size),
            "views_short_side": size,
        }
    else:
        notes.append(
            "the released weights were trained and measured with the original's frames (less of "
            "each, and no antialias), which differ a little (--preprocessing=original)"
        )
    return Preprocessing(**values)


def _for_model(stated: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Fields of Preprocessing by a processor that may leave crop_size at its class's 224.

    That of the published 336-pixel model does, which resizes to the model's size.
    """
    return {
        **stated,
        "size": size if stated["size"] < size == stated["short_side"] else stated["size"],
    }


_TOKENIZER_KINDS = (".json", ".txt.gz")


def tokenizer(
    format: str, source: Source, options: Options, model: Mapping[str, Any], notes: list[str]
) -> TokenizerFile | None:
    """The vocabulary that --tokenizer names, or that lies beside the weights."""
    if model["head"] in (None, "image"):
        if options.tokenizer or options.raw_text is not None:
            raise UserError("--tokenizer and --raw_text are about texts, and this model reads none")
        return None
    path = Path(options.tokenizer) if options.tokenizer else source.tokenizer
    if path is None:
        notes.append(
            "no vocabulary beside the weights, so the model takes token ids only; the released "
            "models' is CLIP's (--tokenizer=bpe_simple_vocab_16e6.txt.gz, or a tokenizer.json)"
        )
        return None
    if not path.is_file() or not path.name.endswith(_TOKENIZER_KINDS):
        raise UserError(
            f"--tokenizer={path} is no tokenizer.json, vocab.json or bpe_simple_vocab_16e6.txt.gz; "
            "name such a file"
        )
    if path.name == "vocab.json" and not (path.parent / MERGES).is_file():
        raise UserError(f"{path} is half a vocabulary; put its {MERGES} beside it")
    original = format == "original"
    cleaned = original if options.raw_text is None else not options.raw_text
    if cleaned != original or not original:
        words = {True: "mended", False: "left as they are, as Hugging Face does (--noraw_text)"}
        notes.append(f"broken Unicode and HTML's entities in texts are {words[cleaned]}")
    card = {
        "file": "tokenizer.json",
        "length": model["context_length"],
        "canonicalise": cleaned,
        "pad": "zero" if original else "end",
        "truncate": False,
    }
    if path.name == "vocab.json":
        return TokenizerFile(path.parent, card, clip_tokenizer_json)
    if path.suffix == ".gz":
        return TokenizerFile(path, card, clip_tokenizer_json)
    return TokenizerFile(path, card)


def processor_files(
    card: Card, originals: Mapping[str, bytes], notes: list[str]
) -> dict[str, bytes]:
    """The JSON file that tells how frames are prepared; as it was, where it says it."""
    model = card.model
    if model["head"] == "text":
        return {}
    family = CLIP_PROCESSORS if model["head"] in ("image", "image_text") else PROCESSORS
    size = model["pos_grid"][1] * model["patch_size"][1]
    adapt = functools.partial(_for_model, size=size)
    return processors.export(originals, card.preprocessing, family, notes, adapt)
