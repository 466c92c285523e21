"""RandAugment against Pillow's operations and timm's draws."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.support.frames import noise, smooth
from vidjax.data.frames import randaugment

RANDAUG = "rand-m7-n4-mstd0.5-inc1"


def pillow_op(name, image, level, sign):
    """timm's definition of an operation, in Pillow alone."""
    signed = sign * level

    def affine(*matrix):
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrix,
            resample=Image.Resampling.BICUBIC,
            fillcolor=(128, 128, 128),
        )

    match name:
        case "AutoContrast" | "Equalize" | "Invert":
            return getattr(ImageOps, name.lower())(image)
        case "Posterize":
            return ImageOps.posterize(image, 4 - int(level * 4))
        case "Solarize":
            return ImageOps.solarize(image, 256 - int(level * 256))
        case "SolarizeAdd":
            table = [min(255, v + int(level * 110)) if v < 128 else v for v in range(256)]
            return image.point(table * 3)
        case "Rotate":
            bicubic = Image.Resampling.BICUBIC
            return image.rotate(30 * signed, resample=bicubic, fillcolor=(128, 128, 128))
        case "ShearX":
            return affine(1, 0.3 * signed, 0, 0, 1, 0)
        case "ShearY":
            return affine(1, 0, 0, 0.3 * signed, 1, 0)
        case "TranslateX":
            return affine(1, 0, 0.45 * signed * image.width, 0, 1, 0)
        case "TranslateY":
            return affine(1, 0, 0, 0, 1, 0.45 * signed * image.height)
    return getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * signed)


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
@pytest.mark.parametrize(("level", "sign"), [(0.72, 1), (0.35, -1)])
def test_randaugment_operations_are_timms(name, level, sign):
    frames = smooth(2)
    ours = randaugment.operation(name, frames, level, sign).astype(int)
    want = np.stack([np.asarray(pillow_op(name, Image.fromarray(f), level, sign)) for f in frames])
    error = np.abs(ours - want)
    if name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"):
        # Same geometry and fill; OpenCV's bicubic kernel is a little sharper, and blends the rim.
        assert np.quantile(error, 0.95) <= 3
        other = randaugment.operation(name, frames, level, -sign).astype(int)
        assert np.quantile(np.abs(other - want), 0.5) > 3
        assert ((ours == 128).all(-1) & (want == 128).all(-1)).mean() > 0.01
    else:
        assert error.max() == 0
        assert np.abs(want - frames).max() > 10


def test_posterize_keeps_no_bits_at_the_top():
    # Pillow refuses 0 bits; the reference's Pillow gave black.
    assert randaugment.operation("Posterize", noise(1, 8, 8, 3), 1.0, 1).max() == 0


def test_randaugment_draws_as_the_policy_says(monkeypatch):
    calls = []

    def record(name, frames, level, sign):
        calls.append((name, level, sign))
        return frames

    monkeypatch.setattr(randaugment, "operation", record)
    frames, rng = noise(1, 4, 4, 3), np.random.default_rng(0)
    for _ in range(4000):
        randaugment.rand_augment(frames, rng, RANDAUG)
    names, levels, signs = map(np.array, zip(*calls, strict=True))
    assert len(set(names)) == 15
    assert abs(len(calls) / 4000 - 2) < 0.1  # 4 draws, each applied with probability 1/2
    counts = np.unique(names, return_counts=True)[1]
    assert counts.min() > 0.8 * len(calls) / 15
    assert abs(levels.mean() - 0.7) < 0.005 and abs(levels.std() - 0.05) < 0.005
    assert set(signs) == {-1, 1} and abs(signs.mean()) < 0.1
    calls.clear()
    for _ in range(200):
        randaugment.rand_augment(frames, rng, "rand-m10-n2-mstd1-inc1")
    assert max(level for _, level, _ in calls) == 1.0  # clipped
