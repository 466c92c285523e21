"""What happens to decoded frames on the host: resize, crops, flip, RandAugment. All uint8.

Shapes: T frames, S views or the crop's side, [T, H, W, 3] RGB in, [T, size, size, 3] out.
Every box and every operation is drawn once per clip, so that motion stays motion.

Resize conventions and the ways to make evaluation frames square: see `vidjax.preprocessing`.

Sources: MCG-NJU/VideoMAE kinetics.py, video_transforms.py, transforms.py, rand_augment.py;
timm/data/auto_augment.py; google-deepmind/dmvr modalities.py, processors.py;
google-research/scenic dataset_lib/video_ops.py; google-deepmind/videoprism colabs;
keras-team/keras-hub video_prism_image_converter.py; microsoft/VideoX X-CLIP/datasets/pipeline.py.
Random erasing, colour jitter, mixup and normalisation follow in augment.py, on the device: the
references do them after crop and flip.
"""

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vidjax.data.frames import scenic_randaugment
from vidjax.data.frames.sampling import view_indices
from vidjax.data.reading.video import read_frames
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing, check_choice, check_views

_PIL_FILTERS = {
    "pil_bilinear": Image.Resampling.BILINEAR,
    "pil_bicubic": Image.Resampling.BICUBIC,
    "pil_lanczos": Image.Resampling.LANCZOS,
    "hf_lanczos": Image.Resampling.LANCZOS,
}
_JITTER = (0.9, 1.33)  # factors of height and width in every recipe of ViViT
_FILL = (128, 128, 128)  # of what RandAugment's geometric operations uncover
_RANDAUGMENT_OPS = (
    *("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd"),
    *("Color", "Contrast", "Brightness", "Sharpness"),
    *("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"),
)


def check_training(cfg: Any) -> None:
    """Raises UserError if cfg.augment or cfg.rand_augment cannot be understood or done."""
    check_choice("augment", cfg.augment, tuple(_CROPS))
    if cfg.rand_augment:
        parse = scenic_randaugment.parse if _is_scenic(cfg.rand_augment) else _parse_policy
        parse(cfg.rand_augment)
    if cfg.augment == "scale_jitter" and int(_JITTER[0] * cfg.short_side) < cfg.size:
        raise UserError(
            f"scale_jitter shrinks a short_side of {cfg.short_side} to {_JITTER[0]:g} of it, where "
            f"a crop of size {cfg.size} does not fit; set data.short_side to at least "
            f"{int(np.ceil(cfg.size / _JITTER[0]))}"
        )


