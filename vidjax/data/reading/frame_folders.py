"""Folders of pictures read as videos, as mmaction2 and VideoMAE V2 extract them.

    v1/img_00001.jpg, v1/img_00002.jpg, ...

Frames are in the order of the numbers that their names end with. Where a folder holds pictures of
several names (mmaction2 puts flow_x_00001.jpg or x_00001.jpg beside the frames), those called img,
image, frame or by the number alone are taken, else those that there are most of.
"""

import collections
import contextlib
import functools
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from vidjax.data.reading.watchdog import progress
from vidjax.errors import VideoError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_NAMES = ("img", "image", "frame", "")
_NUMBERED = re.compile(r"(.*?)[_\- .]*(\d+)\.\w+", re.DOTALL)


def is_frame(name: str) -> bool:
    """Returns whether a file's name is that of a numbered picture."""
    is_picture = name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    return is_picture and _NUMBERED.fullmatch(name) is not None


def frames_of(folder: str) -> list[str]:
    """Returns the paths of a local folder's frames, in their order.

    Raises:
        VideoError: it holds none.
    """
    groups = collections.defaultdict(list)
    for name in filter(is_frame, os.listdir(folder)):
        stem, number = _NUMBERED.fullmatch(name).groups()
        groups[stem.lower()].append((int(number), name))
    if not groups:
        raise VideoError("a folder without numbered pictures such as img_00001.jpg")
    usual = [name for name in _NAMES if name in groups]
    frames = groups[usual[0]] if usual else max(groups.values(), key=len)
    return [os.path.join(folder, name) for _, name in sorted(frames)]


def pictures_of(frames: Sequence[str]) -> Callable[[int], np.ndarray]:
    """Returns a function that reads a frame by its index: uint8 [H, W, 3], RGB.

    All are of the size of the first. It raises VideoError if the frame cannot be read.
    """
    import cv2

    @functools.cache
    def size() -> tuple[int, int]:
        return _picture(frames[0]).shape[1::-1]

    def read(index: int) -> np.ndarray:
        progress()
        picture = _picture(frames[index])
        if picture.shape[1::-1] == size():
            return picture
        return cv2.resize(picture, size(), interpolation=cv2.INTER_CUBIC)

    return read


def _picture(path: str) -> np.ndarray:
    import cv2

    picture = None
    with contextlib.suppress(OSError, cv2.error), open(path, "rb") as file:
        picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise VideoError(f"{os.path.basename(path)} cannot be read as a picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
