"""Published VideoPrism checkpoints, and what they have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters import Options, processors
from converters.formats import VIDEO_PREPROCESSOR, Source


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: what it is, and where its npz file is on the Hugging Face hub."""

    what: str
    hub: str
    file: str


CHECKPOINTS = {  # by the original's name, which is KerasHub's preset's, too
    "videoprism_public_v1_base": Checkpoint(
        "VideoPrism-B", "google/videoprism-base-f16r288", "flax_base_f16r288_repeated.npz"
    ),
    "videoprism_public_v1_large": Checkpoint(
        "VideoPrism-L", "google/videoprism-large-f8r288", "flax_large_f8r288_repeated.npz"
    ),
    "videoprism_lvt_public_v1_base": Checkpoint(
        "VideoPrism-LvT-B",
        "google/videoprism-lvt-base-f16r288",
        "flax_lvt_base_f16r288_repeated.npz",
    ),
    "videoprism_lvt_public_v1_large": Checkpoint(
        "VideoPrism-LvT-L",
        "google/videoprism-lvt-large-f8r288",
        "flax_lvt_large_f8r288_repeated.npz",
    ),
}
_KAGGLE = "kaggle://keras/videoprism/keras/"
HUB_FILES = {
    alias: f"{entry.hub}/{entry.file}"
    for name, entry in CHECKPOINTS.items()
    for alias in (name, _KAGGLE + name, f"{_KAGGLE}{name}/1")
}
PROCESSORS = processors.Family(
    image="LlavaOnevisionVideoProcessor",
    video="LlavaOnevisionVideoProcessor",
    videos_first=True,
    new=(VIDEO_PREPROCESSOR, "LlavaOnevisionVideoProcessor"),
)
HEADS = {768: 12, 1024: 16, 1408: 16}  # by width
EPS, SOFTCAP = 1e-6, 50.0  # of every release
TEXT_LENGTH = 64  # tokens
TEXTS = ("text", "video_text")  # heads with a text tower
FRAMES, SIZE = 16, 288  # what a text tower's card says of video


def note(source: Source, options: Options, notes: list[str]) -> None:
    """Notes which published checkpoint the source is, if its name tells."""
    for name, entry in CHECKPOINTS.items():
        if options.hub_id in (name, entry.hub) or source.files[0].name == entry.file:
            notes.append(f"published as {entry.what} ({name})")


def pool_dim(model: Mapping[str, Any]) -> int | None:
    """Returns the pooler's width; None for a model without a pooler."""
    factors = {"classify": 1, "video": 4, "video_text": 4}
    default = factors.get(model["head"], 0) * model["width"]
    return model.get("pool_dim") or default or None


def text_sizes(model: Mapping[str, Any]) -> tuple[int, int]:
    """Returns heads and MLP width of a model's text tower."""
    mlp_dim = model["text_mlp_dim"] or 4 * model["width"]
    return model["text_num_heads"] or model["num_heads"], mlp_dim
