"""ViViT's releases: their datasets, and how their frames were sampled and prepared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters import Options, huggingface, processors
from converters.formats import PREPROCESSOR, Source
from converters.vivit.hints import Clip
from vidjax.data.datasets import DATASETS
from vidjax.preprocessing import Preprocessing

EPS, ACT = 1e-6, "gelu_tanh"  # of every release
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # by width

PROCESSORS = processors.Family(
    image="VivitImageProcessor",
    video="VivitVideoProcessor",
    videos_first=True,
    new=(PREPROCESSOR, "VivitImageProcessor"),
)


@dataclass(frozen=True)
class Protocol:
    """Sampling and evaluation of a dataset by Scenic's config."""

    name: str
    stride: int = 2
    spatial_views: int = 3
    groups: tuple[tuple[str, int], ...] = ()

    def values(self) -> dict[str, Any]:
        """Fields of Preprocessing."""
        return {
            "sampling": "dense_cycle",
            "stride": self.stride,
            "temporal_views": 4,
            "spatial_views": self.spatial_views,
            "view_average": "logits",
        }


K400, K600 = Protocol("Kinetics-400"), Protocol("Kinetics-600")
SSV2 = Protocol("Something-Something v2", stride=1)
EPIC = Protocol("Epic-Kitchens", stride=1, spatial_views=1, groups=DATASETS["epic_kitchens"].groups)
# By the number of classes, where nothing else tells.
PROTOCOLS = {400: K400, 600: K600, 174: SSV2, 397: EPIC}


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: what it is, and of which dataset."""

    what: str
    data: Protocol


_B, _B_FE = "ViViT-B/16x2 joint", "ViViT-B/16x2 factorised encoder"
_L_FE = "ViViT-L/16x2 factorised encoder"
CHECKPOINTS = {  # by hub id, or path in storage.googleapis.com/scenic-bucket
    "google/vivit-b-16x2-kinetics400": Checkpoint(_B, K400),
    "vivit/kinetics_400/vivit_base_16x2_unfactorized/checkpoint": Checkpoint(_B, K400),
    "vivit/kinetics_400/vivit_base_16x2_fe/checkpoint": Checkpoint(_B_FE, K400),
    "vivit/kinetics_400/vivit_large_16x2_fe/checkpoint": Checkpoint(_L_FE, K400),
    "vivit/kinetics_600/vivit_large_16x2_fe/checkpoint": Checkpoint(_L_FE, K600),
    "vivit/epic_kitchens/vivit_large_16x2_fe/checkpoint": Checkpoint(_L_FE, EPIC),
}


def _protocol(
    source: Source, options: Options, model: dict[str, Any], notes: list[str]
) -> Protocol:
    """Finds the protocol by the model's place in the releases or its number of classes.

    Adds the groups of classes to the model.
    """
    path = source.files[0].as_posix()
    key = next((k for k in CHECKPOINTS if k == options.hub_id or path.endswith(f"/{k}")), None)
    named = bool((source.config or {}).get("id2label"))  # then the classes are known to be others
    if key:
        data = CHECKPOINTS[key].data
        notes.append(f"published as {CHECKPOINTS[key].what}, {data.name}")
    elif model.get("num_classes") in PROTOCOLS and not (model["num_classes"] == 397 and named):
        data = PROTOCOLS[model["num_classes"]]
        notes.append(f"sampling and views are taken as {data.name}'s, by the number of classes")
    else:
        data = K400
        notes.append("sampling and views of Kinetics-400 are assumed: stride 2, 4x3 views")
    if data.groups and sum(count for _, count in data.groups) == model.get("num_classes"):
        model["groups"] = [list(group) for group in data.groups]
        words = " and ".join(f"{count} {name}s" for name, count in data.groups)
        notes.append(f"the classes are taken as {data.name}'s {words}")
    return data


def _values(clip: Clip, resize: str, protocol: Protocol) -> dict[str, Any]:
    """Fields of Preprocessing for an input range of [-1, 1]."""
    return protocol.values() | {
        "frames": clip.frames,
        "size": clip.size,
        # 256 for crops of 224, 288 for 256 in Scenic's configs.
        "short_side": clip.size + 32,
        "resize": resize,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }


def flax_preprocessing(
    source: Source, options: Options, model: dict[str, Any], clip: Clip, notes: list[str]
) -> Preprocessing:
    """Returns the preprocessing of a Flax tree's model; one of a single frame is an image ViT."""
    if clip.frames == 1 and model["patch_size"][0] == 1:
        values = _values(clip, "tf_bilinear", K400)
        values |= {"short_side": clip.size, "temporal_views": 1, "spatial_views": 1}
        why = "as image ViTs are trained"
    else:
        values = _values(clip, "tf_bilinear", _protocol(source, options, model, notes))
        why = "as Scenic trains"
    if options.input_range:
        values |= _by_range(options.input_range)
        why = f"by --input_range, instead of [-1, 1] {why}"
    notes.append(f"input range {_range(values)}, {why}")
    return Preprocessing(**values)


def hf_preprocessing(
    source: Source, options: Options, model: dict[str, Any], clip: Clip, notes: list[str]
) -> Preprocessing:
    """Returns the preprocessing of a Hugging Face folder's model."""
    values = _values(clip, "pil_bilinear", _protocol(source, options, model, notes))
    why = f"as Scenic trained the released weights; there is no {PREPROCESSOR}"
    only = None if options.frames else clip.frames
    stated = processors.read(source.json, PROCESSORS, only, notes)
    if stated:
        values |= stated | {"frames": clip.frames}
        why = "the net effect of its processor's file"
        if options.size not in (None, values["size"]):
            short_side = options.size + 32
            values |= {"size": options.size, "short_side": short_side, "stretch_to": None}
        huggingface.note_crop(values["size"], clip.size, notes)
    if options.input_range:
        old = _range(values)
        values |= _by_range(options.input_range)
        why = f"by --input_range, instead of {old}, {why}"
    elif _range(values) != "[-1, 1]":
        why += (
            ". WARNING: Scenic trained the released weights on [-1, 1], and transformers' "
            "processor rescales to that range and then normalises once more; for weights of "
            "Scenic convert with --input_range=-1,1"
        )
    notes.append(f"input range {_range(values)}, {why}")
    return Preprocessing(**values)


def _by_range(ends: tuple[float, float]) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of values in [0, 1] that lead to this range."""
    low, high = ends
    return {"mean": (-low / (high - low),) * 3, "std": (1 / (high - low),) * 3}


def _range(values: Mapping[str, Any]) -> str:
    """Values of black and white; over all channels, where they differ."""
    mean, std = np.array(values["mean"]), np.array(values["std"])
    return f"[{(-mean / std).min():.6g}, {((1 - mean) / std).max():.6g}]"
