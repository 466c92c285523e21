"""Folders of pictures read as videos, as mmaction2 and VideoMAE V2 extract them.

    v1/img_00001.jpg, v1/img_00002.jpg, ...

Frames are in the order of the numbers that their names end with. Where a folder holds pictures of
several names (mmaction2 puts flow_x_00001.jpg or x_00001.jpg beside the frames), those called img,
image, frame or by the number alone are taken, else those that there are most of.
"""

import collections
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from vidjax.data.watchdog import progress
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
    known = [name for name in _NAMES if name in groups]
    frames = groups[known[0]] if known else max(groups.values(), key=len)
    return [os.path.join(folder, name) for _, name in sorted(frames)]


def read(
    frames: Sequence[str], indices: Sequence[int], each: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Reads some of the frames, as vidjax.data.pyav.read_at does.

    Raises:
        VideoError: one cannot be read.
    """
    import cv2

    first, pictures = None, []
    for index in indices:
        progress()
        picture = _picture(frames[index])
        if first is None:
            first = picture.shape if index == 0 else _picture(frames[0]).shape
        if picture.shape != first:
            picture = cv2.resize(picture, first[1::-1], interpolation=cv2.INTER_CUBIC)
        pictures.append(each(picture))
    return pictures


def _picture(path: str) -> np.ndarray:
    import cv2

    with open(path, "rb") as file:
        content = np.frombuffer(file.read(), np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if picture is None:
        raise VideoError(f"{os.path.basename(path)} cannot be read as a picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
