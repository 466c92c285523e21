"""Variants of suite `data`, each in a process of its own: from video files to clips and batches."""

import contextlib
import itertools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.peers import Variant
from benchmarks.videos import Files
from vidjax import configlib, data
from vidjax.data.datasets import Video
from vidjax.data.frames import clips, sampling
from vidjax.data.reading import pyav, video
from vidjax.preprocessing import Preprocessing

# How frames are picked and cropped, as in the configs of VideoMAE: 16 frames 4 apart, 224 x 224.
RECIPES = {
    "pre-training": {"sampling": "dense", "augment": "multi_scale_crop"},
    "fine-tuning": {"sampling": "dense_linspace", "augment": "random_resized_crop", "flip": 0.5},
    "RandAugment": {
        "sampling": "dense_linspace",
        "augment": "random_resized_crop",
        "flip": 0.5,
        "rand_augment": "rand-m7-n4-mstd0.5-inc1",
    },
    "evaluation": {},
}
_BARE = ("pre-training", "fine-tuning", "evaluation")  # what bare decoders are compared in
# Makes a clip of (path, number of frames, recipe, data block of a config, random generator).
Read = Callable[[str, int, str, Any, np.random.Generator], np.ndarray]


def settings_of(recipe: str, **changes: Any) -> Any:
    """Returns the data block of a config."""
    cfg = configlib.base().data
    cfg.update(RECIPES[recipe] | changes)
    return cfg


def one_core(variant: str, groups: Mapping[str, Files], clips: int, size: int) -> Variant:
    """Clips of each group of files by each recipe, on one core.

    A turn makes `clips` clips of each; all variants make the same ones, in the same order.
    """
    import cv2

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    read, recipes = VARIANTS[variant]()
    turns = itertools.count()

    def once() -> dict[str, float]:
        turn, figures = next(turns), {}
        for (group, files), recipe in itertools.product(groups.items(), recipes):
            cfg = settings_of(recipe, size=size, short_side=size)
            wall, cpu = time.perf_counter(), time.process_time()
            for clip in range(clips):
                path, frames = files[(turn * clips + clip) % len(files)]
                read(path, frames, recipe, cfg, np.random.default_rng([turn, clip]))
            figures[f"{group}/{recipe}/ms"] = (time.perf_counter() - wall) * 1e3 / clips
            figures[f"{group}/{recipe}/cpu_ms"] = (time.process_time() - cpu) * 1e3 / clips
        return figures

    return {"cores": 1}, once


def indices(recipe: str, frames: int, cfg: Any, rng: np.random.Generator) -> np.ndarray:
    """Returns the numbers of the frames of a clip."""
    if recipe == "evaluation":
        return sampling.view_indices(cfg.sampling, frames, cfg.frames, cfg.stride)[0]
    return sampling.train_indices(cfg.sampling, frames, cfg.frames, cfg.stride, rng)


def _decord() -> tuple[Read, tuple[str, ...]]:
    import decord

    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> np.ndarray:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        return reader.get_batch(indices(recipe, frames, cfg, rng)).asnumpy()

    return read, _BARE


def _pyav() -> tuple[Read, tuple[str, ...]]:
    import av

    times: dict[str, list[int]] = {}  # of all frames, which a reader without an index must know

    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> np.ndarray:
        if path not in times:
            times[path] = pyav.index_of(path).times
        wanted = [times[path][i] for i in indices(recipe, frames, cfg, rng)]
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek(wanted[0], stream=stream, backward=True)
            found = {}
            for frame in container.decode(stream):
                if frame.pts in wanted:
                    found[frame.pts] = frame.to_ndarray(format="rgb24")
                if frame.pts >= wanted[-1]:
                    break
            return np.stack([found[moment] for moment in wanted])

    return read, _BARE


def _vidjax(reader: str = "pyav") -> tuple[Read, tuple[str, ...]]:
    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> np.ndarray:
        known = {"verdict": "ok", "num_frames": frames, "reader": reader}
        pictures, _ = video.read_frames(path, lambda n: indices(recipe, n, cfg, rng), **known)
        if recipe == "evaluation":
            return clips.eval_views(pictures, Preprocessing.from_config(cfg))
        return clips.train_clip(pictures, rng, cfg)

    return read, tuple(RECIPES)


VARIANTS: dict[str, Callable[[], tuple[Read, tuple[str, ...]]]] = {
    "vidjax": _vidjax,
    "vidjax, decord": lambda: _vidjax("decord"),
    "decord": _decord,
    "PyAV": _pyav,
}


@contextlib.contextmanager
def _batches(
    files: Files, workers: int, size: int, batch_size: int, seed: int, **changes: Any
) -> Iterator[Iterator]:
    listed = [Video(path, 0, frames, "ok") for path, frames in files]
    changes |= {"name": "custom", "batch_size": batch_size, "size": size, "short_side": size}
    cfg = settings_of("pre-training", **changes)
    bad = data.BadVideos(os.devnull, len(listed))
    loader = data.train_loader(listed, cfg, seed=seed, bad_videos=bad, workers=workers)
    with contextlib.closing(loader):
        yield loader


def cached(groups: Mapping[str, Files], cache: str, size: int, clips: int) -> Variant:
    """Clips of each group through the loader's threads, with a cache or without.

    The first run fills it. Groups called demo are resized by the recipe, as in the demo's configs.
    """
    turns = itertools.count()

    def once() -> dict[str, float]:
        turn, figures = next(turns), {}
        for group, files in groups.items():
            changes = {"cache": cache}
            if group == "demo":
                changes |= {"augment": "center_crop", "frames": 8, "stride": 2}
            side = 32 if group == "demo" else size
            wall, cpu = time.perf_counter(), time.process_time()
            with _batches(files, 0, side, 8, turn, **changes) as loader:
                for _ in range(clips // 8):
                    next(loader)
            figures[f"{group}/ms"] = (time.perf_counter() - wall) * 1e3 / clips
            figures[f"{group}/cpu_ms"] = (time.process_time() - cpu) * 1e3 / clips
        return figures

    return {"clips": clips}, once


def memory(
    files: Files, workers: int, size: int, clips: int, every: int, batch_size: int
) -> Variant:
    """Memory of this process and its workers, while a loader reads, after every so many clips."""

    def once() -> dict[str, float]:
        figures, began = {}, time.perf_counter()
        with _batches(files, workers, size, batch_size, 0, frames=8, stride=2) as loader:
            for done in range(batch_size, clips + 1, batch_size):
                next(loader)
                if done % every == 0:
                    figures[str(done)] = _memory_bytes()
        figures["seconds"] = time.perf_counter() - began
        return figures

    return {"workers": workers, "batch_size": batch_size}, once


def _memory_bytes() -> int:
    """Returns RAM of this process and its workers, shared pages counted once (Linux: Pss).

    Without pages of files: other programs share these, and as they end, what is left counts more.
    """
    kinds, total = ("Pss_Anon:", "Pss_Shmem:"), 0
    workers = (str(child.pid) for child in multiprocessing.active_children())
    for process in ("self", *workers):
        lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(kinds))
    return total
