"""VideoMAE's releases: what they are, and how their data was sampled and prepared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters import Options, huggingface, processors
from converters.formats import PREPROCESSOR, Source
from vidjax.preprocessing import Preprocessing


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: what it is, and the facts of its data that the files lack."""

    what: str
    sampling: str = "dense"
    stride: int = 4
    temporal_views: int = 5


def _ssv2(what: str, finetuned: bool) -> Checkpoint:
    sampling, views = ("segment", 2) if finetuned else ("dense", 5)
    return Checkpoint(what, sampling, stride=2, temporal_views=views)


CHECKPOINTS = {
    "MCG-NJU/videomae-base": Checkpoint("ViT-B, pre-trained on K400, 1600 epochs"),
    "MCG-NJU/videomae-base-short": Checkpoint("ViT-B, pre-trained on K400, 800 epochs"),
    "MCG-NJU/videomae-large": Checkpoint("ViT-L, pre-trained on K400, 1600 epochs"),
    "MCG-NJU/videomae-base-ssv2": _ssv2("ViT-B, pre-trained on SSv2, 2400 epochs", False),
    "MCG-NJU/videomae-base-short-ssv2": _ssv2("ViT-B, pre-trained on SSv2, 800 epochs", False),
    "MCG-NJU/videomae-small-finetuned-kinetics": Checkpoint("ViT-S, fine-tuned on K400"),
    "MCG-NJU/videomae-base-finetuned-kinetics": Checkpoint("ViT-B, fine-tuned on K400"),
    "MCG-NJU/videomae-base-short-finetuned-kinetics": Checkpoint("ViT-B, fine-tuned on K400"),
    "MCG-NJU/videomae-large-finetuned-kinetics": Checkpoint("ViT-L, fine-tuned on K400"),
    "MCG-NJU/videomae-huge-finetuned-kinetics": Checkpoint("ViT-H, fine-tuned on K400"),
    "MCG-NJU/videomae-small-finetuned-ssv2": _ssv2("ViT-S, fine-tuned on SSv2", True),
    "MCG-NJU/videomae-base-finetuned-ssv2": _ssv2("ViT-B, fine-tuned on SSv2", True),
    "MCG-NJU/videomae-base-short-finetuned-ssv2": _ssv2("ViT-B, fine-tuned on SSv2", True),
    "OpenGVLab/VideoMAE2/distill/vit_s_k710_dl_from_giant.pth": Checkpoint(
        "V2 ViT-S, distilled from the giant on K710"
    ),
    "OpenGVLab/VideoMAE2/distill/vit_b_k710_dl_from_giant.pth": Checkpoint(
        "V2 ViT-B, distilled from the giant on K710"
    ),
}

# Tensor shapes do not tell the number of heads; these are the published models' by width.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}

PROCESSORS = processors.Family(
    image="VideoMAEImageProcessor",
    video="VideoMAEVideoProcessor",
    videos_first=True,
    new=(PREPROCESSOR, "VideoMAEImageProcessor"),
)


def preprocessing(
    source: Source,
    options: Options,
    model: Mapping[str, Any],
    config: Mapping[str, Any],
    assumed: Mapping[str, Any],
    notes: list[str],
) -> Preprocessing:
    """Returns the preprocessing of a converted model.

    Args:
        config: its num_frames and image_size, if they are known.
        assumed: fields of Preprocessing without a processor's file, where they are not the usual.
    """
    ssv2 = model["head"] == "classify" and model["num_classes"] == 174
    data = CHECKPOINTS.get(options.hub_id) or (_ssv2("", True) if ssv2 else Checkpoint(""))
    frames = options.frames or config.get("num_frames")
    size = options.size or huggingface.square(config.get("image_size"))
    if not (frames and size):
        frames, size = frames or 16, size or 224
        notes.append(f"clips of {frames} frames, {size} pixels are assumed (--frames=, --size=)")
    values = {
        "frames": frames,
        "size": size,
        "short_side": size,
        "stride": data.stride,
        "sampling": data.sampling,
        "temporal_views": data.temporal_views,
    }
    huggingface.note_rest("frames", frames, model["patch_size"][0], notes)
    huggingface.note_rest("pixels", size, model["patch_size"][1], notes)
    stated = processors.read(source.json, PROCESSORS, None if options.frames else frames, notes)
    if stated:
        values |= stated | {"frames": frames}
        if options.size:
            values |= {"size": size, "short_side": size, "stretch_to": None}
        if config.get("image_size"):
            huggingface.note_crop(values["size"], size, notes)
    elif assumed:
        values |= assumed
        notes.append(f"no {PREPROCESSOR}: ImageNet's mean and deviation are assumed")
    return Preprocessing(**values)
