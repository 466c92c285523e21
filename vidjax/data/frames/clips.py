"""Clips of decoded frames, on the host: crops, flip, RandAugment. All uint8.

Shapes: T frames, S views or the crop's side, [T, H, W, 3] RGB in, [T, size, size, 3] out.
Every box and every operation is drawn once per clip, so that motion stays motion.

Random erasing, colour jitter, mixup and normalisation follow in vidjax.augment, on the device: the
references do them after crop and flip.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from vidjax.data.frames import crops, randaugment, scenic_randaugment
from vidjax.data.frames.resize import resize_short_side
from vidjax.data.frames.sampling import view_indices
from vidjax.data.reading.video import read_frames
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing, check_choice, check_views

_EXPECTED = "expected integers from 0 to 255 as [frames, height, width, 3] in RGB"


def check_training(cfg: Any) -> None:
    """Raises UserError if cfg.augment or cfg.rand_augment cannot be understood or done."""
    check_choice("augment", cfg.augment, tuple(crops.TRAINING))
    if cfg.rand_augment:
        parse = scenic_randaugment.parse if _is_scenic(cfg.rand_augment) else randaugment.parse
        parse(cfg.rand_augment)
    least = crops.JITTER[0]
    if cfg.augment == "scale_jitter" and int(least * cfg.short_side) < cfg.size:
        raise UserError(
            f"scale_jitter shrinks a short_side of {cfg.short_side} to {least:g} of it, where a "
            f"crop of size {cfg.size} does not fit; set data.short_side to at least "
            f"{int(np.ceil(cfg.size / least))}"
        )


def train_clip(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    """Makes an augmented clip [T, size, size, 3] of frames [T, H, W, 3], in the reference's order.

    `cfg` is the config's data block: rand_augment, augment, flip, size, short_side, resize, and
    fit (of augment "center_crop" only); see check_training. VideoMAE's RandAugment sees whole
    frames, Scenic's the flipped crop.
    """
    scenic = _is_scenic(cfg.rand_augment)
    if cfg.rand_augment and not scenic:
        frames = randaugment.rand_augment(frames, rng, cfg.rand_augment)
    clip = crops.TRAINING[cfg.augment](frames, rng, cfg)
    if rng.random() < cfg.flip:
        clip = clip[:, :, ::-1]
    clip = np.ascontiguousarray(clip)
    if scenic:
        clip = scenic_randaugment.rand_augment(clip, rng, cfg.rand_augment)
    return clip


def fixed_step(cfg: Any) -> tuple[Callable[[np.ndarray], np.ndarray] | None, dict[str, Any]]:
    """Returns how train_clip begins, whatever is drawn, if that is a step to be done beforehand.

    Returns:
        A function from frames [T, H, W, 3] to resized ones, of which train_clip makes the same
        clips, and the values of `cfg` that it depends on; (None, {}) if there is no such step.
    """
    sees_frames = cfg.rand_augment and not _is_scenic(cfg.rand_augment)
    if sees_frames or cfg.augment not in crops.FIXED:
        return None, {}
    keys = ("augment", "size", "short_side", "resize", "fit", "stretch_to")
    return crops.FIXED[cfg.augment](cfg), {key: getattr(cfg, key, None) for key in keys}


def eval_views(
    frames: np.ndarray, preprocessing: Preprocessing, spatial_views: int = 1
) -> np.ndarray:
    """Returns crops [spatial_views, T, size, size, 3]: the centre, or evenly along the long side.

    Raises UserError as check_views does.
    """
    facts, size = preprocessing, preprocessing.size
    check_views(facts, spatial_views)
    if spatial_views == 1:
        return crops.central_square(frames, facts)[None]
    frames = resize_short_side(frames, facts.views_short_side or facts.short_side, facts.resize)
    return crops.spatial_crops(frames, size, spatial_views, facts.resize)


def prepare(
    source: str | os.PathLike | Any,
    preprocessing: Preprocessing,
    views: tuple[int, int] = (1, 1),
    *,
    verdict: str | None = None,
    num_frames: int | None = None,
    reader: str = "pyav",
) -> np.ndarray:
    """Returns the clips of one video, uint8 [temporal * spatial, T, size, size, 3].

    Temporal views vary slowest.

    Args:
        source: path of a video, or the whole video as `video_array` takes it.
        preprocessing: of the checkpoint.
        views: (temporal, spatial); (1, 1) is the middle clip and the centre crop.
        verdict, num_frames, reader: as of vidjax.data.reading.video.read_frames.

    Raises:
        VideoError: if the video cannot be read.
        UserError: if `source` is an array of something else.
    """
    temporal, spatial = views
    position = np.zeros((temporal, 0), np.int64)

    def sample(n: int) -> np.ndarray:
        # Views overlap: decode each frame once, then gather.
        nonlocal position
        facts = preprocessing
        indices = view_indices(facts.sampling, n, facts.frames, facts.stride, temporal)
        unique, inverse = np.unique(indices, return_inverse=True)
        position = inverse.reshape(indices.shape)
        return unique

    if not isinstance(source, str | os.PathLike):
        source = video_array(source)
        squares = eval_views(source[sample(len(source))], preprocessing, spatial).swapaxes(0, 1)
    else:
        squares, _ = read_frames(
            source,
            sample,
            verdict=verdict,
            num_frames=num_frames,
            reader=reader,
            # As they arrive: the frames of all views of a 4K video are gigabytes.
            each=lambda picture: eval_views(picture[None], preprocessing, spatial)[:, 0],
        )
    clips = squares[position].swapaxes(1, 2)  # [temporal, spatial, T, size, size, 3]
    return clips.reshape(-1, *clips.shape[2:])


def video_array(video: Any) -> np.ndarray:
    """Returns a video in memory as uint8 [N, H, W, 3] in RGB.

    Args:
        video: an array of any library, [N, H, W, 3] or [N, 3, H, W], of integers from 0 to 255; or
            a list of frames, each such an array without N or a PIL image.

    Raises:
        UserError: anything else, and floats, whose range nothing tells.
    """
    array = as_array(video)
    if array.ndim == 4 and array.shape[1] == 3 != array.shape[3]:
        array = np.moveaxis(array, 1, 3)
    what = f"{array.dtype} {list(array.shape)}"
    if array.ndim != 4 or array.shape[3] != 3 or not array.size:
        fixes = {
            1: "repeat a grey channel, numpy.repeat(video, 3, 3)",
            4: "drop alpha, video[..., :3]",
        }
        fix = fixes.get(array.shape[-1] if array.ndim == 4 else 0, "reorder or add its axes")
        raise UserError(f"a video array is {what}; {_EXPECTED}: {fix}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise UserError(
            f"a video array is {what}, of values that are no bytes; {_EXPECTED}: floats from 0 "
            "to 1 become such by (255 * video).round().astype(numpy.uint8)"
        )
    return array.astype(np.uint8)


def as_array(video: Any) -> np.ndarray:
    """Returns an array of any library, or a list of frames or images, as one of numpy.

    Raises:
        UserError: it cannot be one.
    """

    def array_of(x: Any) -> np.ndarray:
        x = x.convert("RGB") if isinstance(x, Image.Image) else x
        return np.asarray(x.asnumpy() if hasattr(x, "asnumpy") else x)  # decord's arrays

    try:
        is_list = isinstance(video, list | tuple)
        return np.stack([array_of(x) for x in video]) if is_list else array_of(video)
    except (TypeError, ValueError, RuntimeError) as error:  # of another device, of several sizes
        reason = " ".join(str(error).split())
        raise UserError(
            f"a {type(video).__name__} is no video array ({reason}); {_EXPECTED}: convert it with "
            "numpy.stack or numpy.asarray"
        ) from None


def _is_scenic(policy: str) -> bool:
    return policy.startswith("scenic")
