"""How frames become a model's inputs: the `preprocessing` of a card, and normalisation.

The resize conventions of this field; with and without antialias they differ by up to 58 levels
when shrinking 2.3x:
    cv2_linear    OpenCV INTER_LINEAR, no antialias; centre crop at int(round((side - size) / 2)).
                  The original VideoMAE and VideoMAEv2 evaluation.
    mmcv_linear   the same interpolation; the longer side rounded where the others truncate it, and
                  centre crop at (side - size) // 2. The original X-CLIP (mmcv, mmaction2).
    pil_bilinear  Pillow BILINEAR, antialiased; centre crop at (side - size) // 2.
                  Hugging Face image processors (and torchvision, within one level).
    pil_bicubic   the same with BICUBIC. Hugging Face's processor of VideoPrism.
    pil_lanczos   the same with LANCZOS, and the longer side rounded where the others truncate it.
                  The original VideoPrism (mediapy).
    hf_lanczos    the same with LANCZOS, and the longer side truncated. Hugging Face's processors.
    tf_bilinear   TensorFlow's bilinear, no antialias, its fractions cut off (so half a level darker
                  in the mean); centre crop at (side - size) // 2, of several crops at
                  ceil((side - size) / 2). The original ViViT (Scenic, DMVR).

And the ways to make evaluation frames square:
    crop          the shorter side to `short_side`, then crops of `size`.
    stretch       both sides to `size`, whatever that does to the aspect; or to `stretch_to`, then
                  the centre crop. Hugging Face's VideoPrism.
    crop_first    the largest central square, resized to `size`. KerasHub.
    no_resize     the centre crop of frames as large as they are.
"""

import dataclasses
from typing import Annotated, Any

import numpy as np

from vidjax import json_files
from vidjax.errors import UserError
from vidjax.json_files import Must, Positive

RESIZES = (
    "cv2_linear",
    "mmcv_linear",
    "tf_bilinear",
    "pil_bilinear",
    "pil_bicubic",
    "pil_lanczos",
    "hf_lanczos",
)
FITS = ("crop", "stretch", "crop_first", "no_resize")
VIEW_AVERAGES = ("softmax", "logits")
SAMPLINGS = (
    "dense",
    "dense_linspace",
    "segment",
    "dense_cycle",
    "linspace",
    "linspace_exact",
)  # see vidjax.data.frames.sampling

_Length = Annotated[int, Must("from 1 to 65,536", lambda x: 1 <= x <= 2**16)]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a checkpoint, which training, evaluation and prediction share.

    Attributes:
        frames, stride, sampling: clips as in vidjax/data/sampling.py.
        size: side of the square crop, in pixels.
        short_side: what the frame's shorter side is resized to before evaluation crops; of fit
            "crop" only.
        resize: one of RESIZES, see the module.
        fit: one of FITS, see the module.
        mean, std: of RGB in [0, 1].
        temporal_views, spatial_views: the published evaluation protocol.
        view_average: "softmax" averages probabilities over the views, "logits" logits.
        views_short_side: the short_side where there are several spatial views (X-CLIP has 256 for
            one crop and 224 for three); None is the same.
        stretch_to: height and width of frames before the centre crop, of fit "stretch" only; None
            is `size` for both, which leaves nothing to crop.

    Raises:
        UserError: if a value is not one of those, or the crop does not fit the resized frame.
    """

    frames: _Length = 16
    stride: _Length = 4
    sampling: str = "dense"
    size: _Length = 224
    short_side: _Length = 224
    resize: str = "cv2_linear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    temporal_views: _Length = 5
    spatial_views: _Length = 3
    view_average: str = "softmax"
    fit: str = "crop"
    views_short_side: _Length | None = None
    stretch_to: tuple[_Length, _Length] | None = None

    def __post_init__(self):
        expected = {field.name: field.type for field in dataclasses.fields(self)}
        json_files.check(vars(self), expected, "preprocessing")
        # JSON and config files hold lists.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.stretch_to is not None:
            object.__setattr__(self, "stretch_to", tuple(self.stretch_to))
        check_choice("resize", self.resize, RESIZES)
        check_choice("fit", self.fit, FITS)
        check_choice("view_average", self.view_average, VIEW_AVERAGES)
        check_sampling(self.sampling)
        for name in ("short_side", "views_short_side"):
            side = getattr(self, name)
            if self.fit == "crop" and side is not None and self.size > side:
                raise UserError(
                    f"a crop of size {self.size} does not fit a {name} of {side}; "
                    f"set {name} to at least {self.size}"
                )
        if self.stretch_to is not None and self.size > min(self.stretch_to):
            raise UserError(
                f"a crop of size {self.size} does not fit frames stretched to {self.stretch_to}; "
                f"set both sides of stretch_to to at least {self.size}"
            )

    @classmethod
    def from_config(cls, cfg: Any) -> "Preprocessing":
        """The fields that `cfg` (the config's data block) has, and the defaults of the others."""
        names = [field.name for field in dataclasses.fields(cls) if hasattr(cfg, field.name)]
        return cls(**{name: getattr(cfg, name) for name in names})

    def normalise(self, video: Any, dtype: Any = np.float32) -> Any:
        """Returns (video / 255 - mean) / std of RGB [..., 3] in 0..255, numpy or jax.

        Computed in float32 and then given in `dtype`.
        """
        video = video.astype(np.float32) / 255
        return ((video - np.float32(self.mean)) / np.float32(self.std)).astype(dtype)


def check_views(preprocessing: Preprocessing, spatial_views: int) -> None:
    """Raises UserError if `fit` makes one square of a frame and more spatial views are asked."""
    if spatial_views != 1 and preprocessing.fit != "crop":
        raise UserError(
            f"fit {preprocessing.fit!r} makes one square of a frame, not {spatial_views} spatial "
            f"views; set the spatial views to 1, or fit to 'crop'"
        )


def check_sampling(sampling: str) -> None:
    """Raises UserError if `sampling` is not one of SAMPLINGS."""
    if sampling not in SAMPLINGS:
        raise UserError(
            f"data.sampling is {sampling!r}; choose 'dense' (exact stride), 'dense_linspace' "
            f"(VideoMAE fine-tuning), 'segment' (one frame per segment), 'dense_cycle' (ViViT), "
            f"'linspace' (the whole video, VideoPrism) or 'linspace_exact' (Hugging Face's)"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError if `value` of the field `name` is not one of `choices`."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
