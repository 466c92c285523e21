"""Batches of clips, built ahead by this host's cores.

    train_loader   endless, shuffled, augmented; a pure function of (seed, step)
    eval_loader    every video once, in fixed views

A batch is a dict of numpy arrays: video uint8 [B, T, H, W, 3], label int32 [B] (or [B, G] where the
list has G labels a video; -1: none), video_id int32 [B] (index into the list) and weight float32
[B] (0: padding, or a video that could not be read); in training with a tokeniser also text int32
[B, L] and text_mask bool [B, L] (True: a real token) of one of the video's captions.

grain reads the records, in worker processes or in threads of this one. The order of its steps is
what makes the stream the same for any number of workers and hosts (each was measured to break it
elsewhere): shuffle -> repeat -> random_map -> a host's share -> workers -> batches. Resuming needs
the step alone.
"""

import contextlib
import functools
import multiprocessing
import os
import queue
import re
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vidjax import signals
from vidjax.data import segments
from vidjax.data.bad_videos import BadVideos
from vidjax.data.datasets import DATASETS, Video
from vidjax.data.frame_cache import Tally, open_cache
from vidjax.data.frames import clips
from vidjax.data.reading import locators
from vidjax.data.reading.video import FETCH, check_reader
from vidjax.data.reading.watchdog import HANG, watched
from vidjax.data.records import TRIES, EvalRecord, HostShard, Tokenize, TrainRecord
from vidjax.errors import Fault, UserError, VideoError
from vidjax.preprocessing import Preprocessing, check_views

Batch = dict[str, np.ndarray]

# Seconds that a loader may take to end after its workers hung.
_CLOSING = 15.0


def train_loader(
    videos: Sequence[Video],
    cfg: Any,
    *,
    seed: int,
    bad_videos: BadVideos,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    workers: int = -1,
    tokenize: Tokenize | None = None,
) -> "Batches":
    """Makes endless training batches from step `start_step` on.

    The global batch is the same for any number of hosts, each of which reads some rows of it.
    A video that cannot be read, or has fewer than cfg.min_frames frames (0: cfg.frames, but 1 where
    the sampling plays short videos again), is reported to `bad_videos` and replaced by another,
    drawn from the record's own random numbers.
    A video that hangs its decoder ends the run, is reported too, and replaced in the next run.

    Args:
        videos: the training list.
        cfg: the config's data block. cfg.batch_size counts videos of all hosts; with cfg.repeats =
            r a batch holds r differently augmented clips of each, side by side (one decode).
            cfg.cache does not change the stream: see frame_cache.py.
        seed: of order, sampling and augmentation.
        start_step: steps already trained; the stream continues exactly there.
        rows: places of the global batch's videos that this host reads, ascending; None: all.
        workers: processes that decode; 0: threads of this one; -1: from the number of cores.
        tokenize: texts -> (ids int32 [K, L], mask bool [K, L]), such as tokenizers.Tokenizer; then
            each video comes with one of its captions, drawn anew every time, the same for its r
            clips. The clips are those of the stream without. Worker processes get it pickled.

    Raises:
        UserError: cfg is wrong, the list is empty, a video has no caption but `tokenize` is given,
            or (while iterating) too many videos are bad, one hangs its decoder, a worker died, or
            no batch came for cfg.patience seconds.
    """
    Preprocessing.from_config(cfg)  # complains about wrong values here, not in a worker
    clips.check_training(cfg)
    check_reader(cfg.reader)
    if not len(videos):
        raise UserError("the training list holds no videos; set data.train")
    if cfg.batch_size < 1 or cfg.repeats < 1:
        raise UserError(
            f"data.batch_size {cfg.batch_size} and data.repeats {cfg.repeats} must be at least 1"
        )
    if cfg.flip and cfg.name in DATASETS and not DATASETS[cfg.name].flip:
        raise UserError(
            f"data.flip is {cfg.flip} but mirroring a video of {cfg.name} can change its class; "
            f"set data.flip to 0"
        )
    silent = [] if tokenize is None else [v for v in videos if not v.captions]
    if silent:
        raise UserError(
            f"{silent[0].path} has no caption in the training list, which training on texts needs; "
            f"give a list with captions (lines of `path,caption` with this header) as data.train"
        )
    import grain

    _parse_flags()
    cache = open_cache(cfg.cache)
    ds = grain.MapDataset.source(range(len(videos))).seed(seed).shuffle().repeat(None)
    record = TrainRecord(videos, cfg, bad_videos.hanging, tokenize, cache)
    ds = ds.random_map(record)  # before the host's shard: random numbers by position
    rows = range(cfg.batch_size) if rows is None else rows
    shard = HostShard(ds, cfg.batch_size, [*map(int, rows)], start_step)
    return Batches(
        grain.MapDataset.source(shard),
        videos,
        batch_size=len(rows) * cfg.repeats,
        workers=workers,
        bad_videos=bad_videos,
        patience=cfg.patience,
        tally=Tally(cache, "training", len(videos)) if cfg.cache and 0 in rows else None,
    )


