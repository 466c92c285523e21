"""Frames and texts as each format prepares them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters import Options, TokenizerFile, huggingface, processors
from converters.formats import (
    IMAGE_CONVERTER,
    VIDEO_PREPROCESSOR,
    Source,
)
from converters.videoprism import hf_config, image_converter, published
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

PROCESSORS = processors.Family(
    image="LlavaOnevisionVideoProcessor",
    video="LlavaOnevisionVideoProcessor",
    videos_first=True,
    new=(VIDEO_PREPROCESSOR, "LlavaOnevisionVideoProcessor"),
)


def preprocessing(
    default: str,
    source: Source,
    options: Options,
    model: Mapping[str, Any],
    notes: list[str],
) -> Preprocessing:
    """How the model gets its video: as its home prepares it, or as --preprocessing says."""
    frames, sides = published.FRAMES, (published.SIZE, published.SIZE)
    if model["head"] != "text":
        frames, *sides = (
            n * p for n, p in zip(model["pos_grid"], model["patch_size"], strict=True)
        )
        if default == "hf" and source.config is not None:
            sides = hf_config.sides(hf_config.parts_of(source, [])["vision_config"]["image_size"])
            for side, step in zip(sides, model["patch_size"][1:], strict=True):
                huggingface.note_rest("pixels", side, step, notes)
    size = min(sides)
    if len(set(sides)) > 1 and not options.size:
        notes.append(
            f"positions are for frames of {sides[0]} x {sides[1]} pixels, and frames are prepared "
            f"square, as {size} x {size}: positions are resampled (--size= chooses another square)"
        )
    values = {
        "frames": frames,
        "stride": 1,
        "sampling": "linspace",
        "size": size,
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "temporal_views": 1,
        "spatial_views": 1,
    }
    kind = options.preprocessing or default
    stated = processors.read(source.json, PROCESSORS, None, notes) if kind == "hf" else None
    if default == "hf" and not (stated or options.preprocessing):
        notes.append("no processor's JSON file beside the weights: the original's is assumed")
        kind = "original"
    if kind == "original":
        values |= {"fit": "crop", "resize": "pil_lanczos"}
    elif kind == "hf":
        values |= {"fit": "stretch", "resize": "pil_bicubic"} | (stated or {})
    else:
        converter = source.json.get(IMAGE_CONVERTER)
        values |= {"fit": "crop_first", "resize": "pil_bilinear"} | image_converter.read(converter)
    if kind != "original":
        notes.append(
            "the released weights were made with the original's frames (LANCZOS, cropped), which "
            "differ a little (--preprocessing=original)"
        )
    if (values["frames"], values["size"]) != (frames, size):
        notes.append(
            f"frames are prepared as {values['frames']} of {values['size']} pixels, and positions "
            f"are for {frames} of {size}: they are resampled"
        )
    if options.frames:
        values["frames"] = options.frames
    if options.size or not stated:
        values["size"] = options.size or values["size"]
        values |= {"short_side": values["size"], "stretch_to": None}
    return Preprocessing(**values)


def tokenizer(
    source: Source, options: Options, model: Mapping[str, Any], length: int, notes: list[str]
) -> TokenizerFile | None:
    """The vocabulary that --tokenizer names, or that lies beside the weights."""
    if model["head"] not in ("text", "video_text"):
        if options.tokenizer or options.raw_text is not None:
            raise UserError("--tokenizer and --raw_text are about texts, and this model reads none")
        return None
    path = Path(options.tokenizer) if options.tokenizer else source.tokenizer
    if path is None:
        notes.append(
            "no vocabulary beside the weights, so the model takes token ids only; the released "
            "models' is cc_en.32000's sentencepiece.model (--tokenizer=FILE)"
        )
        return None
    kinds = {".model": ".model", ".spm": ".model", ".json": ".json"}
    if not path.is_file() or path.suffix not in kinds:
        raise UserError(
            f"--tokenizer={path} is no SentencePiece .model and no tokenizer.json; name such a file"
        )
    if not options.raw_text:
        notes.append(
            "texts are tokenised as by the original, without punctuation and capitals; Hugging "
            "Face and KerasHub leave them as they are (--raw_text)"
        )
    card = {"length": length, "canonicalise": not options.raw_text}
    return TokenizerFile(path, {"file": f"tokenizer{kinds[path.suffix]}", **card})
