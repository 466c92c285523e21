"""Reads frames of video files: decord where it is safe, PyAV everywhere else.

decord is fast at random access and wrong without saying so on some files: streams with open GOPs,
MP4s with edit lists (which stream-copy cutting makes), AVIs with B-frames. MPEG-TS hangs it beyond
any signal. So decord gets the files that `python -m vidjax.data.check` found right, or without a
manifest those that look right. PyAV reads the others: by seeking where decord has no wheel (ARM,
macOS) or an unchecked file looks wrong, and in order from the first frame, which is what the check
itself compares with, where the check or the container asks for it. Both readers return the same
frames: RGB, rotated as the file says.

A reader lives for one call, with one thread. A kept decord reader decodes its whole file into
memory, and one shared between threads hangs; parallelism is processes (the loader's workers).
"""

import bisect
import concurrent.futures
import contextlib
import functools
import math
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from vidjax.data import locators
from vidjax.errors import UserError

Sample = Callable[[int], np.ndarray]
T = TypeVar("T")

SEEKABLE = ("MP4", "Matroska")  # what container_of calls MP4 and MOV, MKV and WebM

HANG = "no answer in"  # begins the reason of a VideoError about a decoder that hangs

FETCH = "cannot be fetched"  # of one about an object or a record

# Unchecked AVIs often hold one packet more than frames (75 and 74 in HMDB51): the missing end is
# then filled with the last frame. More than this is a damaged file.
MISSING_AT_END = 2


# Frames up to the next keyframe that are decoded rather than left out by a seek, which costs more.
NEAR = 6


class Packet(NamedTuple):
    """Times in units of the stream (presentation, decoding), and whether decoding can start."""

    pts: int | None
    dts: int | None
    is_keyframe: bool


class VideoError(Exception):
    """A file cannot be read as video; the message is one line, the reason, without the path."""


def read_frames(
    path: str | os.PathLike,
    sample: Sample,
    *,
    verdict: str | None = None,
    num_frames: int | None = None,
) -> tuple[np.ndarray, int]:
    """Decodes the frames that `sample` picks.

    Args:
        path: a video file, on a disk or wherever vidjax.data.locators finds it.
        sample: from the number of frames n to frame indices [T] in [0, n), in any order, repeats
            allowed. Called once.
        verdict: what `vidjax.data.check` found: "ok" (random access is right), "sequential" (decode
            from the first frame), "trim:N" (the same, and only the first N frames are real),
            "reject"; None for an unchecked file: MP4, MOV, MKV and WebM are accessed at random, AVI
            in order, any other container is refused. Containers are told by content, not by name.
        num_frames: how many the check found, if known.

    Returns:
        frames uint8 [T, H, W, 3], RGB, upright, and the number of frames n.

    Raises:
        VideoError: the file is missing, empty, not a video, damaged, or refused, or has another
            number of frames than num_frames.
    """

    def sample_if_same(n: int) -> np.ndarray:
        if num_frames not in (None, n):
            raise VideoError(f"the file changed since the check, from {num_frames} to {n} frames")
        return sample(n)

    if verdict == "reject":
        raise VideoError("rejected by the check")
    with local_file(os.fspath(path)) as file:
        if verdict is None:
            return _read_unchecked(file, sample_if_same)
        if verdict == "ok":
            return _read_random(file, sample_if_same)
        if verdict == "sequential":
            return _read_in_order(file, sample_if_same)
        kind, _, count = verdict.partition(":")
        if kind != "trim" or not count.isdigit() or int(count) < 1:
            raise ValueError(f"verdict {verdict!r} is none of ok, sequential, trim:N, reject")
        return _read_in_order(file, sample_if_same, num_frames=int(count))


