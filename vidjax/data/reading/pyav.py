"""Reads video files with PyAV: the default reader.

A file's packets are read first, without decoding. They give its `Index`: when each frame is shown
and where decoding can start. Any frame of a healthy MP4, MOV, MKV or WebM is then found by seeking.
In other containers, and where the index shows trouble, frames are counted and read by decoding
from the first one, as only the decoder knows how many there are.

A packet that cannot be decoded is left out. Where frames are told by their times, the one before
is shown again in its place, so that the others keep theirs.
"""

import bisect
import contextlib
import functools
import itertools
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vidjax.data.reading.containers import SEEKABLE, require_moving, require_video
from vidjax.data.reading.watchdog import progress
from vidjax.errors import VideoError

# Frames up to the next keyframe that are decoded rather than left out by a seek, which costs more.
NEAR = 6

# Codecs whose every packet is a frame, as it is where all are keyframes. Others hide frames that
# are never shown, or cut one into two packets.
_FRAME_A_PACKET = ("h264", "hevc", "vp8", "vp9", "av1", "gif")

CUT_OFF = "the file is cut off or damaged"

# Flags of FFmpeg's scaler: its default; bicubic, which it takes where a video changes its size and
# which smooths when it reduces; and with exact rounding, without which each change between RGB and
# YUV darkens the picture by a level.
_BILINEAR, _BICUBIC = 0x2, 0x4
EXACT = _BICUBIC | 0x40000 | 0x2000


class Index(NamedTuple):
    """The frames of a file.

    Attributes:
        count: how many there are.
        times: when they are shown, ascending, in units of `unit`; () where that is not known.
        unit: seconds.
        rate: frames a second; nan where that is not known.
        keyframes: (presentation, decoding) times at which decoding can start, ascending.
        problem: why neither `count` nor seeking can be trusted before all is decoded; or "".
        codec: FFmpeg's name of it.
        by_time: whether decoded frames are told by their times; else they are counted.
        has_open_gops: whether frames that follow a keyframe in the file are shown before it.
    """

    count: int
    times: Sequence[int] = ()
    unit: Fraction = Fraction(1)
    rate: float = math.nan
    keyframes: Sequence[tuple[int, int]] = ()
    problem: str = ""
    codec: str = ""
    by_time: bool = True
    has_open_gops: bool = False

    def counted(self, count: int, times: Sequence[int] = ()) -> "Index":
        """Returns the index of the first `count` frames that can be decoded."""
        return self._replace(count=count, times=times, by_time=False)


def index_of(path: str) -> Index:
    """Reads the packets of a local file, without decoding them.

    Raises:
        VideoError: it is no video, or cannot be opened.
    """
    shown, keyframes, first, is_damaged = [], [], None, False
    file_size = os.path.getsize(path)
    with _errors(), open_stream(path) as (container, stream):
        codec, unit = stream.codec_context.codec, stream.time_base
        name = codec.canonical_name
        rate = float(stream.average_rate or stream.guessed_rate or math.nan)
        for packet in _packets(container, stream):
            # VP8 marks frames that are never shown, which others are predicted from.
            if name == "vp8" and not memoryview(packet)[0] & 0x10:
                continue
            facts = _time(packet), packet.dts, packet.is_keyframe
            first = first or facts
            is_damaged |= packet.is_corrupt
            if packet.is_keyframe:
                keyframes.append((facts[0], facts[0] if facts[1] is None else facts[1]))
            if not packet.is_discard:  # before the start of an edit list: decoded, never shown
                shown.append(facts)
        is_damaged |= any(e.size > 0 and e.pos + e.size > file_size for e in stream.index_entries)
        is_seekable = container.format.name in SEEKABLE
        is_frame_a_packet = name in _FRAME_A_PACKET or codec.intra_only
    times = [time for time, *_ in shown]
    if None in times or len(set(times)) < len(times):
        problem = "timestamps are missing or repeated"
        return Index(len(shown), (), unit, rate, (), problem, name, by_time=False)
    keyframes.sort()
    problem = ""
    if is_damaged:
        problem = CUT_OFF
    elif not keyframes or not first[2] or min(times) < first[0]:
        problem = "it does not begin with a keyframe"
    elif not is_seekable:
        problem = "its container has no index of frames"
    elif not is_frame_a_packet:
        problem = f"a packet of {name} may hold no frame, or a part of one"
    latest = itertools.accumulate((t if key else -math.inf for t, _, key in shown), max)
    opens = any(time < keyframe for time, keyframe in zip(times, latest, strict=True))
    times.sort()
    rate = _rate(times, unit, rate)
    return Index(len(shown), times, unit, rate, keyframes, problem, name, has_open_gops=opens)


