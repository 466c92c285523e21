"""Scenic's RandAugment against TensorFlow's goldens, and its draws."""

import pathlib

import numpy as np
import pytest

from vidjax.data.frames import scenic_randaugment
from vidjax.data.frames.scenic_randaugment import OPERATIONS, operation

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_vivit" / "golden.npz")
CLIP = GOLDEN["clip"]
CASES = [name.split("/")[1:] for name in GOLDEN.files if name.count("/") == 2 and "augm" in name]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("name", "magnitude"), CASES)
def test_operations_are_tensorflows(name, magnitude):
    want = GOLDEN[f"randaugment/{name}/{magnitude}"].astype(int)
    error = np.abs(operation(name, CLIP, int(magnitude)) - want)
    if (
        name == "Sharpness"
    ):  # TensorFlow's float32 sums fall below some integers that they should be
        assert error.max() <= 4 and (error > 0).mean() < 0.01
    else:
        assert error.max() == 0


def test_the_goldens_are_of_all_operations_but_cutout():
    assert {name for name, _ in CASES} == set(OPERATIONS) - {"Cutout"}
    unchanged = {
        (name, int(magnitude))
        for name, magnitude in CASES
        if np.array_equal(GOLDEN[f"randaugment/{name}/{magnitude}"], CLIP)
    }
    # Factors of 1 at magnitude 5; all 8 bits at 20. Everything else says something.
    factors = {(name, 5) for name in ("Color", "Contrast", "Brightness", "Sharpness")}
    assert unchanged == factors | {("Posterize", 20)}


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Sharpness"])
def test_a_clip_is_one_tall_picture(name):
    clip = CLIP.copy()
    clip[0] //= 4
    whole = operation(name, clip, 20)
    tall = operation(name, clip.reshape(1, -1, *clip.shape[2:]), 20)
    assert np.array_equal(whole, tall.reshape(clip.shape))
    alone = np.concatenate([operation(name, frame[None], 20) for frame in clip])
    assert not np.array_equal(whole, alone)


def test_contrast_takes_white_for_the_mean_of_a_real_clip():
    clip = noise(8, 100, 100, 3)
    want = np.clip(255 + 3.7 * (clip.astype(np.float32) - 255), 0, 255)
    assert np.abs(operation("Contrast", clip, 20) - np.floor(want)).max() <= 1


def test_solarize_inverts_everything_at_magnitude_20():
    assert np.array_equal(operation("Solarize", CLIP, 20), 255 - CLIP)
    assert np.array_equal(operation("Solarize", CLIP, 15), np.where(CLIP < 128, CLIP, 255 - CLIP))


def test_flat_clips_stay_as_they_are():
    flat = np.full((2, 9, 9, 3), 77, np.uint8)
    for name in ("AutoContrast", "Equalize", "Sharpness"):
        assert np.array_equal(operation(name, flat, 15), flat)


def test_cutout_blackens_one_box_of_all_frames_around_any_pixel():
    clip, rng = np.full((2, 10, 14, 3), 200, np.uint8), np.random.default_rng(0)
    boxes = set()
    for _ in range(3000):
        black = operation("Cutout", clip, 1, rng) == 0  # half a side of int(1 / 10 * 40) = 4
        assert (black == black[:1, :, :, :1]).all()
        rows, columns = (np.flatnonzero(black[0, :, :, 0].any(axis)) for axis in (1, 0))
        assert black[0, :, :, 0].sum() == len(rows) * len(columns)
        boxes.add((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    want = {
        (max(y - 4, 0), min(y + 4, 10), max(x - 4, 0), min(x + 4, 14))
        for y in range(10)
        for x in range(14)
    }
    assert boxes == want
    # Scenic's own: black too, and the same place in all frames.
    golden = GOLDEN["randaugment/cutout_pad4"]
    changed = (golden != CLIP).any(-1)
    assert changed[0].sum() == 8 * 8 and (changed == changed[:1]).all()
    assert (golden[changed] == 0).all()


def test_draws(monkeypatch):
    calls = []

    def record(name, clip, magnitude, rng):
        calls.append((name, magnitude))
        return clip

    monkeypatch.setattr(scenic_randaugment, "operation", record)
    rng = np.random.default_rng(0)
    for _ in range(6000):
        scenic_randaugment.rand_augment(CLIP, rng, "scenic-n2-m15")
    names, magnitudes = zip(*calls, strict=True)
    assert set(magnitudes) == {15}
    # Two draws of twelve, one of which is nothing; what is drawn is done.
    assert abs(len(calls) / 6000 - 2 * 11 / 12) < 0.02
    counts = np.unique(names, return_counts=True)[1]
    assert len(counts) == 11 and counts.min() > 850 and counts.max() < 1150


def test_operations_follow_each_other():
    rng = np.random.default_rng(3)
    out = scenic_randaugment.rand_augment(CLIP, rng, "scenic-n9-m15")
    assert out.shape == CLIP.shape and out.dtype == np.uint8
    want, rng = CLIP, np.random.default_rng(3)
    for choice in rng.integers(0, 12, 9):
        want = operation(OPERATIONS[choice], want, 15, rng) if choice < 11 else want
    assert np.array_equal(out, want)