def read_video(
    path: str | os.PathLike, num_frames: int | None = 16, stride: int | None = 4
) -> np.ndarray:
    """Reads one video file exactly, to look at it or to feed a model.

    The default is the middle clip as VideoMAE sees it. Without a manifest to trust, exactness wins
    over speed: this reads through PyAV, and any container that PyAV opens.

        read_video("a.mp4")                          16 frames, 4 apart, from the middle
        read_video("a.mp4", 32, stride=None)         32 frames spread evenly over the whole video
        read_video("a.mp4", num_frames=None, stride=1)    every frame

    Args:
        path: a video file; also a URL, or a record of a shard (see vidjax.data.locators).
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
        with local_file(path) as file:
            seekable = container_of(file) in SEEKABLE
            return (_read_pyav_seeking if seekable else _read_in_order)(file, sample)[0]
    except VideoError as error:
        raise UserError(f"{path} cannot be read as video: {error}") from None


def in_time(read: Callable[[], T], seconds: float) -> T:
    """read(), in a thread of its own.

    A decoder that hangs in C++ answers no signal and no exception. It is left behind: its thread
    keeps neither the caller nor the end of the process waiting.

    Raises:
        VideoError: no answer after `seconds`; its message begins with HANG.
    """
    answer = concurrent.futures.Future()

    def work() -> None:
        try:
            answer.set_result(read())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True, name="vidjax decoder").start()
    concurrent.futures.wait([answer], seconds)
    if not answer.done():
        raise VideoError(f"{HANG} {seconds:g} s")
    return answer.result()


def decord_installed() -> bool:
    """Whether decord, the default reader, can be imported (it has wheels for x86_64 only)."""
    try:
        import decord  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


@contextlib.contextmanager
def local_file(path: str) -> Iterator[str]:
    """A path of the same video that decoders can open, for as long as the context lasts.

    A local file's own path; else that of a copy of the object or record, which on Linux lives in
    memory and goes with the process, however that ends.

    Args:
        path: any locator of vidjax.data.locators.

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
    if not os.path.isfile(path):
        raise VideoError("not a file" if os.path.exists(path) else "no such file")
    if os.path.getsize(path) == 0:
        raise VideoError("empty file")


def _read_unchecked(path: str, sample: Sample) -> tuple[np.ndarray, int]:
    container = container_of(path)
    if container == "AVI":
        return _read_in_order(path, sample)
    if container not in SEEKABLE:
        raise VideoError(
            f"{container or 'unknown'} container is not read unchecked; "
            "run python -m vidjax.data.check on the list and use its manifest"
        )
    # Reading the packets without decoding costs about 5 ms. It refuses broken files before decord
    # prints about them, and shows what decord gets wrong: edit lists (it counts the frames that
    # they hide) and open GOPs (frames after a keyframe in the file but shown before it).
    packets = packets_of(path)
    keyframe = -math.inf
    for packet in packets:
        if packet.pts is None or packet.pts < keyframe:
            return _read_pyav_seeking(path, sample)
        if packet.is_keyframe:
            keyframe = packet.pts
    return _read_random(path, sample, num_frames=len(packets))


def container_of(path: str) -> str | None:
    """The container by its first bytes: a transport stream named .mp4 would hang decord."""
    try:
        with open(path, "rb") as file:
            head = file.read(189)
    except OSError as error:
        raise VideoError(f"cannot be opened: {error.strerror}") from None
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "MP4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "Matroska"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "AVI"
    if head[:1] == b"G" and head[188:189] == b"G":
        return "MPEG-TS"
    return None


def _read_random(
    path: str, sample: Sample, num_frames: int | None = None
) -> tuple[np.ndarray, int]:
    """decord if it can open the file and finds num_frames in it (when given), else PyAV."""
    reader = decord_reader(path)
    if reader is None or num_frames not in (None, len(reader)):
        return _read_pyav_seeking(path, sample)
    import decord

    n = len(reader)
    unique, inverse = _indices(sample, n)
    try:
        batch = reader.get_batch(unique)
        del reader  # while it lives, its own thread decodes what comes after the last frame
        return _arrange(batch.asnumpy(), inverse), n
    except (decord.DECORDError, RuntimeError, IndexError):
        # The file is damaged, or rotated with a width that decord does not expect. PyAV can tell.
        return _read_pyav_seeking(path, lambda n: np.minimum(unique[inverse], n - 1))


def decord_reader(path: str):
    """A new decord reader, or None: no decord here, a codec it lacks (AV1), a broken file."""
    if not decord_installed():
        return None
    import decord

    quiet_worker()
    try:
        return decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    except (decord.DECORDError, RuntimeError):
        return None


