"""Reads frames of videos. One file has one answer, whoever reads it.

The loader, `vidjax.data.check`, prediction, embedding, packing and `read_video` all come here. A
video is a file (any container that PyAV opens), a record of a shard, an object in a bucket, or a
folder of pictures. Frames are RGB, upright as the file says, and of the size of the first.

PyAV reads: by seeking where that is right, else from the first frame on; see pyav.py. decord can
be chosen, and reads what it can be trusted with; see decord_reader.py. Both return the same frames.
Nothing is kept from one call to the next; parallelism is processes.
"""

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from vidjax.data.reading import decord_reader, frame_folders, locators, pyav
from vidjax.data.reading.pyav import Index
from vidjax.data.reading.watchdog import watched
from vidjax.errors import UserError, VideoError

Sample = Callable[[int], np.ndarray]
Each = Callable[[np.ndarray], np.ndarray]

READERS = ("pyav", "decord")

FETCH = "cannot be fetched"  # begins the reason of a VideoError about an object or a record


def read_frames(
    path: str | os.PathLike,
    sample: Sample,
    *,
    verdict: str | None = None,
    num_frames: int | None = None,
    reader: str = "pyav",
    each: Each | None = None,
    strict: bool = False,
) -> tuple[np.ndarray, int]:
    """Decodes the frames that `sample` picks.

    Args:
        path: a video file or a folder of pictures, on a disk or wherever `locators` finds it.
        sample: from the number of frames n to frame indices [T] in [0, n), in any order, repeats
            allowed. Called once.
        verdict: what `vidjax.data.check` found: "ok" (seeking is right), "sequential" (decode from
            the first frame), "trim:N" (the same, and only the first N frames are real), "reject";
            None for an unchecked file.
        num_frames: how many the check found, if known.
        reader: "pyav" or "decord", which reads what it can be trusted with and leaves the rest to
            PyAV.
        each: applied to each picture uint8 [H, W, 3] as it arrives, so that large ones need not be
            held; None keeps the picture.
        strict: whether to refuse a file in which seeking fails. Its frames may depend on which of
            them are asked for, as what stands in for damage does; those of others never do.

    Returns:
        frames uint8 [T, H, W, 3], RGB, upright (or [T, ...] of what `each` returns), and the number
        of frames n.

    Raises:
        VideoError: the file is missing, empty, not a video, damaged, refused, hangs its decoder, or
            has another number of frames than num_frames; seeking fails and `strict` is set.
        UserError: as check_reader.
    """
    check_reader(reader)
    if verdict == "reject":
        raise VideoError("rejected by the check")
    keep = each or (lambda picture: picture)
    with local_file(os.fspath(path)) as file:
        return watched(lambda: _read(file, sample, verdict, num_frames, reader, keep, strict))


def check_reader(reader: str) -> None:
    """Raises UserError if there is no such reader, or it is not installed."""
    if reader not in READERS:
        raise UserError(f"data.reader is {reader!r}; choose one of {', '.join(READERS)}")
    if reader == "decord" and not decord_reader.is_installed():
        raise UserError(
            "data.reader=decord is not installed; pip install decord, or leave data.reader=pyav"
        )