def eval_loader(
    videos: Sequence[Video],
    cfg: Any,
    *,
    batch_size: int,
    views: tuple[int, int] = (1, 1),
    share: tuple[int, int] = (0, 1),
    workers: int = -1,
    bad_videos: BadVideos | None = None,
    patience: float = 600.0,
    cache: str = "",
) -> "Batches":
    """Makes one pass over the views of every video; its len() is the number of batches.

    The clips of a video follow each other, temporal views slowest, and may fall into two batches.
    Every host makes the same number of batches. Padding has weight 0, and so have the clips of a
    video that cannot be read, which is reported to `bad_videos`. A video that hangs its decoder
    ends the pass, is reported too, and has weight 0 in the next. Short videos are padded, or
    played again: see vidjax.data.frames.sampling.

    Args:
        cfg: the config's data block, or a checkpoint's Preprocessing.
        batch_size: clips (not videos) per batch, of all hosts.
        views: (temporal, spatial) views of each video.
        share: (index, count) of this host's share of the videos.
        workers, bad_videos, patience: as of train_loader and Batches.
        cache: where views are kept, which changes no batch: see frame_cache.py.

    Raises:
        UserError: cfg is wrong, the list is empty, batch_size does not divide over the hosts, or
            (while iterating) too many videos are bad, one hangs its decoder, a worker died, or no
            batch came for `patience` seconds.
    """
    index, count = share
    if not len(videos):
        raise UserError("the evaluation list holds no videos; set data.val")
    if batch_size < 1 or batch_size % count:
        raise UserError(f"an evaluation batch of {batch_size} must divide over {count} hosts")
    import grain

    _parse_flags()
    facts = Preprocessing.from_config(cfg)
    check_views(facts, views[1])  # here, not in a worker
    hanging = bad_videos.hanging if bad_videos is not None else {}
    reader = getattr(cfg, "reader", "pyav")  # which no Preprocessing has
    check_reader(reader)
    frame_cache = open_cache(cache)
    record = EvalRecord(videos, facts, views, hanging, reader, frame_cache)
    # In turns as many as fill a batch's rows of this host, so that batches are the same for any
    # number of hosts; some past the end: padding.
    turn = max(1, batch_size // count // (views[0] * views[1]))
    starts = range(index * turn, -(-len(videos) // (turn * count)) * turn * count, turn * count)
    shard = [video for start in starts for video in range(start, start + turn)]
    num_videos = sum(video < len(videos) for video in shard)
    return Batches(
        grain.MapDataset.source(shard).map(record),
        videos,
        batch_size=batch_size // count,
        workers=workers,
        bad_videos=bad_videos,
        patience=patience,
        num_batches=-(-len(shard) * views[0] * views[1] // (batch_size // count)),
        tally=Tally(frame_cache, "evaluation", num_videos) if cache and not index else None,
    )


class Batches(Iterator[Batch]):
    """Batches of a grain dataset of records, built ahead in a thread.

    The thread and the worker processes end with the pass, with `close()`, when the object is
    dropped, or with the program.

    Args:
        records: the dataset; see vidjax.data.records.
        videos: the list, whose places are the video_ids.
        batch_size: clips per batch.
        workers, bad_videos: as of train_loader.
        patience: seconds without a batch after which the workers are said to hang.
        num_batches: how many there are; None: no end.
        tally: told of each video, whether it is kept.
    """

    def __init__(
        self,
        records: Any,
        videos: Sequence[Video],
        *,
        batch_size: int,
        workers: int,
        bad_videos: BadVideos | None,
        patience: float = 600.0,
        num_batches: int | None = None,
        tally: Tally | None = None,
    ):
        if not patience > 0:
            raise UserError(f"data.patience {patience} must be above 0, in seconds")
        import grain

        workers = _auto_workers() if workers < 0 else workers
        threads = 0 if workers else max(_cores(), 2)
        ds = records.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=2 * threads))
        if workers:
            options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
            start = functools.partial(_start_worker, segments.claim())
            ds = ds.mp_prefetch(options, worker_init_fn=start)
        self._num_batches, self._patience = num_batches, patience
        self._readers = f"{workers} data workers" if workers else "the data threads"
        self._videos, self._last = videos, -1
        self._ready: queue.Queue[Batch | Exception] = queue.Queue(maxsize=2)
        with signals.hidden_from_children():
            closed, records = threading.Event(), iter(ds)
            batches = _build(records, videos, batch_size, bad_videos, tally)
            # The thread must not hold self: then a loader that is dropped after a few batches ends.
            thread = threading.Thread(
                target=_fill,
                args=(batches, self._ready, closed),
                daemon=True,
                name="vidjax batches",
            )
            thread.start()
        self._finish = weakref.finalize(self, _end, records, self._ready, closed, thread)

    def __len__(self) -> int:
        if self._num_batches is None:
            raise TypeError("training batches have no end")
        return self._num_batches

    def __next__(self) -> Batch:
        if not self._finish.alive:
            raise StopIteration
        try:
            item = self._ready.get(timeout=self._patience)
        except queue.Empty:
            _kill_workers()
            with contextlib.suppress(VideoError):  # grain may wait for what they never wrote
                watched(self.close, _CLOSING)
            since = f" since {self._videos[self._last].path}" if self._last >= 0 else ""
            raise Fault(
                f"{self._readers} gave no batch for {self._patience:g} s{since}; look whether the "
                f"disk or network that holds the videos answers; if it is that slow, raise "
                f"data.patience"
            ) from None
        if isinstance(item, Exception):
            self.close()
            raise item
        self._last = int(item["video_id"][-1])
        return item

    def close(self) -> None:
        """Ends the thread and the worker processes."""
        self._finish()


def _build(
    records: Any,
    videos: Sequence[Video],
    batch_size: int,
    bad_videos: BadVideos | None,
    tally: Tally | None,
) -> Iterator[Batch]:
    """Cuts the clips of records, one after the other, into batches; the last is padded."""
    batch, filled = None, 0
    # Of a list with several labels a video, some may have none.
    num_labels = next((len(v.label) for v in videos if isinstance(v.label, tuple)), None)
    label_shape = () if num_labels is None else (num_labels,)
    for record in records:
        for video_id, reason in record["errors"]:
            _report(videos[video_id].path, reason, bad_videos)
            if tally is not None:
                tally.add(video_id, None)
        if tally is not None and record["kept"] is not None:
            tally.add(record["video_id"], record["kept"])
        if not len(record["clips"]):
            video_id, reason = record["errors"][-1]
            raise UserError(
                f"{TRIES} videos in a row could not be used, the last is "
                f"{videos[video_id].path}: {reason}"
            )
        for clip in record["clips"]:
            if batch is None:
                batch, filled = _padding(batch_size, clip.shape, label_shape), 0
                for key in record.keys() & {"text", "text_mask"}:
                    batch[key] = np.zeros((batch_size, *record[key].shape), record[key].dtype)
            batch["video"][filled] = clip
            for key in batch.keys() - {"video"}:
                batch[key][filled] = record[key]
            filled += 1
            if filled == batch_size:
                yield batch
                batch = None
    if batch is not None:
        yield batch


def _report(path: str, reason: str, bad_videos: BadVideos | None) -> None:
    """Tells `bad_videos` of a video; raises if the run cannot go on without it."""
    if reason.startswith(FETCH) and locators.is_url(path):
        # Replaced, it would make the run another one, for what may be over in a minute.
        raise Fault(
            f"{path} {reason}; look whether the object store answers, and run the same command "
            f"again"
        )
    if bad_videos is not None:
        bad_videos.add(path, reason)
    if reason.startswith(HANG):
        listed = ""
        if bad_videos is not None:
            listed = f"as {bad_videos.path} lists it now, the same command omits it; "
        raise Fault(
            f"{path} hangs its decoder: {reason}; {listed}python -m vidjax.data.check finds such "
            f"videos beforehand"
        )


def _padding(size: int, clip_shape: tuple[int, ...], label_shape: tuple[int, ...]) -> Batch:
    return {
        "video": np.zeros((size, *clip_shape), np.uint8),
        "label": np.full((size, *label_shape), -1, np.int32),
        "video_id": np.full(size, -1, np.int32),
        "weight": np.zeros(size, np.float32),
    }


def _fill(batches: Iterator[Batch], ready: queue.Queue, closed: threading.Event) -> None:
    """Puts batches into the queue, and last the exception that ended them; runs in the thread."""
    end: Exception = StopIteration()
    try:
        for batch in batches:
            ready.put(batch)
            if closed.is_set():
                return
    except Exception as error:  # raised again where the batch is asked for
        end = _worker_died(error) or error
    ready.put(end)


def _kill_workers() -> None:
    """Kills all workers: one that hangs or was stopped keeps even the program from ending."""
    for child in multiprocessing.active_children():
        if child.name.startswith("grain-process-prefetch"):
            child.kill()


def _worker_died(error: Exception) -> Fault | None:
    """Returns the error to raise where grain says that a worker process ended, else None."""
    match = re.search(r"Worker process was terminated .* exit code (-?\d+)", str(error))
    if match is None:
        return None
    code = int(match[1])
    how = f"was killed by signal {-code} (exit code {code})"
    if code >= 0:
        how = f"ended with exit code {code}"
    memory = ", as the system does when memory runs out" if code == -9 else ""
    return Fault(
        f"a data worker {how}{memory}; set data.workers lower or give the "
        f"machine more memory, and run the same command again"
    )


def _end(
    records: Any, ready: queue.Queue, closed: threading.Event, thread: threading.Thread
) -> None:
    closed.set()
    deadline = time.monotonic() + 10  # a decoder may hang: no need to wait for that to show
    while thread.is_alive() and time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            ready.get(timeout=0.05)  # the thread may wait for room
    records.close()


def _auto_workers() -> int:
    """Returns one process per core but one, which feeds the device; 0 on two cores or fewer."""
    return _cores() - 1 if _cores() > 2 else 0


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker(prefix: str, index: int, count: int) -> None:
    """Prepares a worker process, which uses one thread: the parallelism is the processes."""
    import cv2

    signals.end_with_parent()
    segments.name_by(prefix)
    cv2.setNumThreads(1)


def _parse_flags() -> None:
    """Marks absl flags as parsed for grain, as nobody parses them in a notebook or a test."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
