"""Frames and configs for the tests of transforms."""

from types import SimpleNamespace

import numpy as np
from PIL import Image


def config(**changes):
    fields = dict(
        augment="center_crop",
        rand_augment="",
        flip=0.0,
        size=32,
        short_side=32,
        resize="cv2_linear",
    )
    return SimpleNamespace(**(fields | changes))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(num_frames=2, height=60, width=80):
    coarse = noise(num_frames, 6, 8, 3) // 2 + 40  # a contrast that can grow
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
            for frame in coarse
        ]
    )


def columns(height, width):
    """One frame whose pixels are (row, column, 0)."""
    frame = np.zeros((1, height, width, 3), np.uint8)
    frame[..., 0] = np.arange(height)[:, None]
    frame[..., 1] = np.arange(width)
    return frame


def linear_resize(row, size):
    """Linear interpolation between pixel centres, without antialias."""
    centres = (np.arange(size) + 0.5) * len(row) / size - 0.5
    return np.interp(centres, np.arange(len(row)), row)
