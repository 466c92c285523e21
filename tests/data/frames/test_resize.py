"""Resizing against Pillow, TensorFlow's goldens, and rules worked out by hand."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.support.frames import linear_resize, noise
from vidjax.data.frames.resize import resize, resize_short_side
from vidjax.preprocessing import RESIZES

VIVIT = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_vivit" / "golden.npz"


def triangle_resize(row, size):
    """Antialiased linear resize of float [width], the rule that Pillow rounds."""
    scale = len(row) / size
    support = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(len(row)) + 0.5 - centres[:, None]) / support)
    return (weights / weights.sum(1, keepdims=True)) @ row


def test_the_two_conventions_differ_by_antialiasing():
    frames = noise(1, 1, 90, 3)
    ours = resize(frames, 1, 37, "pil_bilinear")[0, 0, :, 0]
    assert np.abs(ours - triangle_resize(frames[0, 0, :, 0].astype(float), 37)).max() <= 0.51
    ours = resize(frames, 1, 37, "cv2_linear")[0, 0, :, 0]
    assert np.abs(ours - linear_resize(frames[0, 0, :, 0].astype(float), 37)).max() <= 1.0


def truncated(exact):
    """Casts as tf.cast floats that may be some 1e-4 below an integer that they should be."""
    return np.floor(exact + 1e-3)


def test_tf_bilinear_cuts_fractions_off():
    frames = noise(1, 1, 97, 3)
    ours = resize(frames, 1, 41, "tf_bilinear")[0, 0, :, 0]
    exact = linear_resize(frames[0, 0, :, 0].astype(float), 41)
    assert np.array_equal(ours, truncated(exact))
    assert (ours != exact.round()).mean() > 0.3  # rounding is something else, and what cv2 does


@pytest.mark.parametrize("size", [(7, 9), (29, 31), (40, 11), (224, 298)])
def test_tf_bilinear_keeps_flat_regions(size):
    levels = np.arange(256, dtype=np.uint8)[:, None, None, None]
    flat = np.broadcast_to(levels, (256, 13, 17, 3))
    assert (resize(flat, *size, "tf_bilinear") == levels).all()


def test_tf_bilinear_is_tensorflows():
    golden = np.load(VIVIT)
    frames = golden["resize/frames"]
    for side in (16, 50):
        ours = resize_short_side(frames, side, "tf_bilinear")
        error = np.abs(ours.astype(int) - golden[f"resize/smallest{side}"])
        # TensorFlow's own float32 positions put a few values to the other side of an integer.
        assert error.max() <= 1 and (error > 0).mean() < 2e-3
    ours = resize(frames, 28, 33, "tf_bilinear")
    assert (ours != golden["resize/28x33"]).mean() < 2e-3
    assert (resize(frames, 28, 33, "cv2_linear") != golden["resize/28x33"]).mean() > 0.2


@pytest.mark.parametrize("convention", RESIZES)
def test_long_side_is_truncated_but_rounded_by_mediapy_and_mmcv(convention):
    long = 54 if convention in ("pil_lanczos", "mmcv_linear") else 53  # of 53.9
    frames = noise(1, 72, 97, 3)
    assert resize_short_side(frames, 40, convention).shape == (1, 40, long, 3)
    frames = frames.swapaxes(1, 2)
    assert resize_short_side(frames, 40, convention).shape == (1, long, 40, 3)
    assert resize_short_side(frames, 72, convention) is frames


def test_mmcv_rounds_halves_up():
    for width, long in ((340, 298), (348, 305), (341, 298)):  # of 297.5, 304.5 and 298.4
        frames = np.zeros((1, 256, width, 3), np.uint8)
        found = resize_short_side(frames, 224, "mmcv_linear")
        assert found.shape == (1, 224, long, 3)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_pillows_filters_go_by_their_names(name):
    frames = noise(2, 40, 51, 3)
    filter = Image.Resampling[name.upper()]
    want = np.stack([np.asarray(Image.fromarray(f).resize((30, 20), filter)) for f in frames])
    assert np.array_equal(resize(frames, 20, 30, f"pil_{name}"), want)


def test_longer_side_of_lanczos():
    frames = noise(1, 64, 101, 3)  # in proportion 50.5 wide, and 33.5 where 21 high
    assert resize_short_side(frames, 32, "hf_lanczos").shape[2] == 50
    assert resize_short_side(noise(1, 40, 64, 3), 21, "hf_lanczos").shape[2] == 33
    assert resize_short_side(noise(1, 40, 64, 3), 21, "pil_lanczos").shape[2] == 34
    one, other = (resize(frames, 20, 30, f"{home}_lanczos") for home in ("hf", "pil"))
    assert np.array_equal(one, other)
