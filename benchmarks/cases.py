"""Models that are measured beside other projects: fields of vidjax and of transformers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Sizes by their names in vidjax and in transformers.
_HF_NAMES = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
    "temporal_depth": "num_temporal_layers",
}
_HF_NAMES |= {f"decoder_{ours}": f"decoder_{theirs}" for ours, theirs in _HF_NAMES.items()}
_TINY = {"width": 48, "depth": 2, "num_heads": 4, "mlp_dim": 96}
_TINY_PRISM = _TINY | {"temporal_depth": 1}
_TINY_DECODER = {
    "decoder_width": 32,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
    "decoder_mlp_dim": 64,
}
_TINY_XCLIP = _TINY | {
    "embed_dim": 64,
    "text_width": 64,
    "text_depth": 2,
    "text_num_heads": 4,
    "text_mlp_dim": 96,
    "mit_num_heads": 2,
    "mit_mlp_dim": 96,
}


def hf_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns sizes by their names in transformers."""
    return {_HF_NAMES[name]: size for name, size in sizes.items()}


_TINY_HF_FRAMES = {"image_size": 32, "num_frames": 4}
_TINY_HF_XCLIP = {
    "vision_config": {
        **hf_sizes(_TINY),
        **_TINY_HF_FRAMES,
        "patch_size": 16,
        "mit_hidden_size": 64,
        "mit_intermediate_size": 96,
        "mit_num_attention_heads": 2,
    },
    "text_config": hf_sizes({"width": 64, "mlp_dim": 96, "depth": 2, "num_heads": 4}),
    "projection_dim": 64,
}
_TINY_HF_JEPA = {
    "crop_size": 32,
    "frames_per_clip": 4,
    "pred_hidden_size": 48,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 4,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        hf: its class in transformers.
        hf_config: class of its configuration there, and values other than the default ones.
        ours: keywords of `vidjax.models.build`; None while vidjax has no such model.
        clip: frames, height and width.
        tiny, tiny_hf, tiny_clip: changes of the sizes (`ours`), of hf_config's values, and the clip
            of a quick run.
    """

    hf: str
    hf_config: tuple[str, Mapping[str, Any]]
    ours: Mapping[str, Any] | None
    clip: tuple[int, int, int] = (16, 224, 224)
    tiny: Mapping[str, int] = dataclasses.field(default_factory=lambda: _TINY)
    tiny_hf: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: hf_sizes(_TINY) | _TINY_HF_FRAMES
    )
    tiny_clip: tuple[int, int, int] = (4, 32, 32)

    @property
    def pretraining(self) -> bool:
        return self.hf.endswith("PreTraining")

    @property
    def attention(self) -> str:
        """Fastest attention that transformers has for this model."""
        return "eager" if "VideoPrism" in self.hf else "sdpa"

    def quick(self) -> "Case":
        name, values = self.hf_config
        return dataclasses.replace(
            self,
            hf_config=(name, {**values, **self.tiny_hf}),
            ours=self.ours and {**self.ours, **self.tiny},
            clip=self.tiny_clip,
        )


_CLASSIFY = {"head": "classify", "num_classes": 400, "eps": 1e-12}
_LARGE = hf_sizes({"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096})
CASES = {
    "VideoMAE-B": Case(
        "VideoMAEForVideoClassification",
        ("VideoMAEConfig", {"num_labels": 400}),
        {"name": "videomae", "variant": "B", **_CLASSIFY},
    ),
    "VideoMAE-L": Case(
        "VideoMAEForVideoClassification",
        ("VideoMAEConfig", {**_LARGE, "num_labels": 400}),
        {"name": "videomae", "variant": "L", **_CLASSIFY},
    ),
    "VideoMAE-B pre-training": Case(
        "VideoMAEForPreTraining",
        ("VideoMAEConfig", {"use_mean_pooling": False}),
        {"name": "videomae", "variant": "B", "head": "reconstruct", "eps": 1e-12},
        tiny=_TINY | _TINY_DECODER,
        tiny_hf=hf_sizes(_TINY | _TINY_DECODER) | _TINY_HF_FRAMES,
    ),
    "ViViT-B": Case(
        "VivitForVideoClassification",
        ("VivitConfig", {"num_labels": 400}),
        {"name": "vivit", "variant": "B", "patch_size": (2, 16, 16), **_CLASSIFY, "eps": 1e-6},
        clip=(32, 224, 224),
    ),
    "X-CLIP-B/16": Case(
        "XCLIPModel",
        ("XCLIPConfig", {"vision_config": {"patch_size": 16, "num_frames": 8}}),
        {"name": "xclip", "variant": "B/16", "head": "video_text", "eps": 1e-5},
        clip=(8, 224, 224),
        tiny=_TINY_XCLIP,
        tiny_hf=_TINY_HF_XCLIP,
    ),
    "VideoPrism-B": Case(
        "VideoPrismVisionModel",
        ("VideoPrismVisionConfig", {}),
        {"name": "videoprism", "variant": "B", "eps": 1e-6, "patch_size": (1, 18, 18)},
        clip=(16, 288, 288),
        tiny=_TINY_PRISM,
        tiny_hf={
            **hf_sizes(_TINY_PRISM),
            "num_spatial_layers": _TINY_PRISM["depth"],
            "image_size": 36,
            "num_frames": 4,
        },
        tiny_clip=(4, 36, 36),
    ),
    "V-JEPA 2-L": Case(
        "VJEPA2Model",
        ("VJEPA2Config", {**_LARGE, "frames_per_clip": 64, "crop_size": 256}),
        None,
        clip=(64, 256, 256),
        tiny_hf=hf_sizes(_TINY) | _TINY_HF_JEPA,
    ),
}


def case_of(name: str, quick: bool) -> Case:
    """Returns the model of a name, or a tiny one like it."""
    return CASES[name].quick() if quick else CASES[name]
