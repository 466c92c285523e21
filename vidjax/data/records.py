"""Records that data workers make: a video's clips and label, and why others were not used.

A record is a dict of clips uint8 [R, T, H, W, 3], label, video_id, weight, errors, a list of
(video_id, reason), and kept, what frame_cache.Kept says of the video or None; in training on texts
also text int32 [L] and text_mask bool [L]. The classes here are pickled to the worker processes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vidjax.data.datasets import Video
from vidjax.data.frame_cache import FrameCache, Kept, NoCache
from vidjax.data.frames import clips, sampling
from vidjax.errors import VideoError
from vidjax.preprocessing import Preprocessing

Tokenize = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]

# With at most a share s of bad videos, a record fails with probability s ** TRIES.
TRIES = 20


@dataclasses.dataclass(frozen=True)
class TrainRecord:
    """Video index -> clips of that video, or of another where it is bad."""

    videos: Sequence[Video]
    cfg: Any
    hanging: Mapping[str, str]
    tokenize: Tokenize | None = None
    cache: FrameCache | NoCache = NoCache()  # noqa: RUF009 (it has no state)

    def __call__(self, video_id: int, rng: np.random.Generator) -> dict[str, Any]:
        cfg, errors = self.cfg, []
        min_frames = cfg.min_frames or sampling.fewest_frames(cfg.sampling, cfg.frames)

        def sample(num_frames: int) -> np.ndarray:
            if num_frames < min_frames:
                raise VideoError(f"too short: {num_frames} frames of at least {min_frames}")
            return sampling.train_indices(cfg.sampling, num_frames, cfg.frames, cfg.stride, rng)

        read, step = self.cache.frames, clips.fixed_step(cfg)
        for _ in range(TRIES):
            video = self.videos[video_id]
            try:
                frames, kept = _decode(video, self.hanging, cfg.reader, read, sample, step)
            except VideoError as error:
                errors.append((video_id, str(error)))
                video_id = int(rng.integers(len(self.videos)))
                continue
            views = [clips.train_clip(frames, rng, cfg) for _ in range(cfg.repeats)]
            record = _record(np.stack(views), video.label, video_id, 1.0, errors, kept)
            if self.tokenize is not None:  # last, so that the clips do not depend on it
                ids, mask = self.tokenize([video.captions[rng.integers(len(video.captions))]])
                record |= {"text": ids[0], "text_mask": mask[0]}
            return record
        return _record(np.zeros((0,), np.uint8), -1, -1, 0.0, errors)  # the parent raises


@dataclasses.dataclass(frozen=True)
class EvalRecord:
    """Video index -> all views of it; zeros of weight 0 past the end or where it is bad."""

    videos: Sequence[Video]
    preprocessing: Preprocessing
    views: tuple[int, int]
    hanging: Mapping[str, str]
    reader: str
    cache: FrameCache | NoCache = NoCache()  # noqa: RUF009 (it has no state)

    def __call__(self, video_id: int) -> dict[str, Any]:
        facts, errors = self.preprocessing, []
        views = self.views[0] * self.views[1]
        zeros = np.zeros((views, facts.frames, facts.size, facts.size, 3), np.uint8)
        if video_id >= len(self.videos):
            return _record(zeros, -1, -1, 0.0, errors)
        video = self.videos[video_id]
        try:
            read = self.cache.views
            crops, kept = _decode(video, self.hanging, self.reader, read, facts, self.views)
        except VideoError as error:
            errors.append((video_id, str(error)))
            return _record(zeros, video.label, video_id, 0.0, errors)
        return _record(crops, video.label, video_id, 1.0, errors, kept)


@dataclasses.dataclass(frozen=True)
class HostShard:
    """This host's rows of every global batch, as a data source from a step on.

    Rows keep their place in the batch for any number of hosts: masks and mixing partners go by it.
    """

    records: Any
    batch_size: int
    rows: Sequence[int]
    start_step: int

    def __len__(self) -> int:
        return (len(self.records) // self.batch_size - self.start_step) * len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        step, row = divmod(place, len(self.rows))
        return self.records[(self.start_step + step) * self.batch_size + self.rows[row]]


def _decode(
    video: Video, hanging: Mapping[str, str], reader: str, read: Callable, *args: Any
) -> Any:
    """Returns read(path, *args), unless the video has hung its decoder in an earlier run."""
    if video.path in hanging:
        raise VideoError(f"in an earlier run, {hanging[video.path]}")
    return read(
        video.path, *args, verdict=video.verdict, num_frames=video.num_frames, reader=reader
    )


def _record(
    clips: np.ndarray,
    label: int | tuple[int, ...],
    video_id: int,
    weight: float,
    errors: list[tuple[int, str]],
    kept: Kept | None = None,
) -> dict[str, Any]:
    return dict(
        clips=clips, label=label, video_id=video_id, weight=weight, errors=errors, kept=kept
    )