def read_video(
    path: str | os.PathLike, num_frames: int | None = 16, stride: int | None = 4
) -> np.ndarray:
    """Reads one video, to look at it or to feed a model.

        read_video("a.mp4")                          16 frames, 4 apart: VideoMAE's middle clip
        read_video("a.mp4", 32, stride=None)         32 frames spread evenly over the whole video
        read_video("a.mp4", num_frames=None, stride=1)    every frame

    Args:
        path: a video file or a folder of pictures, or another locator (see locators.py).
        num_frames: T, or None for as many as the stride gives over the whole video.
        stride: frames from one to the next, or None to spread num_frames evenly. A video shorter
            than the clip repeats its last frame.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        UserError: the file is missing or cannot be read as video; num_frames or stride is wrong.
    """
    path = os.path.expanduser(path)
    for name, value in (("num_frames", num_frames), ("stride", stride)):
        if value is not None and value < 1:
            raise UserError(f"read_video: {name}={value} must be at least 1, or None")
    if num_frames is None and stride is None:
        raise UserError("read_video: give num_frames or stride (stride=1 reads every frame)")

    def sample(n: int) -> np.ndarray:
        if num_frames is None:
            return np.arange(0, n, stride)
        if stride is None:  # the middles of num_frames equal parts
            return ((np.arange(num_frames) + 0.5) * n / num_frames).astype(np.int64)
        start = max(0, (n - (num_frames - 1) * stride - 1) // 2)
        return np.minimum(start + np.arange(num_frames) * stride, n - 1)

    try:
        return read_frames(path, sample)[0]
    except VideoError as error:
        raise UserError(f"{path} cannot be read as video: {error}") from None


@contextlib.contextmanager
def local_file(path: str) -> Iterator[str]:
    """Gives a path of the same video that decoders can open, as long as the context lasts.

    A local path is itself; else it is a copy of the object or record (see locators.py), which on
    Linux lives in memory and goes with the process, however that ends.

    Raises:
        VideoError: there is no file with something in it, or it cannot be fetched.
        UserError: there is no driver for the URL.
    """
    if locators.is_local(path):
        _require_file(path)
        yield path
        return
    try:
        content = locators.read(path)
    except FileNotFoundError:
        raise VideoError("no such file") from None
    except OSError as error:
        raise VideoError(f"{FETCH}: {error}") from None
    if not content:
        raise VideoError("empty file")
    with contextlib.ExitStack() as stack:
        if sys.platform == "linux":
            file = stack.enter_context(open(os.memfd_create("vidjax"), "wb"))
            place = f"/proc/self/fd/{file.fileno()}"
        else:
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            place = file.name
        file.write(content)
        file.flush()
        del content
        yield place


def _require_file(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise VideoError("its name is not UTF-8; rename it") from None
    if os.path.isdir(path):
        return
    if not os.path.isfile(path):
        raise VideoError("not a file" if os.path.exists(path) else "no such file")
    if os.path.getsize(path) == 0:
        raise VideoError("empty file")


def index_of(
    file: str,
    verdict: str | None = None,
    num_frames: int | None = None,
    *,
    timed: bool = True,
) -> Index:
    """Returns the index of the frames that `read_frames` finds.

    Args:
        file: a local file or folder, such as `local_file` gives.
        verdict, num_frames: as of read_frames.
        timed: whether the times of the frames are needed, too. Of a file that has to be decoded in
            order, they are only known when it was.

    Raises:
        VideoError: as read_frames.
    """
    trimmed = _trimmed(verdict)
    if os.path.isdir(file):
        index = Index(len(frame_folders.frames_of(file)), by_time=False)
    else:
        index = pyav.index_of(file)
        if trimmed or (index.problem and verdict != "ok"):
            count = trimmed or (num_frames if verdict == "sequential" else None)
            if count and not timed:
                index = index.counted(count)
            else:
                index = pyav.decoded_index_of(file, index)
    if trimmed and trimmed > index.count:
        raise VideoError(f"{trimmed - index.count} of {trimmed} frames cannot be decoded")
    if trimmed:
        index = index.counted(trimmed, index.times[:trimmed])
    if not index.count:
        raise VideoError("it holds no frames")
    if num_frames not in (None, index.count):
        raise VideoError(
            f"the file changed since the check, from {num_frames} to {index.count} frames"
        )
    return index


def in_order(
    file: str, index: Index, scaler: int | None = None
) -> Iterator[Callable[[], np.ndarray]]:
    """Decodes a local file or folder from its first frame on; arguments are those of pyav.in_order.

    Yields:
        For each frame of the index a function that makes its picture, uint8 [H, W, 3].

    Raises:
        VideoError: too few frames can be decoded.
    """
    if not os.path.isdir(file):
        yield from pyav.in_order(file, index, scaler)
        return
    read = frame_folders.pictures_of(frame_folders.frames_of(file))
    for number in range(index.count):
        yield functools.partial(read, number)


def _read(
    file: str,
    sample: Sample,
    verdict: str | None,
    num_frames: int | None,
    reader: str,
    each: Each,
    strict: bool,
) -> tuple[np.ndarray, int]:
    index = index_of(file, verdict, num_frames, timed=False)
    indices = np.asarray(sample(index.count))
    if indices.ndim != 1 or indices.min() < 0 or indices.max() >= index.count:
        raise ValueError(
            f"sample({index.count}) must give indices [T] in [0, {index.count}), got {indices}"
        )
    unique, inverse = np.unique(indices, return_inverse=True)
    wanted, kept = unique.tolist(), None
    if index.by_time and index.keyframes and verdict in (None, "ok"):
        if reader == "decord":
            kept = decord_reader.read_at(file, index, wanted, each)
        kept = pyav.read_at(file, index, wanted, each) if kept is None else kept
        if kept is None and strict:
            raise VideoError(pyav.CUT_OFF)
    if kept is None:
        remaining = iter(wanted)
        kept, target = [], next(remaining)
        for number, show in enumerate(in_order(file, index)):
            if number == target:
                kept.append(each(show()))
                if (target := next(remaining, None)) is None:
                    break
    frames = np.stack(kept)
    if not np.array_equal(inverse, np.arange(len(frames))):  # else that would copy them once more
        frames = frames[inverse]
    return frames, index.count


def _trimmed(verdict: str | None) -> int | None:
    """Returns the number of real frames that a verdict names, or None."""
    if verdict in (None, "ok", "sequential"):
        return None
    kind, _, count = verdict.partition(":")
    if kind != "trim" or not count.isdigit() or int(count) < 1:
        raise ValueError(f"verdict {verdict!r} is none of ok, sequential, trim:N, reject")
    return int(count)
