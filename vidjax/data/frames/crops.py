"""Crops of training and evaluation, each with its source.

Shapes: [T, H, W, 3] in, [T, size, size, 3] out.

Sources: MCG-NJU/VideoMAE kinetics.py, video_transforms.py, transforms.py;
google-deepmind/dmvr modalities.py, processors.py; google-research/scenic dataset_lib/video_ops.py;
google-deepmind/videoprism colabs; keras-team/keras-hub video_prism_image_converter.py;
microsoft/VideoX X-CLIP/datasets/pipeline.py.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidjax.data.frames.resize import resize, resize_short_side
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

JITTER = (0.9, 1.33)  # factors of height and width in every recipe of ViViT


def central_square(frames: np.ndarray, facts: Preprocessing) -> np.ndarray:
    """Returns the centre square [T, size, size, 3] of evaluation frames, as facts.fit makes it."""
    return center_crop(fit_frames(frames, facts), facts.size, facts.resize)


def fit_frames(frames: np.ndarray, facts: Preprocessing) -> np.ndarray:
    """Returns frames as facts.fit makes them before the centre crop; doing it twice is as once."""
    size, (height, width) = facts.size, frames.shape[1:3]
    match facts.fit:
        case "stretch":
            return resize(frames, *(facts.stretch_to or (size, size)), facts.resize)
        case "no_resize":
            if min(height, width) < size:
                raise UserError(
                    f"frames of {height}x{width} pixels are smaller than the crop of {size}, and "
                    f"fit 'no_resize' takes them as they are; enlarge the video"
                )
            return frames
        case "crop_first":
            side = min(height, width)
            box = (height - side) // 2, (width - side) // 2, side, side
            return _square(frames, box, size, facts.resize)
        case _:
            return resize_short_side(frames, facts.short_side, facts.resize)


def center_crop(frames: np.ndarray, size: int, convention: str) -> np.ndarray:
    """Returns the central [T, size, size, 3]; an odd margin is halved as the convention does."""
    top, left = (_center(side, size, convention) for side in frames.shape[1:3])
    return frames[:, top : top + size, left : left + size]


def spatial_crops(
    frames: np.ndarray, size: int, views: int = 3, convention: str = "cv2_linear"
) -> np.ndarray:
    """Returns crops [views, T, size, size, 3] evenly along the longer side, centred on the other.

    They start at k * step for step = (longer side - size) / (views - 1), truncated in VideoMAE
    (kinetics.py, test mode), and rounded up by "tf_bilinear", as is the centre of the other side
    (Scenic's three_spatial_crops). By "mmcv_linear" the step itself is truncated, so that the last
    crop may end before the frame does (mmaction2's ThreeCrop, whose order is first, last, middle).
    Of a square, VideoMAE takes crops along the height and Scenic along the width.
    """
    height, width = frames.shape[1:3]
    room, across = max(height, width) - size, min(height, width) - size
    gaps, upright = views - 1, height >= width
    match convention:
        case "tf_bilinear":
            starts = [-(-view * room // gaps) for view in range(views)]
            across, upright = -(-across // 2), height > width
        case "mmcv_linear":
            starts, across = [view * (room // gaps) for view in range(views)], across // 2
        case _:
            starts = [int(view * (room / gaps)) for view in range(views)]
            across = _center(across + size, size, "cv2_linear")
    crops = []
    for along in starts:
        top, left = (along, across) if upright else (across, along)
        crops.append(frames[:, top : top + size, left : left + size])
    return np.stack(crops)


# Places of a crop, in quarters of its room: the corners and the centre; and with the middles of
# the sides and the four points between.
_CORNERS = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
_GRID = [(row, column) for row in range(5) for column in range(5) if row % 2 == column % 2]


def multi_scale_crop(
    height: int,
    width: int,
    size: int,
    rng: np.random.Generator,
    places: Sequence[tuple[int, int]] = _GRID,
) -> tuple[int, int, int, int]:
    """Draws a box (top, left, height, width) of VideoMAE's pre-training (GroupMultiScaleCrop).

    Height and width are {1, .875, .75, .66} of the shorter side, at most one scale apart; within
    2 pixels of `size` they become `size` (where it fits). The place is one of 13 on a grid, or of
    those that `places` names in quarters of the room; X-CLIP's (mmaction2's MultiScaleCrop) are 5.
    """
    base = min(height, width)
    sides = [int(base * scale) for scale in (1, 0.875, 0.75, 0.66)]
    sides = [size if abs(side - size) < 3 and size <= base else side for side in sides]
    shapes = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_height, crop_width = shapes[rng.integers(len(shapes))]
    row, column = places[rng.integers(len(places))]
    top = row * ((height - crop_height) // 4)
    left = column * ((width - crop_width) // 4)
    return top, left, crop_height, crop_width


def random_resized_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draws a box (top, left, height, width) of random area and log-uniform width / height.

    After ten boxes that do not fit, the largest centred one within the ratio (Inception's crop,
    VideoMAE video_transforms.py).
    """
    for _ in range(10):
        target = rng.uniform(*area) * height * width
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        crop_width = round(np.sqrt(target * aspect))
        crop_height = round(np.sqrt(target / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width = min(width, round(height * ratio[1]))
    crop_height = min(height, round(width / ratio[0]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def scale_jitter(
    height: int, width: int, short_side: int, size: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws ViViT's training crop: (height, width) to resize to, and (top, left) of it in that.

    The shorter side becomes `short_side`, then height and width are stretched by factors of their
    own, uniform in [0.9, 1.33], and the crop lies anywhere (DMVR resize_smallest,
    scale_jitter_augm, crop_image). The reference resizes and truncates twice; this is one resize.
    """
    short = min(height, width)
    height, width = (
        int(rng.uniform(*JITTER) * (side * short_side // short)) for side in (height, width)
    )
    top, left = (int(rng.integers(0, side - size + 1)) for side in (height, width))
    return height, width, top, left


def _multi_scale(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    box = multi_scale_crop(*frames.shape[1:3], cfg.size, rng)
    return _square(frames, box, cfg.size, "pil_bilinear")


def _corner(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    # Two resizes, as in the reference: one alone would be sharper.
    frames = resize_short_side(frames, cfg.short_side, cfg.resize)
    box = multi_scale_crop(*frames.shape[1:3], cfg.size, rng, _CORNERS)
    return _square(frames, box, cfg.size, cfg.resize)


def _random_resized(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    # The reference resizes normalised floats, without antialias and at the same sample points;
    # on uint8 that costs a rounding of less than one level and saves the float copy.
    box = random_resized_crop(*frames.shape[1:3], rng)
    return _square(frames, box, cfg.size, "cv2_linear")


def _centered(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    return central_square(frames, Preprocessing.from_config(cfg))


def _scale_jittered(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    height, width, top, left = scale_jitter(*frames.shape[1:3], cfg.short_side, cfg.size, rng)
    return _crop(resize(frames, height, width, cfg.resize), (top, left, cfg.size, cfg.size))


def _square(
    frames: np.ndarray, box: tuple[int, int, int, int], size: int, convention: str
) -> np.ndarray:
    return resize(_crop(frames, box), size, size, convention)


def _crop(frames: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = box
    return frames[:, top : top + height, left : left + width]


def _center(side: int, size: int, convention: str) -> int:
    return round((side - size) / 2) if convention == "cv2_linear" else (side - size) // 2


# By the name of config.data.augment: functions of (frames, rng, the config's data block).
TRAINING = {
    "multi_scale_crop": _multi_scale,
    "corner_crop": _corner,
    "random_resized_crop": _random_resized,
    "scale_jitter": _scale_jittered,
    "center_crop": _centered,
}
# Of those that begin by resizing, whatever is drawn: that step, which changes no more when it is
# done again, as functions from the config's data block to one of frames.
FIXED = {
    "corner_crop": lambda cfg: functools.partial(
        resize_short_side, short_side=cfg.short_side, convention=cfg.resize
    ),
    "center_crop": lambda cfg: functools.partial(fit_frames, facts=Preprocessing.from_config(cfg)),
}