def train_clip(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    """One augmented clip [T, size, size, 3] of frames [T, H, W, 3], in the reference's order.

    `cfg` is the config's data block: rand_augment, augment, flip, size, short_side, resize, and
    fit (of augment "center_crop" only); see check_training. VideoMAE's RandAugment sees whole
    frames, Scenic's the flipped crop.
    """
    scenic = _is_scenic(cfg.rand_augment)
    if cfg.rand_augment and not scenic:
        frames = rand_augment(frames, rng, cfg.rand_augment)
    clip = _CROPS[cfg.augment](frames, rng, cfg)
    if rng.random() < cfg.flip:
        clip = clip[:, :, ::-1]
    clip = np.ascontiguousarray(clip)
    if scenic:
        clip = scenic_randaugment.rand_augment(clip, rng, cfg.rand_augment)
    return clip


def eval_views(
    frames: np.ndarray, preprocessing: Preprocessing, spatial_views: int = 1
) -> np.ndarray:
    """Spatial crops [spatial_views, T, size, size, 3]: the centre one, or evenly along the side.

    Raises UserError as check_views does.
    """
    facts, size = preprocessing, preprocessing.size
    check_views(facts, spatial_views)
    if spatial_views == 1:
        return _central(frames, facts)[None]
    frames = resize_short_side(frames, facts.views_short_side or facts.short_side, facts.resize)
    return spatial_crops(frames, size, spatial_views, facts.resize)


def prepare(
    source: str | os.PathLike | Any,
    preprocessing: Preprocessing,
    views: tuple[int, int] = (1, 1),
    *,
    verdict: str | None = None,
    num_frames: int | None = None,
    reader: str = "pyav",
) -> np.ndarray:
    """Clips uint8 [temporal * spatial, T, size, size, 3] of one video; temporal views vary slowest.

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
        crops = eval_views(source[sample(len(source))], preprocessing, spatial).swapaxes(0, 1)
    else:
        crops, _ = read_frames(
            source,
            sample,
            verdict=verdict,
            num_frames=num_frames,
            reader=reader,
            # As they arrive: the frames of all views of a 4K video are gigabytes.
            each=lambda picture: eval_views(picture[None], preprocessing, spatial)[:, 0],
        )
    clips = crops[position].swapaxes(1, 2)  # [temporal, spatial, T, size, size, 3]
    return clips.reshape(-1, *clips.shape[2:])


def video_array(video: Any) -> np.ndarray:
    """Returns a video in memory as uint8 [N, H, W, 3] in RGB.

    Args:
        video: an array of any library, [N, H, W, 3] or [N, 3, H, W], of integers from 0 to 255; or
            a list of frames, each such an array without N or a PIL image.

    Raises:
        UserError: anything else, and floats, whose range nothing tells.
    """
    expected = "expected integers from 0 to 255 as [frames, height, width, 3] in RGB"
    try:
        if isinstance(video, list | tuple):
            images = [x.convert("RGB") if isinstance(x, Image.Image) else x for x in video]
            video = np.stack([np.asarray(x) for x in images])
        array = np.asarray(video)
    except (TypeError, ValueError, RuntimeError) as error:  # of another device, of several sizes
        reason = " ".join(str(error).split())
        raise UserError(
            f"a {type(video).__name__} is no video array ({reason}); {expected}: convert it with "
            "numpy.stack or numpy.asarray"
        ) from None
    if array.ndim == 4 and array.shape[1] == 3 != array.shape[3]:
        array = np.moveaxis(array, 1, 3)
    what = f"{array.dtype} {list(array.shape)}"
    if array.ndim != 4 or array.shape[3] != 3 or not array.size:
        fixes = {
            1: "repeat a grey channel, numpy.repeat(video, 3, 3)",
            4: "drop alpha, video[..., :3]",
        }
        fix = fixes.get(array.shape[-1] if array.ndim == 4 else 0, "reorder or add its axes")
        raise UserError(f"a video array is {what}; {expected}: {fix}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise UserError(
            f"a video array is {what}, of values that are no bytes; {expected}: floats from 0 to 1 "
            "become such by (255 * video).round().astype(numpy.uint8)"
        )
    return array.astype(np.uint8)


def resize(frames: np.ndarray, height: int, width: int, convention: str) -> np.ndarray:
    """Frames [T, H, W, 3] (rows may be strided, as in a crop) -> [T, height, width, 3]."""
    if frames.shape[1:3] == (height, width):
        return frames
    out = np.empty((len(frames), height, width, 3), np.uint8)
    for frame, target in zip(frames, out, strict=True):
        if convention in ("cv2_linear", "mmcv_linear"):
            cv2.resize(frame, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
        elif convention == "tf_bilinear":
            # In float32, as OpenCV rounds uint8. Weights may sum to a little less than 1,
            # which would cut a whole level off flat regions.
            exact = cv2.resize(frame.astype(np.float32), (width, height))
            target[:] = np.minimum(exact + 1e-4, 255)
        else:
            image = Image.fromarray(np.ascontiguousarray(frame))
            target[:] = image.resize((width, height), _PIL_FILTERS[convention])
    return out


def resize_short_side(frames: np.ndarray, short_side: int, convention: str) -> np.ndarray:
    """Scales the shorter side to `short_side` and the longer in proportion, as an int.

    It is truncated, and in "mmcv_linear" and "pil_lanczos" rounded.
    """
    height, width = frames.shape[1:3]
    short, long = sorted((height, width))
    match convention:
        case "mmcv_linear":  # halves go up, as mmcv.rescale_size has it
            long = int(long * (short_side / short) + 0.5)
        case "pil_lanczos":
            long = round(short_side * long / short)
        case _:
            long = int(short_side * long / short)
    if height < width:
        return resize(frames, short_side, long, convention)
    return resize(frames, long, short_side, convention)


def center_crop(frames: np.ndarray, size: int, convention: str) -> np.ndarray:
    """The central [T, size, size, 3]; an odd margin is halved as the convention does."""
    top, left = (_center(side, size, convention) for side in frames.shape[1:3])
    return frames[:, top : top + size, left : left + size]


def spatial_crops(
    frames: np.ndarray, size: int, views: int = 3, convention: str = "cv2_linear"
) -> np.ndarray:
    """Crops [views, T, size, size, 3] evenly along the longer side, centred on the other.

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
    """A box (top, left, height, width) of VideoMAE's pre-training (GroupMultiScaleCrop of TSN).

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
    """A box (top, left, height, width) of random area and log-uniform width / height.

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
    """ViViT's training crop: (height, width) to resize to, and (top, left) of the crop in that.

    The shorter side becomes `short_side`, then height and width are stretched by factors of their
    own, uniform in [0.9, 1.33], and the crop lies anywhere (DMVR resize_smallest,
    scale_jitter_augm, crop_image). The reference resizes and truncates twice; this is one resize.
    """
    short = min(height, width)
    height, width = (
        int(rng.uniform(*_JITTER) * (side * short_side // short)) for side in (height, width)
    )
    top, left = (int(rng.integers(0, side - size + 1)) for side in (height, width))
    return height, width, top, left


def rand_augment(frames: np.ndarray, rng: np.random.Generator, policy: str) -> np.ndarray:
    """RandAugment with the same operations and magnitudes on all frames [T, H, W, 3].

    `policy` is timm's notation, e.g. "rand-m7-n4-mstd0.5-inc1": n draws with replacement from the
    15 operations that grow stronger with the magnitude, each applied with probability 1/2, with
    magnitude N(m, mstd) clipped to [0, 10] and a random direction. Uncovered pixels become 128.

    Raises:
        UserError: if the policy cannot be understood.
    """
    magnitude, num_ops, std = _parse_policy(policy)
    for name in rng.choice(_RANDAUGMENT_OPS, num_ops):
        apply, sign, noise = rng.random() < 0.5, rng.choice((-1, 1)), rng.normal()
        if apply:
            level = float(np.clip(magnitude + std * noise, 0, 10)) / 10
            frames = randaugment_op(name, frames, level, sign)
    return frames


def randaugment_op(name: str, frames: np.ndarray, level: float, sign: int) -> np.ndarray:
    """One operation on frames [T, H, W, 3] at a level in [0, 1]; `sign` is its direction.

    Values are exactly Pillow's but for the geometric five, which OpenCV interpolates three times
    as fast: the two bicubics differ by 0.5 levels in the mean of a real video, by 5 in 1% of it.
    """
    values, signed = np.arange(256), sign * level
    height, width = frames.shape[1:3]
    match name:
        case "AutoContrast":
            return _each(frames, ImageOps.autocontrast)
        case "Equalize":
            return _each(frames, ImageOps.equalize)
        case "Color" | "Sharpness":
            enhancer = getattr(ImageEnhance, name)
            return _each(frames, lambda image: enhancer(image).enhance(1 + 0.9 * signed))
        case "Brightness":
            return _look_up(frames, _away_from(0, 1 + 0.9 * signed))
        case "Contrast":  # each frame has a mean of its own
            means = [int(np.mean(Image.fromarray(frame).convert("L")) + 0.5) for frame in frames]
            tables = [_away_from(mean, 1 + 0.9 * signed) for mean in means]
            return np.stack([cv2.LUT(*pair) for pair in zip(frames, tables, strict=True)])
        case "Invert":
            return _look_up(frames, 255 - values)
        case "Posterize":  # keeps 4 bits at level 0, none at level 1
            return _look_up(frames, values & -(1 << 4 + int(4 * level)))
        case "Solarize":
            return _look_up(frames, np.where(values < 256 - int(256 * level), values, 255 - values))
        case "SolarizeAdd":
            added = np.minimum(values + int(110 * level), 255)
            return _look_up(frames, np.where(values < 128, added, values))
        case "Rotate":  # about the centre, counter-clockwise
            angle = np.radians(30 * signed)
            cos, sin = np.cos(angle), np.sin(angle)
            x, y = width / 2, height / 2
            return _affine(
                frames, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
            )
        case "ShearX":
            return _affine(frames, 1, 0.3 * signed, 0, 0, 1, 0)
        case "ShearY":
            return _affine(frames, 1, 0, 0, 0.3 * signed, 1, 0)
        case "TranslateX":
            return _affine(frames, 1, 0, 0.45 * signed * width, 0, 1, 0)
        case "TranslateY":
            return _affine(frames, 1, 0, 0, 0, 1, 0.45 * signed * height)
    raise ValueError(f"{name} is no RandAugment operation")


def _each(frames: np.ndarray, operation: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(operation(Image.fromarray(frame))) for frame in frames])


def _look_up(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    flat = frames.reshape(-1, *frames.shape[2:])  # OpenCV takes one image
    return cv2.LUT(flat, table.astype(np.uint8)).reshape(frames.shape)


def _away_from(level: int, factor: float) -> np.ndarray:
    """What Pillow's enhancers make of the values 0 to 255 before a picture of one level."""
    values = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return np.asarray(Image.blend(Image.new("L", values.size, level), values, factor))[0]


def _affine(
    frames: np.ndarray, a: float, b: float, c: float, d: float, e: float, f: float
) -> np.ndarray:
    """Output (x, y) is input (ax + by + c, dx + ey + f), as in Pillow: pixel centres at 1/2."""
    height, width = frames.shape[1:3]
    matrix = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.stack(
        [
            cv2.warpAffine(
                frame,
                matrix,
                (width, height),
                flags=flags,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=_FILL,
            )
            for frame in frames
        ]
    )


@functools.cache
def _parse_policy(policy: str) -> tuple[float, int, float]:
    match = re.fullmatch(r"rand-m(\d+)-n(\d+)(?:-mstd(\d+(?:\.\d+)?))?-inc1", policy)
    if not match:
        raise UserError(
            f"data.rand_augment is {policy!r}; expected '' for none or something like "
            f"'rand-m7-n4-mstd0.5-inc1' (magnitude, operations, spread, increasing set) or "
            f"'scenic-n2-m20' (operations, magnitude)"
        )
    return float(match[1]), int(match[2]), float(match[3] or 0)


def _multi_scale(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    box = multi_scale_crop(*frames.shape[1:3], cfg.size, rng)
    return resize(_crop(frames, box), cfg.size, cfg.size, "pil_bilinear")


def _corner(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    # Two resizes, as in the reference: one alone would be sharper.
    frames = resize_short_side(frames, cfg.short_side, cfg.resize)
    box = multi_scale_crop(*frames.shape[1:3], cfg.size, rng, _CORNERS)
    return resize(_crop(frames, box), cfg.size, cfg.size, cfg.resize)


def _random_resized(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    # The reference resizes normalised floats, without antialias and at the same sample points;
    # on uint8 that costs a rounding of less than one level and saves the float copy.
    box = random_resized_crop(*frames.shape[1:3], rng)
    return resize(_crop(frames, box), cfg.size, cfg.size, "cv2_linear")


def _centered(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    return _central(frames, Preprocessing.from_config(cfg))


def _scale_jittered(frames: np.ndarray, rng: np.random.Generator, cfg: Any) -> np.ndarray:
    height, width, top, left = scale_jitter(*frames.shape[1:3], cfg.short_side, cfg.size, rng)
    return _crop(resize(frames, height, width, cfg.resize), (top, left, cfg.size, cfg.size))


_CROPS = {
    "multi_scale_crop": _multi_scale,
    "corner_crop": _corner,
    "random_resized_crop": _random_resized,
    "scale_jitter": _scale_jittered,
    "center_crop": _centered,
}


def _central(frames: np.ndarray, facts: Preprocessing) -> np.ndarray:
    """The one square [T, size, size, 3] of evaluation frames [T, H, W, 3], as `fit` makes it."""
    size = facts.size
    match facts.fit:
        case "stretch":
            frames = resize(frames, *(facts.stretch_to or (size, size)), facts.resize)
            return center_crop(frames, size, facts.resize)
        case "no_resize":
            height, width = frames.shape[1:3]
            if min(height, width) < size:
                raise UserError(
                    f"frames of {height}x{width} pixels are smaller than the crop of {size}, and "
                    f"fit 'no_resize' takes them as they are; enlarge the video"
                )
            return center_crop(frames, size, facts.resize)
        case "crop_first":
            height, width = frames.shape[1:3]
            side = min(height, width)
            box = ((height - side) // 2, (width - side) // 2, side, side)
            return resize(_crop(frames, box), size, size, facts.resize)
        case _:
            frames = resize_short_side(frames, facts.short_side, facts.resize)
            return center_crop(frames, size, facts.resize)


def _crop(frames: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = box
    return frames[:, top : top + height, left : left + width]


def _center(side: int, size: int, convention: str) -> int:
    return round((side - size) / 2) if convention == "cv2_linear" else (side - size) // 2


def _is_scenic(policy: str) -> bool:
    return policy.startswith("scenic")