def decoded_index_of(path: str, index: Index) -> Index:
    """Counts and times the frames of a local file by decoding all of it.

    Raises:
        VideoError: no frame can be decoded.
    """
    times = [_time(frame) for frame in decode(path)]
    if None in times or any(a >= b for a, b in itertools.pairwise(times)):
        return index.counted(len(times))
    rate = _rate(times, index.unit, index.rate)
    return index.counted(len(times), times)._replace(rate=rate)


def _rate(times: Sequence[int], unit: Fraction, promised: float) -> float:
    """Returns frames a second by their times; for a single one, what the file promises."""
    return (len(times) - 1) / float((times[-1] - times[0]) * unit) if times[1:] else promised


def read_at(
    path: str, index: Index, indices: Sequence[int], each: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray] | None:
    """Reads frames by seeking to the keyframe before each.

    Args:
        path: a local file.
        index: of the file; it has times and keyframes.
        indices: of the frames, ascending, each once.
        each: from a picture uint8 [H, W, 3], RGB and upright, to what is kept of it.

    Returns:
        each(picture) of the frames; None if one is not where the index says, or cannot be decoded.
    """
    starts = [time for time, _ in index.keyframes]
    runs: dict[tuple[int, int], list[int]] = {}
    run, last = None, 0  # the times that are read from one keyframe on, and the last frame of them
    for frame in indices:
        time = index.times[frame]
        place = max(bisect.bisect_right(starts, time) - 1, 0)
        if run is None or bisect.bisect_left(index.times, starts[place]) - last > NEAR:
            run = runs.setdefault(index.keyframes[place], [])
        run.append(time)
        last = frame
    kept: dict[int, np.ndarray] = {}
    with contextlib.suppress(VideoError), _errors(), open_stream(path) as (container, stream):
        decoder = stream.codec_context
        pictures = Pictures(path, (decoder.height, decoder.width))
        for (shown, sent), targets in runs.items():
            for moment in (shown, min(shown, sent)):  # containers differ in what they seek by
                container.seek(moment, stream=stream, backward=True)
                frames = _frames_at(container, stream, shown, targets)
                kept |= {time: each(pictures(frame)) for time, frame in frames}
                if kept.keys() >= {*targets}:
                    break
            else:
                return None
        return [kept[index.times[frame]] for frame in indices]
    return None


def _frames_at(container, stream, keyframe: int, targets: Sequence[int]) -> Iterator[tuple]:
    """Yields (time, frame) of the targets; nothing if the seek went past the keyframe."""
    wanted, landed, decoder = {*targets}, False, stream.codec_context
    for packet in container.demux(stream):
        progress()
        if not landed and packet.size:
            if _time(packet) is None or _time(packet) > keyframe:
                return
            landed = True
        if decoder.name == "h264":
            # A third to a half of the frames, from which no other is predicted, need no decoding
            # where they are not wanted. Of other codecs this is not so sure.
            decoder.skip_frame = "DEFAULT" if _time(packet) in wanted else "NONREF"
        for frame in packet.decode():
            time = _time(frame)
            if time is None or time < keyframe:
                continue
            if frame.is_corrupt:  # what stands in for damage depends on what was decoded before
                return
            if time in wanted:
                wanted.remove(time)
                yield time, frame
                if not wanted:
                    return


def in_order(
    path: str, index: Index, scaler: int | None = None
) -> Iterator[Callable[[], np.ndarray]]:
    """Decodes a local file from its first frame on.

    Args:
        path: the file.
        index: of the file.
        scaler: as of Pictures.

    Yields:
        For each frame of the index a function that makes its picture, uint8 [H, W, 3].

    Raises:
        VideoError: a frame cannot be decoded; where they are told by times, more than half.
    """
    pictures, show, yielded, decoded = Pictures(path, scaler=scaler), None, 0, 0
    places = {time: place for place, time in enumerate(index.times)} if index.by_time else None
    tolerated = index.count // 2 if index.by_time else 0

    def require(missing: int) -> None:
        if missing > tolerated:
            raise VideoError(f"{missing} of {index.count} frames cannot be decoded")

    for frame in decode(path):
        pictures.fit(frame)
        place = decoded if places is None else places.get(_time(frame), -1)
        if place < yielded:  # it is hidden by an edit list
            continue
        require(place - decoded)
        before, show = show, functools.partial(pictures, frame)
        yield from itertools.repeat(before or show, place - yielded)
        yield show
        yielded, decoded = place + 1, decoded + 1
        if yielded == index.count:
            return
    require(index.count - decoded)
    yield from itertools.repeat(show, index.count - yielded)


