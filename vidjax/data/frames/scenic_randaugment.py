"""RandAugment as Scenic trains ViViT with it, after the crop and the flip. Pure numpy and OpenCV.

Shapes: uint8 [T, H, W, 3]. The eleven operations without geometry; the operation, its strength and
the box of Cutout are the same in all frames. The reference lays the frames below each other and
treats them as one picture, so that AutoContrast and Equalize see the whole clip, and Sharpness
blurs across the seams.

What the reference computes rather than what its names say (each was checked against TensorFlow):
    an operation that is drawn always acts; the probability drawn with it (0.2 to 0.8) is not used
    Contrast takes (number of pixels) / 256, at most 255, for the mean grey: white, for real clips
    the threshold of Solarize wraps in uint8: at magnitude 20 (512) it inverts everything
    Posterize keeps more bits the higher the magnitude: all 8 at magnitude 20
    Cutout fills with black, although grey is handed to it

Sources: google-research/scenic video_ops.py; the operations are those of TensorFlow's model garden,
official/vision/image_classification/augment.py.
"""

import functools
import re

import cv2
import numpy as np

from vidjax.data.frames.randaugment import look_up
from vidjax.errors import UserError

OPERATIONS = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")
OPERATIONS += ("Color", "Contrast", "Brightness", "Sharpness", "Cutout")
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32)  # over 13


@functools.cache
def parse(policy: str) -> tuple[int, int]:
    """Returns the number of operations and the magnitude of a policy such as "scenic-n2-m20".

    Raises:
        UserError: if the policy cannot be understood.
    """
    match = re.fullmatch(r"scenic-n(\d+)-m(\d+)", policy)
    if not match or int(match[2]) > 30:
        raise UserError(
            f"data.rand_augment is {policy!r}; expected something like 'scenic-n2-m20' (number of "
            f"operations, magnitude from 0 to 30)"
        )
    return int(match[1]), int(match[2])


def rand_augment(clip: np.ndarray, rng: np.random.Generator, policy: str) -> np.ndarray:
    """Applies operations of this module, drawn with replacement; one of twelve draws is none."""
    number, magnitude = parse(policy)
    for choice in rng.integers(0, len(OPERATIONS) + 1, number):
        if choice < len(OPERATIONS):
            clip = operation(OPERATIONS[choice], clip, magnitude, rng)
    return clip


def operation(
    name: str, clip: np.ndarray, magnitude: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Applies one operation to a clip; only Cutout draws from `rng`."""
    values = np.arange(256)
    factor = magnitude / 10 * 1.8 + 0.1  # of the four enhancements; 1 changes nothing
    match name:
        case "AutoContrast":
            return look_up(clip, [_stretch(clip[..., channel]) for channel in range(3)])
        case "Equalize":
            return look_up(clip, [_flatten(clip[..., channel]) for channel in range(3)])
        case "Invert":
            return look_up(clip, 255 - values)
        case "Posterize":
            bits = int(magnitude / 10 * 4)
            shift = min((8 - bits) % 256, 7)  # TensorFlow's shift stops there
            return look_up(clip, values >> shift << shift)
        case "Solarize":
            threshold = int(magnitude / 10 * 256) % 256
            return look_up(clip, np.where(values < threshold, values, 255 - values))
        case "SolarizeAdd":
            added = np.minimum(values + int(magnitude / 10 * 110), 255)
            return look_up(clip, np.where(values < 128, added, values))
        case "Brightness":
            return look_up(clip, _blend(np.zeros(256), values, factor))
        case "Contrast":
            grey = min(clip[..., 0].size // 256, 255)
            return look_up(clip, _blend(np.full(256, grey), values, factor))
        case "Color":
            return np.stack([_blend(_grey(frame), frame, factor) for frame in clip])
        case "Sharpness":
            tall = clip.reshape(-1, *clip.shape[2:])
            blurred = tall.copy()
            # A sum of integers, exact in float32.
            total = cv2.filter2D(tall, cv2.CV_32F, _SMOOTH)[1:-1, 1:-1]
            blurred[1:-1, 1:-1] = total.astype(np.int32) // 13
            return _blend(blurred, tall, factor).reshape(clip.shape)
        case "Cutout":
            return cutout(clip, int(magnitude / 10 * 40), rng)
    raise ValueError(f"{name} is no operation of Scenic's RandAugment")


def cutout(clip: np.ndarray, half: int, rng: np.random.Generator) -> np.ndarray:
    """Blackens a box of side 2 * half around a random pixel, cut where it leaves the picture."""
    y, x = (int(rng.integers(0, side)) for side in clip.shape[1:3])
    clip = clip.copy()
    clip[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
    return clip


def _stretch(channel: np.ndarray) -> np.ndarray:
    """Returns a table of 256 that maps the channel's darkest value to 0, its brightest to 255."""
    values = np.arange(256)
    low, high = np.float32(channel.min()), np.float32(channel.max())
    if low == high:
        return values
    scale = np.float32(255) / (high - low)
    return np.clip(values.astype(np.float32) * scale - low * scale, 0, 255)


def _flatten(channel: np.ndarray) -> np.ndarray:
    """Returns a table of 256 that spreads the channel's values evenly, as Pillow's equalize."""
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (channel.size - counts[counts > 0][-1]) // 255
    if step == 0:
        return np.arange(256)
    return np.clip(np.concatenate([[0], (counts.cumsum() + step // 2) // step])[:256], 0, 255)


def _grey(frame: np.ndarray) -> np.ndarray:
    """Returns TensorFlow's grey of uint8 [H, W, 3], as three equal channels."""
    weights = np.array([[0.2989, 0.587, 0.114]], np.float32)
    grey = cv2.transform(frame.astype(np.float32) / 255, weights)
    return np.repeat((grey * np.float32(255.5)).astype(np.uint8)[..., None], 3, axis=-1)


def _blend(start: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    """Returns start + factor * (end - start), clipped and truncated to uint8."""
    if factor == 1:
        return end
    start, end = start.astype(np.float32), end.astype(np.float32)
    return np.clip(start + np.float32(factor) * (end - start), 0, 255).astype(np.uint8)
