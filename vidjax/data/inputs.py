"""Videos as callers give them: one or several, on disks or in memory.

They are told apart by their axes. A video has four: frames, height, width, channels. A path counts
as four, and so does a decoder, an object that gives frames by index or that numpy turns into an
array; an image of PIL counts as three; an array has its own, and a list one more than its items. So

    a path, an array [N, H, W, 3], a list of N images or arrays [H, W, 3]    is one video,
    a list of such videos, an array [V, N, H, W, 3]                         are several.
"""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vidjax.data.frames.clips import as_array, eval_views, prepare, video_array
from vidjax.data.frames.sampling import view_indices
from vidjax.data.reading import locators
from vidjax.errors import UserError, VideoError, brief
from vidjax.preprocessing import Preprocessing

_EXPECTED = (
    "expected a path, an array [frames, height, width, 3], a list of frames, or a list of these"
)


def as_list(videos: Any) -> tuple[list[Any], bool]:
    """Returns the videos that a caller gave, and whether they are several; reads none of them.

    Raises:
        UserError: it is neither one video nor several, or a local file does not exist.
    """
    if getattr(getattr(videos, "dtype", None), "kind", None) in ("O", "U", "T"):
        videos = np.asarray(videos, object).tolist()  # paths in an array, a column of a table
    if isinstance(videos, list | tuple):
        axes = 1 + _common_axes(videos)
    elif (axes := _axes(videos)) is None:
        raise UserError(f"{_shown(videos)} is no video; {_EXPECTED}{_fix(videos)}")
    if axes not in (4, 5):
        raise UserError(
            f"{_shown(videos)} has {axes} axes, but a video has 4 and several have 5; {_EXPECTED}: "
            f"a single frame is a video as [frame], grey frames as numpy.stack([video] * 3, -1)"
        )
    if axes == 4:
        items = [videos]
    else:
        items = list(videos if isinstance(videos, list | tuple) else as_array(videos))
    if not items:
        raise UserError(f"{_shown(videos)} holds no videos; give at least one")
    for item in items:
        if isinstance(item, str | os.PathLike):
            if not (path := _path(item)):
                raise UserError("the path of a video is empty; give one such as 'a.mp4'")
            if locators.is_local(path) and not os.path.lexists(path):
                raise UserError(f"{path} cannot be read as video: no such file")
    return items, axes == 5


def clip_of(video: Any, preprocessing: Preprocessing) -> np.ndarray:
    """Returns the middle clip's centre crop of one video, uint8 [T, size, size, 3].

    A video in memory of as many frames as a clip has is that clip; others are sampled from.

    Raises:
        UserError: it cannot be read, or is an array of something else.
    """
    if isinstance(video, str | os.PathLike):
        path = _path(video)
        try:
            return prepare(path, preprocessing)[0]
        except VideoError as error:
            fix = "; if it holds videos, give them as a list" if os.path.isdir(path) else ""
            raise UserError(f"{path} cannot be read as video: {error}{fix}") from None
    if not isinstance(video, list | tuple) and _is_sequence(video):
        frames = _frames_of(video, preprocessing)
    else:
        frames = video_array(video)
    is_clip = len(frames) == preprocessing.frames
    return (eval_views if is_clip else prepare)(frames, preprocessing)[0]


def _path(video: str | os.PathLike) -> str:
    return os.path.expanduser(os.fspath(video))


def _frames_of(decoder: Sequence[Any], preprocessing: Preprocessing) -> np.ndarray:
    """Returns a clip's frames [T, H, W, 3]; only these are decoded."""
    count = len(decoder)
    if not count:
        raise UserError(f"a {type(decoder).__name__} gives no frames")
    indices = np.arange(count)
    if count != preprocessing.frames:
        (indices,) = view_indices(
            preprocessing.sampling, count, preprocessing.frames, preprocessing.stride
        )
    unique, inverse = np.unique(indices, return_inverse=True)
    try:
        pictures = [decoder[i] for i in unique.tolist()]
    except Exception as error:  # each decoder has errors of its own
        raise UserError(f"a {type(decoder).__name__} gives no frames: {brief(error)}") from None
    return video_array(pictures)[inverse]


def _is_sequence(value: Any) -> bool:
    """Returns whether it gives items by index, and is no array."""
    is_array = hasattr(value, "__array__") or hasattr(value, "shape")
    has_items = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return has_items and not is_array and not isinstance(value, Mapping | bytes | bytearray)


def _axes(value: Any) -> int | None:
    """Returns the axes of a value, see the module; None if it is nothing of the kind."""
    if isinstance(value, str | os.PathLike):
        return 4
    if isinstance(value, Image.Image):
        return 3
    if isinstance(value, list | tuple):
        inner = _axes(value[0]) if value else None
        return None if inner is None else 1 + inner
    if (shape := _shape(value)) is not None:
        return len(shape)
    if isinstance(value, int | float):
        return 0
    return 4 if _is_sequence(value) or hasattr(value, "__array__") else None


def _shape(value: Any) -> list[int] | None:
    """Returns the shape of an array of any library; None if it is no array."""
    try:
        return list(value.shape)
    except (AttributeError, TypeError, ValueError):  # a class, a module, a tensor without rank
        return None


def _common_axes(items: Sequence[Any]) -> int:
    """Returns the axes that all items have.

    Raises:
        UserError: there are none, or one has others.
    """
    if not items:
        raise UserError("the list of videos is empty; give at least one")
    axes = [_axes(item) for item in items]
    if None in axes:
        i = axes.index(None)
        raise UserError(
            f"videos[{i}], {_shown(items[i])}, is no video; {_EXPECTED}{_fix(items[i])}"
        )
    usual = collections.Counter(axes).most_common(1)[0][0]
    for i, found in enumerate(axes):
        if found != usual:
            other = items[axes.index(usual)]
            raise UserError(
                f"videos[{i}], {_shown(items[i])}, is not like the others, such as "
                f"{_shown(other)}; give a list of frames only, or of videos only"
            )
    return usual


def _shown(value: Any) -> str:
    """Returns a few words for a value."""
    if value is None or isinstance(value, int | float):
        return f"{value}"
    if isinstance(value, str | os.PathLike):
        return f"the path {os.fspath(value)}"
    if (shape := _shape(value)) is not None:
        return f"an array {shape}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _fix(value: Any) -> str:
    """Returns how a value of a wrong kind becomes videos, where that is known."""
    if isinstance(value, bytes | bytearray):
        return "; write the file's content to a disk, or decode a name by os.fsdecode"
    if isinstance(value, Mapping):
        return "; give its value that is the video"
    if hasattr(value, "read"):
        return "; give the path of that file"
    return "; make it a list, list(videos)" if hasattr(value, "__iter__") else ""