def decode(path: str) -> Iterator[Any]:
    """Yields PyAV's frames of a local file from the first to the last that can be decoded.

    Raises:
        VideoError: none can be.
    """
    count, reason = 0, "it holds no frames"
    with _errors(), open_stream(path) as (container, stream):
        for packet in itertools.chain(_packets(container, stream), [None]):
            try:
                frames = stream.codec_context.decode(packet)
            except _ffmpeg_error() as error:
                reason = _reason(error)
                continue
            for frame in frames:
                progress()
                count += 1
                yield frame
    if not count:
        raise VideoError(reason)


class Pictures:
    """Makes pictures of frames: uint8 [H, W, 3], RGB, upright, all of the size of the first.

    Args:
        path: the file that the frames are of.
        expected: height and width that its header promises; frames of this size are the first's.
        scaler: flags of the change to RGB, such as EXACT for who encodes the pictures again; None
            is the quick one of other programs.
    """

    def __init__(
        self, path: str, expected: tuple[int, int] | None = None, scaler: int | None = None
    ):
        from av.video.reformatter import VideoReformatter

        self._path, self._expected, self._scaler = path, expected, scaler
        self._reformatter = VideoReformatter()  # one for all frames, which saves a third
        self._size: tuple[int, int] | None = None  # height and width, as they are stored
        self._turn = (False, 1, 1)

    def fit(self, frame: Any) -> None:
        """Takes the size and the orientation of this frame for all, if it is the first."""
        if self._size is None:
            if self._expected not in (None, (frame.height, frame.width)):
                frame = next(decode(self._path))
            # Not of each frame: PyAV would keep those that are asked until garbage is collected.
            self._size, self._turn = (frame.height, frame.width), _turn(frame)

    def __call__(self, frame: Any) -> np.ndarray:
        self.fit(frame)
        height, width = self._size
        swap, down, across = self._turn
        changes = (frame.height, frame.width) != self._size
        scaler = self._scaler or (_BICUBIC if changes else _BILINEAR)
        with _errors():
            rgb = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=scaler)
            picture = rgb.to_ndarray()
        picture = picture.swapaxes(0, 1) if swap else picture
        return np.ascontiguousarray(picture[::down, ::across])


def _turn(frame: Any) -> tuple[bool, int, int]:
    """Returns how a frame becomes upright: swap rows and columns, then the steps along each.

    The display matrix of the file, rounded to quarter turns, with or without a mirror (front
    cameras write one).
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, 1, 1
    # Column x, row y of the file are shown at column ax + cy, row bx + dy.
    a, b, _, c, d = struct.unpack("<5i", bytes(matrix)[:20])
    swap = abs(a) + abs(d) < abs(b) + abs(c)
    across, down = (c, b) if swap else (a, d)
    return swap, -1 if down < 0 else 1, -1 if across < 0 else 1


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[tuple]:
    """Opens a local file; gives PyAV's container and the one track of it that is read.

    That is the largest of those that the container marks as default, or of all.

    Raises:
        VideoError: the file is no video.
    """
    import av

    require_video(path)
    # PyAV before 19 fails on metadata that is not UTF-8 (titles in old AVIs), unless told not to.
    old = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    # By its full path, as 12:30:05.mp4 alone would name a protocol; and nothing else may be opened
    # on its behalf.
    name, files_only = str(os.path.abspath(path)), {"protocol_whitelist": "file"}
    with av.open(name, options=files_only, **old) as container:
        require_moving(container.format.name, container.metadata.get("major_brand", ""))
        stream = _track(container)
        stream.codec_context.thread_count = 1
        # Else the left and upper part of what is to be cropped would stay.
        stream.codec_context.flags |= av.codec.context.Flags.unaligned
        yield container, stream


def _track(container: Any) -> Any:
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    tracks = container.streams.video
    moving = [track for track in tracks if not track.disposition & still]
    if not moving:
        raise VideoError("no video stream" + (", only a cover picture" if tracks else ""))
    moving = [track for track in moving if track.codec_context is not None]
    if not moving:
        raise VideoError("no decoder for its codec")
    marked = [track for track in moving if track.disposition & Disposition.default]
    return max(marked or moving, key=lambda t: t.codec_context.width * t.codec_context.height)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yields the packets of a track, up to where the file is damaged."""
    packets = container.demux(stream)
    with contextlib.suppress(StopIteration, _ffmpeg_error()):
        while True:
            packet = next(packets)
            progress()
            if packet.size:
                yield packet


def _time(packet_or_frame: Any) -> int | None:
    """Returns the presentation time; where the container has none (AVI), the decoding time."""
    return packet_or_frame.dts if packet_or_frame.pts is None else packet_or_frame.pts


def _ffmpeg_error() -> type[Exception]:
    import av

    return av.FFmpegError


def _reason(error: Any) -> str:
    return f"cannot be decoded: {(error.strerror or type(error).__name__).lower()}"


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turns errors of PyAV into VideoErrors."""
    try:
        yield
    except _ffmpeg_error() as error:
        raise VideoError(_reason(error)) from None
