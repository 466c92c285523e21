"""Frames and texts as each format prepares them."""

from collections.abc import Mapping, Sequence
from typing import Any

from converters import Options, TokenizerFile, huggingface, processors
from converters.formats import IMAGE_CONVERTER, Source
from converters.videoprism import hf_config, keras_json, published
from vidjax.preprocessing import Preprocessing


def preprocessing(
    format: str, source: Source, options: Options, model: Mapping[str, Any], notes: list[str]
) -> Preprocessing:
    """Returns how the model gets its video: as its format does, or as --preprocessing says."""
    frames, sides = _clip(format, source, model, notes)
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
    kind = options.preprocessing or format
    stated = (
        processors.read(source.json, published.PROCESSORS, None, notes) if kind == "hf" else None
    )
    if format == "hf" and not (stated or options.preprocessing):
        notes.append("no processor's JSON file beside the weights: the original's is assumed")
        kind = "original"
    if kind == "original":
        values |= {"fit": "crop", "resize": "pil_lanczos"}
    elif kind == "hf":
        values |= {"fit": "stretch", "resize": "pil_bicubic"} | (stated or {})
    else:
        converter = keras_json.read_converter(source.json.get(IMAGE_CONVERTER))
        values |= {"fit": "crop_first", "resize": "pil_bilinear"} | converter
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


def _clip(
    format: str, source: Source, model: Mapping[str, Any], notes: list[str]
) -> tuple[int, Sequence[int]]:
    """Returns number, height and width of the frames that the positions are for."""
    if model["head"] == "text":
        return published.FRAMES, (published.SIZE, published.SIZE)
    (frames, *grid), (_, *patch) = model["pos_grid"], model["patch_size"]
    if format != "hf" or source.config is None:
        return frames, [n * step for n, step in zip(grid, patch, strict=True)]
    sides = hf_config.sides(hf_config.parts_of(source.config)["vision_config"]["image_size"])
    for side, step in zip(sides, patch, strict=True):
        huggingface.note_rest("pixels", side, step, notes)
    return frames, sides


def tokenizer(
    source: Source, options: Options, model: Mapping[str, Any], length: int, notes: list[str]
) -> TokenizerFile | None:
    """Returns the vocabulary that --tokenizer names, or that lies beside the weights."""
    endings = {".model": ".model", ".spm": ".model", ".json": ".json"}
    path = huggingface.vocabulary(
        source,
        options,
        model["head"] in published.TEXTS,
        tuple(endings),
        expected="SentencePiece .model and no tokenizer.json",
        released="cc_en.32000's sentencepiece.model (--tokenizer=FILE)",
        notes=notes,
    )
    if path is None:
        return None
    if not options.raw_text:
        notes.append(
            "texts are tokenised as by the original, without punctuation and capitals; Hugging "
            "Face and KerasHub leave them as they are (--raw_text)"
        )
    file = f"tokenizer{endings[path.suffix]}"
    card = {"file": file, "length": length, "canonicalise": not options.raw_text}
    return TokenizerFile(path, card)
