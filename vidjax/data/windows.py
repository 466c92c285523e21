"""Videos of any length as clips: windows one after the other, decoded as they are needed.

A checkpoint with a dense sampling has windows of frames * stride frames; for the others the whole
video is one, unless their length is given. Each is sampled as if it were a video by itself. The
last window ends with the video.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from vidjax.data.datasets import Video
from vidjax.data.frames.clips import eval_views
from vidjax.data.frames.sampling import view_indices
from vidjax.data.reading import video
from vidjax.data.reading.ahead import read_ahead
from vidjax.data.reading.watchdog import watched
from vidjax.errors import UserError, VideoError, brief
from vidjax.preprocessing import Preprocessing

Span = tuple[int, int, float, float]  # first frame, end, and their times in seconds


@dataclasses.dataclass(frozen=True)
class Windows:
    """Cuts of videos into windows.

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
            raise UserError(
                "this checkpoint takes the whole video as one window; with --window_stride set "
                "--window_seconds, too"
            )

    @property
    def dense(self) -> bool:
        return self.facts.sampling.startswith("dense")

    def spans(self, num_frames: int, rate: float) -> list[tuple[int, int]]:
        """Returns first frame and end of each window of a video with `rate` frames a second."""
        length = self.facts.frames * self.facts.stride if self.dense else num_frames
        if self.seconds is not None:
            length = _frames(self.seconds, rate)
        step = length if self.stride is None else _frames(self.stride, rate)
        starts = [*range(0, max(num_frames - length, 0) + 1, step)]
        if starts[-1] + length < num_frames:
            starts.append(num_frames - length)
        return [(start, min(start + length, num_frames)) for start in starts]

    def indices(self, start: int, end: int) -> np.ndarray:
        """Returns the frames of a window, int64 [T]."""
        facts = self.facts
        return start + view_indices(facts.sampling, end - start, facts.frames, facts.stride)[0]


def read_all(
    videos: Sequence[Video], windows: Windows, ahead: int
) -> Iterator[tuple[str, np.ndarray | list[Span] | str]]:
    """Reads clips of all windows of all videos, in threads that each read a video of its own.

    Yields:
        (path, clip uint8 [T, size, size, 3]) for each window, in order of time but mixed with
        those of other videos; after the last (path, list of the windows); or (path, reason) for a
        video that cannot be read, clips of which may have come. At most `ahead` wait. The reason
        of a video that hangs its decoder begins with vidjax.data.reading.watchdog.HANG.
    """
    answers = read_ahead(videos, functools.partial(_answers, windows=windows), ahead)
    with contextlib.closing(answers):
        for item, answer in answers:
            yield item.path, answer


def _answers(item: Video, windows: Windows) -> Iterator[np.ndarray | list[Span] | str]:
    try:
        yield from read(item, windows)
    except VideoError as error:
        yield str(error)
    except Exception as error:  # one strange file must not end a job of thousands
        yield brief(error)


def read(item: Video, windows: Windows) -> Iterator[np.ndarray | list[Span]]:
    """Yields clips uint8 [T, size, size, 3] of a video's windows, and last the list of these.

    Raises:
        VideoError: the file cannot be read, hangs its decoder, or has another number of frames than
            the check found.
    """
    with video.local_file(item.path) as path:
        index = watched(lambda: video.index_of(path, item.verdict, item.num_frames))
        times = _seconds(index)
        spans = windows.spans(index.count, index.rate)
        clips = [windows.indices(*span) for span in spans]
        if len(clips) == 1 and index.by_time:  # often a few frames of many
            yield video.read_frames(
                path,
                lambda _: clips[0],
                each=lambda picture: eval_views(picture[None], windows.facts)[0, 0],
                verdict=item.verdict,
                num_frames=item.num_frames,
            )[0]
        else:
            pieces = _in_order(path, index, clips, windows.facts)
            while (clip := watched(lambda: next(pieces, None))) is not None:
                yield clip
        yield [(start, end, float(times[start]), float(times[end])) for start, end in spans]


def _in_order(
    path: str, index: video.Index, clips: list[np.ndarray], facts: Preprocessing
) -> Iterator[np.ndarray]:
    """Makes clips of given frames in one pass over the video: seeking for each would read it anew.

    Frames are kept as their crops, and no longer than a clip needs them.
    """
    wanted, held, place = set(np.concatenate(clips).tolist()), {}, 0
    for number, show in enumerate(video.in_order(path, index)):
        if number in wanted:
            held[number] = eval_views(show()[None], facts)[0, 0]
        while clips[place].max() <= number:
            yield np.stack([held[i] for i in clips[place].tolist()])
            place += 1
            if place == len(clips):
                return
            first = clips[place].min()
            held = {i: frame for i, frame in held.items() if i >= first}


def _seconds(index: video.Index) -> np.ndarray:
    """Returns when frames begin and the last ends, in seconds from the first [N + 1]."""
    if not len(index.times):
        return np.arange(index.count + 1) / index.rate
    times = (np.asarray(index.times) - index.times[0]) * float(index.unit)
    return np.append(times, times[-1] + 1 / index.rate)


def _frames(seconds: float, rate: float) -> int:
    if not rate > 0:
        raise VideoError("it has no times, so no windows of seconds can be cut")
    return max(1, round(seconds * rate))
