"""Resizing of frames, in the conventions of the references: see `vidjax.preprocessing`.

Shapes: uint8 [T, H, W, 3].
"""

import cv2
import numpy as np
from PIL import Image

_PIL_FILTERS = {
    "pil_bilinear": Image.Resampling.BILINEAR,
    "pil_bicubic": Image.Resampling.BICUBIC,
    "pil_lanczos": Image.Resampling.LANCZOS,
    "hf_lanczos": Image.Resampling.LANCZOS,
}


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
