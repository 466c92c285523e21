"""RandAugment as timm has it, with which VideoMAE fine-tunes. Before the crop.

Sources: MCG-NJU/VideoMAE rand_augment.py; timm/data/auto_augment.py.
"""

import functools
import re
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vidjax.errors import UserError

_FILL = (128, 128, 128)  # of what the geometric operations uncover
OPERATIONS = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")
OPERATIONS += ("Color", "Contrast", "Brightness", "Sharpness")
OPERATIONS += ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


@functools.cache
def parse(policy: str) -> tuple[float, int, float]:
    """Returns magnitude, number of operations and spread of a policy; UserError if it is none."""
    match = re.fullmatch(r"rand-m(\d+)-n(\d+)(?:-mstd(\d+(?:\.\d+)?))?-inc1", policy)
    if not match:
        raise UserError(
            f"data.rand_augment is {policy!r}; expected '' for none or something like "
            f"'rand-m7-n4-mstd0.5-inc1' (magnitude, operations, spread, increasing set) or "
            f"'scenic-n2-m20' (operations, magnitude)"
        )
    return float(match[1]), int(match[2]), float(match[3] or 0)


def rand_augment(frames: np.ndarray, rng: np.random.Generator, policy: str) -> np.ndarray:
    """Applies the same operations and magnitudes to all frames [T, H, W, 3].

    `policy` is timm's notation, e.g. "rand-m7-n4-mstd0.5-inc1": n draws with replacement from the
    15 operations that grow stronger with the magnitude, each applied with probability 1/2, with
    magnitude N(m, mstd) clipped to [0, 10] and a random direction. Uncovered pixels become 128.

    Raises:
        UserError: if the policy cannot be understood.
    """
    magnitude, num_ops, std = parse(policy)
    for name in rng.choice(OPERATIONS, num_ops):
        apply, sign, noise = rng.random() < 0.5, rng.choice((-1, 1)), rng.normal()
        if apply:
            level = float(np.clip(magnitude + std * noise, 0, 10)) / 10
            frames = operation(name, frames, level, sign)
    return frames


def operation(name: str, frames: np.ndarray, level: float, sign: int) -> np.ndarray:
    """Applies one operation to frames [T, H, W, 3] at a level in [0, 1]; `sign` is its direction.

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
            return look_up(frames, _away_from(0, 1 + 0.9 * signed))
        case "Contrast":  # each frame has a mean of its own
            means = [int(np.mean(Image.fromarray(frame).convert("L")) + 0.5) for frame in frames]
            tables = [_away_from(mean, 1 + 0.9 * signed) for mean in means]
            return np.stack([cv2.LUT(*pair) for pair in zip(frames, tables, strict=True)])
        case "Invert":
            return look_up(frames, 255 - values)
        case "Posterize":  # keeps 4 bits at level 0, none at level 1
            return look_up(frames, values & -(1 << 4 + int(4 * level)))
        case "Solarize":
            return look_up(frames, np.where(values < 256 - int(256 * level), values, 255 - values))
        case "SolarizeAdd":
            added = np.minimum(values + int(110 * level), 255)
            return look_up(frames, np.where(values < 128, added, values))
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


def look_up(frames: np.ndarray, table: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """Maps values by one table of 256, or by one for each channel; fractions are cut off."""
    table = np.asarray(table).astype(np.uint8)
    if table.ndim == 2:
        table = np.ascontiguousarray(table.T)[None]  # OpenCV wants [1, 256, 3]
    flat = frames.reshape(-1, *frames.shape[2:])  # and one image
    return cv2.LUT(flat, table).reshape(frames.shape)


def _away_from(level: int, factor: float) -> np.ndarray:
    """Blends the values 0 to 255 with one level, as Pillow's enhancers do."""
    values = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return np.asarray(Image.blend(Image.new("L", values.size, level), values, factor))[0]


def _affine(
    frames: np.ndarray, a: float, b: float, c: float, d: float, e: float, f: float
) -> np.ndarray:
    """Warps: output (x, y) is input (ax + by + c, dx + ey + f), pixel centres at 1/2 (Pillow)."""
    height, width = frames.shape[1:3]
    matrix = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.stack(
        [
            cv2.warpAffine(frame, matrix, (width, height), flags=flags, borderValue=_FILL)
            for frame in frames
        ]
    )