@functools.cache
def quiet_worker() -> None:
    """Sends what native code prints in this worker process to /dev/null, once.

    decord's C++ logger ignores its own log level and floods the console about every damaged file.
    Python's sys.stderr keeps the real stream. A main process is left as it is.
    """
    if multiprocessing.parent_process() is None:
        return
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _indices(sample: Sample, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct frames to decode, ascending, and where each goes in the clip."""
    if n == 0:
        raise VideoError("it holds no frames")
    indices = np.asarray(sample(n))
    if indices.ndim != 1 or indices.min() < 0 or indices.max() >= n:
        raise ValueError(f"sample({n}) must give indices [T] in [0, {n}), got {indices}")
    return np.unique(indices, return_inverse=True)


def _arrange(frames: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """frames[inverse], not copied where that is what they are."""
    return frames if np.array_equal(inverse, np.arange(len(frames))) else frames[inverse]


def _read_in_order(
    path: str, sample: Sample, num_frames: int | None = None
) -> tuple[np.ndarray, int]:
    """Decodes from the first frame with PyAV: right for every file that PyAV can decode."""
    n = num_frames or len(packets_of(path))
    unique, inverse = _indices(sample, n)
    wanted, frames, decoded, last = set(unique.tolist()), [], 0, None
    for last in decode_in_order(path):
        if decoded in wanted:
            frames.append(upright_rgb(last))
        decoded += 1
        if len(frames) == len(unique):
            break
    if len(frames) < len(unique) and (decoded == 0 or n - decoded > MISSING_AT_END):
        raise VideoError(f"only {decoded} of {n} frames can be decoded")
    frames += [upright_rgb(last)] * (len(unique) - len(frames))
    return _arrange(_stack(frames), inverse), n


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError("the picture size changes within it")
    return np.stack(frames)


def _read_pyav_seeking(path: str, sample: Sample) -> tuple[np.ndarray, int]:
    """Seeks to the keyframe before each wanted frame, by presentation time.

    Falls back to decoding in order where times or seeks cannot be trusted.
    """
    packets = packets_of(path)
    times = [packet.pts for packet in packets]
    if None in times or len(set(times)) < len(times):
        return _read_in_order(path, sample)
    order = sorted(times)
    keyframes = sorted((p.pts, p.pts if p.dts is None else p.dts) for p in packets if p.is_keyframe)
    if not keyframes:
        return _read_in_order(path, sample)
    unique, inverse = _indices(sample, len(order))
    by_keyframe: dict[tuple[int, int], list[int]] = {}
    start, end = 0, -1  # a keyframe to seek to, and the last frame that is read from there
    for index in unique.tolist():
        # Frames before the first keyframe exist in cut streams; they need the very start.
        place = max(bisect.bisect_right(keyframes, (order[index], math.inf)) - 1, 0)
        if end < 0 or bisect.bisect_left(order, keyframes[place][0]) - end > NEAR:
            start = place
        end = index
        by_keyframe.setdefault(keyframes[start], []).append(order[index])
    frames = {}
    with _pyav_errors(), open_stream(path) as (container, stream):
        for (pts, dts), targets in by_keyframe.items():
            for moment in (pts, min(pts, dts)):  # formats differ in which of the two they seek by
                container.seek(moment, stream=stream, backward=True)
                if found := _decode_times(container, stream, pts, targets):
                    frames |= found
                    break
    if len(frames) < len(unique):
        return _read_in_order(path, lambda n: unique[inverse])
    return _arrange(_stack([frames[order[index]] for index in unique]), inverse), len(order)


def _decode_times(container, stream, keyframe: int, targets: list[int]) -> dict[int, np.ndarray]:
    """Frames by presentation time; none if the seek went past the keyframe."""
    frames, landed, decoder = {}, False, stream.codec_context
    for packet in container.demux(stream):
        if not landed and packet.size:
            if packet.pts is None or packet.pts > keyframe:
                return {}
            landed = True
        if decoder.name == "h264":
            # A third to a half of the frames, from which no other is predicted, need no decoding
            # where they are not wanted. Of other codecs this is not so sure.
            decoder.skip_frame = "DEFAULT" if packet.pts in targets else "NONREF"
        for frame in packet.decode():
            if frame.pts in targets:
                frames[frame.pts] = upright_rgb(frame)
                if len(frames) == len(targets):
                    return frames
    return frames


def packets_of(path: str) -> list[Packet]:
    """The packets that become frames, without decoding; their number is the number of frames."""
    with _pyav_errors(), open_stream(path) as (container, stream):
        return [
            Packet(p.pts, p.dts, p.is_keyframe)
            for p in container.demux(stream)
            # is_discard: before the start of an MP4's edit list, decoded but never shown.
            if p.size and not p.is_discard
        ]


def decode_in_order(path: str) -> Iterator:
    """PyAV's frames from the first to the last; `upright_rgb` makes arrays of them."""
    with _pyav_errors(), open_stream(path) as (container, stream):
        yield from container.decode(stream)


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[tuple]:
    import av

    # Film titles in old AVIs are not UTF-8; unclosed containers leak files and memory.
    with av.open(path, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise VideoError("no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        yield container, stream


@contextlib.contextmanager
def _pyav_errors() -> Iterator[None]:
    import av

    try:
        yield
    except av.FFmpegError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise VideoError(f"cannot be decoded: {reason}") from None


def upright_rgb(frame) -> np.ndarray:
    """uint8 [H, W, 3], turned upright as decord does."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
