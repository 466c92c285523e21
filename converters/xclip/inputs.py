"""Frames and texts as each format prepares them."""

from collections.abc import Mapping
from typing import Any

from converters import Options, TokenizerFile, huggingface, processors
from converters.formats import MERGES, PREPROCESSOR, Source
from converters.xclip import hf_config, published
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing
from vidjax.tokenizers import clip_tokenizer_json


def processors_of(model: Mapping[str, Any]) -> processors.Family:
    is_clip = model["head"] in published.CLIP_IMAGES
    return published.CLIP_PROCESSORS if is_clip else published.PROCESSORS


def position_side(model: Mapping[str, Any]) -> int:
    """Returns the side of the frames that the positions are for."""
    return model["pos_grid"][1] * model["patch_size"][1]


def preprocessing(
    format: str, source: Source, options: Options, model: Mapping[str, Any], notes: list[str]
) -> Preprocessing:
    """Returns how the model gets its video: as its format does, or as --preprocessing says."""
    head, is_clip = model["head"], model["head"] in published.CLIP_IMAGES
    frames, size = _clip(format, source, options, model, notes)
    values = {
        "frames": options.frames or frames or published.FRAMES,
        "stride": 1,
        "sampling": "segment",
        "size": size,
        "short_side": size,
        "resize": "pil_bicubic" if is_clip else "pil_bilinear",
        # CLIP knows no protocol of videos.
        "temporal_views": 1 if is_clip else 4,
        "spatial_views": 1 if is_clip else 3,
    }
    values |= published.CLIP if is_clip else published.IMAGENET
    kind, stated = options.preprocessing or format, None
    if kind == "hf":
        only = frames if head == "video_text" and not options.frames else None
        stated = processors.read(source.json, processors_of(model), only, notes)
    if format == "hf" and not (stated or options.preprocessing):
        notes.append(f"no {PREPROCESSOR} beside the weights: the original's is assumed")
        kind = "original"
    if kind not in ("original", "hf"):
        raise UserError(f"--preprocessing={kind} is not known of X-CLIP; give original or hf")
    if stated:
        is_free = head == "text" or bool(options.size)
        values |= _stated(stated, size, is_free, notes) | {"frames": values["frames"]}
        if options.size:
            values |= {"size": size, "short_side": size, "stretch_to": None}
    if is_clip or head == "text":
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


def _clip(
    format: str, source: Source, options: Options, model: Mapping[str, Any], notes: list[str]
) -> tuple[int | None, int]:
    """Returns number, if it is known, and side of the frames of a clip."""
    head, frames, size = model["head"], None, published.SIZE
    if head == "video_text":
        frames = model["pos_grid"][0]
    if model["head"] != "text":
        size = position_side(model)
        if format == "hf" and source.config is not None:
            vision = hf_config.parts_of(source.config)["vision_config"]
            size = huggingface.square(vision["image_size"])
            huggingface.note_rest("pixels", size, model["patch_size"][1], notes)
            frames = vision["num_frames"] if head is None else frames
        if not (frames or options.frames):
            notes.append(f"clips of {published.FRAMES} frames are assumed (--frames=)")
    for given, known, what in ((options.size, size, "pixels"), (options.frames, frames, "frames")):
        if given and known and given != known:
            notes.append(f"positions are for {known} {what}: for {given} they are resampled")
    return frames, options.size or size


def _stated(
    stated: Mapping[str, Any], size: int, is_free: bool, notes: list[str]
) -> dict[str, Any]:
    """Returns fields of Preprocessing by a processor, which makes frames of `size` or `is_free`."""
    fields = for_model(stated, size)
    if fields["size"] != stated["size"]:
        notes.append(
            f"its processor makes frames of {stated['size']} pixels, and the model wants {size}: "
            f"they are made so, in transformers set crop_size to {size}"
        )
    elif fields["size"] != size and not is_free:
        raise UserError(
            f"its processor makes frames of {fields['size']} pixels; expected {size}, which the "
            f"model takes. Correct crop_size, or give --size={fields['size']} or "
            "--preprocessing=original"
        )
    return fields


def for_model(stated: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Returns fields of Preprocessing by a processor that may leave crop_size at its class's 224.

    That of the published 336-pixel model does, which resizes to the model's size.
    """
    is_left = stated["size"] < size == stated["short_side"]
    return {**stated, "size": size if is_left else stated["size"]}


def tokenizer(
    format: str, source: Source, options: Options, model: Mapping[str, Any], notes: list[str]
) -> TokenizerFile | None:
    """Returns the vocabulary that --tokenizer names, or that lies beside the weights."""
    path = huggingface.vocabulary(
        source,
        options,
        model["head"] in published.TEXTS,
        (".json", ".txt.gz"),
        expected="tokenizer.json, vocab.json or bpe_simple_vocab_16e6.txt.gz",
        released="CLIP's (--tokenizer=bpe_simple_vocab_16e6.txt.gz, or a tokenizer.json)",
        notes=notes,
    )
    if path is None:
        return None
    in_two_files = path.name == "vocab.json"
    if in_two_files and not (path.parent / MERGES).is_file():
        raise UserError(f"{path} is half a vocabulary; put its {MERGES} beside it")
    is_original = format == "original"
    cleaned = is_original if options.raw_text is None else not options.raw_text
    if not (is_original and cleaned):
        words = {True: "mended", False: "left as they are, as Hugging Face does (--noraw_text)"}
        notes.append(f"broken Unicode and HTML's entities in texts are {words[cleaned]}")
    card = {
        "file": "tokenizer.json",
        "length": model["context_length"],
        "canonicalise": cleaned,
        "pad": "zero" if is_original else "end",
        "truncate": False,
    }
    if in_two_files or path.suffix == ".gz":
        return TokenizerFile(path.parent if in_two_files else path, card, clip_tokenizer_json)
    return TokenizerFile(path, card)
