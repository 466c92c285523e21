"""Videos of any length as clips: windows one after the other, decoded as they are needed.

A checkpoint with a dense sampling has windows of frames * stride frames; for the others the whole
video is one, unless their length is given. Each is sampled as if it were a video by itself. The
last window ends with the video.
"""

import collections
import contextlib
import dataclasses
import os
import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from vidjax.data import video
from vidjax.data.datasets import Video
from vidjax.data.sampling import view_indices
from vidjax.data.transforms import Preprocessing, eval_views
from vidjax.errors import UserError

# Seconds without a sign of life after which a decoder hangs, and one more for every so many bytes
# of the file: to count the frames of a long film is to read all of it.
_PATIENCE = 60.0
_BYTES_A_SECOND = 10**7
_SIGN = 32  # frames from one sign of life to the next

Span = tuple[int, int, float, float]  # first frame, end, and their times in seconds


@dataclasses.dataclass(frozen=True)
class Windows:
    """How videos are cut.

    Attributes:
        facts: of the clips.
        seconds: length of a window; None: see the module.
        stride: seconds between the starts of two windows; None: their length, so that they neither
            overlap nor leave gaps.

    Raises:
        UserError: a time that is not above 0, or that has no meaning for the sampling.
    """

    facts: Preprocessing
    seconds: float | None = None
    stride: float | None = None

    def __post_init__(self):
        for name in ("seconds", "stride"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--window_{name}={value} must be above 0, in seconds")
        if self.dense and self.seconds is not None:
            raise UserError(
                f"--window_seconds is for checkpoints that sample a whole video; this one's clips "
                f"are {self.facts.frames} frames {self.facts.stride} apart; set --window_stride"
            )
        if not self.dense and self.stride is not None and self.seconds is None:
            raise UserError("this checkpoint takes the whole video as one window; with "
                            "--window_stride set --window_seconds, too")  # fmt: skip

    @property
    def dense(self) -> bool:
        return self.facts.sampling.startswith("dense")

    def spans(self, num_frames: int, rate: float) -> list[tuple[int, int]]:
        """First frame and end of each window of a video with `rate` frames a second."""
        length = self.facts.frames * self.facts.stride if self.dense else num_frames
        if self.seconds is not None:
            length = _frames(self.seconds, rate)
        step = length if self.stride is None else _frames(self.stride, rate)
        starts = [*range(0, max(num_frames - length, 0) + 1, step)]
        if starts[-1] + length < num_frames:
            starts.append(num_frames - length)
        return [(start, min(start + length, num_frames)) for start in starts]

    def indices(self, start: int, end: int) -> np.ndarray:
        """The frames of a window, int64 [T]."""
        facts = self.facts
        return start + view_indices(facts.sampling, end - start, facts.frames, facts.stride)[0]


def read_all(
    videos: Sequence[Video], windows: Windows, ahead: int
) -> Iterator[tuple[str, np.ndarray | list[Span] | str]]:
    """Clips of all windows of all videos, which threads read, each its own video.

    Yields:
        (path, clip uint8 [T, size, size, 3]) for each window, in order of time but mixed with
        those of other videos; after the last (path, list of the windows); or (path, reason) for a
        video that cannot be read, clips of which may have come. At most `ahead` wait. The reason
        of a video that hangs its decoder begins with vidjax.data.video.HANG.
    """
    todo, ready, closed = collections.deque(videos), queue.Queue(ahead), threading.Event()

    def work() -> None:
        with contextlib.suppress(IndexError):  # of popleft, at the end
            while True:
                item = todo.popleft()
                for answer in _answers(item, windows):
                    while True:
                        if closed.is_set():
                            return
                        with contextlib.suppress(queue.Full):
                            ready.put((item.path, answer), timeout=0.2)
                            break

    for _ in range(min(os.cpu_count() or 1, len(videos))):
        threading.Thread(target=work, daemon=True, name="vidjax windows").start()
    try:
        left = len(videos)
        while left:
            path, answer = ready.get()
            left -= not isinstance(answer, np.ndarray)
            yield path, answer
    finally:
        closed.set()


def _answers(item: Video, windows: Windows) -> Iterator[np.ndarray | list[Span] | str]:
    try:
        yield from read(item, windows)
    except video.VideoError as error:
        yield str(error)
    except Exception as error:  # one strange file must not end a job of thousands
        yield f"{type(error).__name__}: {error}".splitlines()[0]


def read(item: Video, windows: Windows) -> Iterator[np.ndarray | list[Span]]:
    """Clips uint8 [T, size, size, 3] of a video's windows, and last the list of these.

    Raises:
        VideoError: the file cannot be read, hangs its decoder (which takes a minute, or more with
            gigabytes, to show), or has another number of frames than the check found.
    """
    with video.local_file(item.path) as path:
        item = dataclasses.replace(item, path=path)
        patience = _PATIENCE + os.path.getsize(item.path) // _BYTES_A_SECOND
        times, rate = video.in_time(lambda: _times(item), patience)
        count, facts = len(times) - 1, windows.facts
        spans = windows.spans(count, rate)
        clips = [windows.indices(*span) for span in spans]
        seekable = item.verdict == "ok" or (
            item.verdict is None and video.container_of(item.path) in video.SEEKABLE
        )
        if len(clips) == 1 and seekable:  # often a few frames of many

            def few() -> tuple[np.ndarray, int]:
                return video.read_frames(item.path, lambda _: clips[0], verdict=item.verdict)

            yield eval_views(video.in_time(few, patience)[0], facts)[0]
        else:
            yield from _watched(_in_order(item.path, count, clips, facts), patience)
        yield [(start, end, float(times[start]), float(times[end])) for start, end in spans]


def _watched(pieces: Iterator[np.ndarray | None], patience: float) -> Iterator[np.ndarray]:
    """The clips among the pieces, the wait for each piece no longer than `patience`."""
    end = object()
    while (piece := video.in_time(lambda: next(pieces, end), patience)) is not end:
        if piece is not None:
            yield piece


def _in_order(
    path: str, count: int, clips: list[np.ndarray], facts: Preprocessing
) -> Iterator[np.ndarray | None]:
    """Clips of given frames from one pass over the video, as seeking for each would read it anew.

    Frames are kept as their crops, and no longer than a clip needs them. None in between is a sign
    of life, as one window can be hours.
    """
    wanted, held, decoded, place, last = set(np.concatenate(clips).tolist()), {}, 0, 0, None

    def crop(frame) -> np.ndarray:
        return eval_views(video.upright_rgb(frame)[None], facts)[0, 0]

    for last in video.decode_in_order(path):
        if decoded in wanted:
            held[decoded] = crop(last)
        while place < len(clips) and clips[place].max() <= decoded:
            yield np.stack([held[i] for i in clips[place].tolist()])
            place += 1
            first = clips[place].min() if place < len(clips) else count
            held = {i: frame for i, frame in held.items() if i >= first}
        if place == len(clips):
            return
        decoded += 1
        if decoded % _SIGN == 0:
            yield None
    if not decoded or count - decoded > video.MISSING_AT_END:
        raise video.VideoError(f"only {decoded} of {count} frames can be decoded")
    end = crop(last)
    for clip in clips[place:]:
        yield np.stack([held.get(i, end) for i in clip.tolist()])


def _times(item: Video) -> tuple[np.ndarray, float]:
    """When each frame begins and the last ends, in seconds from the first [N + 1]; the rate."""
    packets = video.packets_of(item.path)
    trimmed = (item.verdict or "").startswith("trim:")
    count = int(item.verdict[5:]) if trimmed else len(packets)
    if not count:
        raise video.VideoError("it holds no frames")
    if item.num_frames not in (None, count):
        raise video.VideoError(
            f"the file changed since the check, from {item.num_frames} to {count} frames"
        )
    with video.open_stream(item.path) as (_, stream):
        unit, rate = float(stream.time_base), float(stream.average_rate or np.nan)
    stamps = [packet.pts for packet in packets]
    if None in stamps or len(set(stamps)) < len(stamps):
        return np.arange(count + 1) / rate, rate
    times = (np.sort(stamps)[:count] - min(stamps)) * unit
    rate = (count - 1) / times[-1] if count > 1 else rate
    return np.append(times, times[-1] + 1 / rate), rate


def _frames(seconds: float, rate: float) -> int:
    if not rate > 0:
        raise video.VideoError("it has no times, so no windows of seconds can be cut")
    return max(1, round(seconds * rate))
