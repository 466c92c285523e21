"""Variants of suite `data`, each in a process of its own: from video files to clips and batches."""

import contextlib
import itertools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import harness
from vidjax import configlib, data
from vidjax.data.datasets import Video
from vidjax.data.frames import clips, crops, sampling
from vidjax.data.reading import pyav, video
from vidjax.preprocessing import Preprocessing

Once = Callable[[], dict[str, float]]
Files = Sequence[tuple[str, int]]  # path and number of frames

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
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def settings_of(recipe: str, **changes: Any) -> Any:
    """The data block of a config."""
    cfg = configlib.base().data
    cfg.update(**RECIPES[recipe], **changes)
    return cfg


def one_core(variant: str, groups: Mapping[str, Files], clips: int, size: int) -> tuple[dict, Once]:
    """Clips of each group of files by each recipe, on one core.

    A turn makes `clips` clips of each; all variants make the same ones, in the same order.
    """
    import cv2

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    read, recipes = _READERS[variant]()
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


def _indices(recipe: str, frames: int, cfg: Any, rng: np.random.Generator) -> np.ndarray:
    if recipe == "evaluation":
        return sampling.view_indices(cfg.sampling, frames, cfg.frames, cfg.stride)[0]
    return sampling.train_indices(cfg.sampling, frames, cfg.frames, cfg.stride, rng)


def _decord(resized: bool = False) -> tuple[Callable, tuple[str, ...]]:
    import decord

    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> np.ndarray:
        side = {"width": cfg.size, "height": cfg.size} if resized else {}
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, **side)
        return reader.get_batch(_indices(recipe, frames, cfg, rng)).asnumpy()

    return read, ("pre-training", "fine-tuning", "evaluation")


def _decord_resized() -> tuple[Callable, tuple[str, ...]]:
    return _decord(resized=True)


def _pyav() -> tuple[Callable, tuple[str, ...]]:
    import av

    times: dict[str, list[int]] = {}  # of all frames, which a reader without an index must know

    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> np.ndarray:
        indices = _indices(recipe, frames, cfg, rng)
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            wanted = [times[path][i] for i in indices]
            container.seek(wanted[0], stream=stream, backward=True)
            found = {}
            for frame in container.decode(stream):
                if frame.pts in wanted:
                    found[frame.pts] = frame.to_ndarray(format="rgb24")
                if frame.pts >= wanted[-1]:
                    break
            return np.stack([found[moment] for moment in wanted])

    def prepared(path: str, *rest: Any) -> np.ndarray:
        if path not in times:
            times[path] = pyav.index_of(path).times
        return read(path, *rest)

    return prepared, ("pre-training", "fine-tuning", "evaluation")


def _vidjax(reader: str = "pyav") -> tuple[Callable, tuple[str, ...]]:
    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> np.ndarray:
        def sample(n: int) -> np.ndarray:
            return _indices(recipe, n, cfg, rng)

        known = {"verdict": "ok", "num_frames": frames, "reader": reader}
        pictures, _ = video.read_frames(path, sample, **known)
        if recipe == "evaluation":
            return clips.eval_views(pictures, Preprocessing.from_config(cfg))
        return clips.train_clip(pictures, rng, cfg)

    return read, tuple(RECIPES)


def _vidjax_decord() -> tuple[Callable, tuple[str, ...]]:
    return _vidjax("decord")


def _hugging_face() -> tuple[Callable, tuple[str, ...]]:
    import torch
    from transformers import VideoMAEImageProcessor

    torch.set_num_threads(1)
    decode, _ = _decord()

    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> Any:
        process = VideoMAEImageProcessor(
            size={"shortest_edge": cfg.short_side},
            crop_size={"height": cfg.size, "width": cfg.size},
        )
        pictures = decode(path, frames, recipe, cfg, rng)
        return process(list(pictures), return_tensors="pt")["pixel_values"]

    return read, ("evaluation",)


def _original() -> tuple[Callable, tuple[str, ...]]:
    """VideoMAE's own steps of pre-training, normalised tensors included, as its loader makes them.

    Source: MCG-NJU/VideoMAE kinetics.py, transforms.py.
    """
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    decode, _ = _decord()

    def read(path: str, frames: int, recipe: str, cfg: Any, rng: np.random.Generator) -> Any:
        pictures = [Image.fromarray(x) for x in decode(path, frames, recipe, cfg, rng)]
        width, height = pictures[0].size
        top, left, tall, wide = crops.multi_scale_crop(height, width, cfg.size, rng)
        box, side = (left, top, left + wide, top + tall), (cfg.size, cfg.size)
        cut = [x.crop(box).resize(side, Image.Resampling.BILINEAR) for x in pictures]
        stacked = torch.from_numpy(np.concatenate([np.array(x) for x in cut], axis=2))
        clip = stacked.permute(2, 0, 1).contiguous().float().div(255)
        for channel, mean, std in zip(clip, itertools.cycle(_MEAN), itertools.cycle(_STD)):
            channel.sub_(mean).div_(std)
        return clip

    return read, ("pre-training",)


_READERS = {
    "vidjax": _vidjax,
    "vidjax, decord": _vidjax_decord,
    "decord": _decord,
    "decord, resized by it": _decord_resized,
    "PyAV": _pyav,
    "decord + Hugging Face": _hugging_face,
    "decord + VideoMAE's own": _original,
}
VARIANTS = tuple(_READERS)


def loading(
    kind: str, files: Files, workers: int, size: int, batch_size: int, batches: int
) -> tuple[dict, Once]:
    """Batches of the pre-training recipe from a loader that starts anew in each turn.

    The consumer first takes batches as fast as they come, then one for every step of a made-up
    device, which takes 1.5 times as long as the loader needs for a batch.
    """
    start = {"vidjax": _vidjax_batches, "torch": _torch_batches}[kind]
    turns = itertools.count()

    def once() -> dict[str, float]:
        turn, began = next(turns), time.perf_counter()
        with start(files, workers, size, batch_size, turn) as loader:
            next(loader)
            first = time.perf_counter() - began
            for _ in range(4):  # what is read ahead while nobody takes it
                next(loader)
            clips, wall = batch_size * batches, time.perf_counter()
            cpu, own = _cpu_seconds(), time.process_time()
            for _ in range(batches):
                next(loader)
            wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
            own = time.process_time() - own
            step, waited = 1.5 * wall / batches, 0.0
            for number in range(-2, batches):  # two steps in which the loader gets ahead again
                asked = time.perf_counter()
                next(loader)
                waited += time.perf_counter() - asked if number >= 0 else 0.0
                time.sleep(step)
        return {
            "clips_per_second": clips / wall,
            "first_batch_seconds": first,
            "parent_cpu_ms": own * 1e3 / clips,
            "cpu_ms": cpu * 1e3 / clips,
            "waiting_share": waited / (waited + batches * step),
        }

    return {"workers": workers, "batch_size": batch_size}, once


@contextlib.contextmanager
def _vidjax_batches(
    files: Files, workers: int, size: int, batch_size: int, seed: int, **changes: Any
) -> Iterator[Iterator]:
    videos = [Video(path, 0, frames, "ok") for path, frames in files]
    cfg = settings_of(
        "pre-training", name="custom", batch_size=batch_size, size=size, short_side=size, **changes
    )
    bad = data.BadVideos(os.devnull, len(videos))
    loader = data.train_loader(videos, cfg, seed=seed, bad_videos=bad, workers=workers)
    with contextlib.closing(loader):
        yield loader


class _TorchVideos:
    """What DataLoader takes; each worker makes its reader when it first needs it."""

    def __init__(self, files: Files, size: int, seed: int, length: int):
        self._files, self._size, self._seed, self._length = files, size, seed, length
        self._read: Callable | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        self._read = self._read or _original()[0]
        path, frames = self._files[index % len(self._files)]
        cfg = settings_of("pre-training", size=self._size, short_side=self._size)
        rng = np.random.default_rng([self._seed, index])
        return self._read(path, frames, "pre-training", cfg, rng)


@contextlib.contextmanager
def _torch_batches(
    files: Files, workers: int, size: int, batch_size: int, seed: int
) -> Iterator[Iterator]:
    from torch.utils.data import DataLoader

    videos = _TorchVideos(files, size, seed, 10_000 * batch_size)
    yield iter(DataLoader(videos, batch_size, num_workers=workers, shuffle=True))


def memory(
    files: Files, workers: int, size: int, clips: int, every: int, batch_size: int
) -> tuple[dict, Once]:
    """Memory of this process and its workers, while a loader reads, after every so many clips."""
    small = {"frames": 8, "stride": 2}

    def once() -> dict[str, float]:
        figures, began = {}, time.perf_counter()
        with _vidjax_batches(files, workers, size, batch_size, 0, **small) as loader:
            for done in range(batch_size, clips + 1, batch_size):
                next(loader)
                if done % every == 0:
                    figures[str(done)] = _memory_bytes()
        figures["seconds"] = time.perf_counter() - began
        return figures

    return {"workers": workers, "batch_size": batch_size}, once


def views(path: str, size: int, temporal: int, spatial: int) -> tuple[dict, Once]:
    """Clips of an evaluation's views of one video; how far the peak of memory rises for them."""

    def once() -> dict[str, float]:
        facts = Preprocessing(size=size, short_side=size)
        before, began = harness.peak_bytes(), time.perf_counter()
        clips.prepare(path, facts, (temporal, spatial))
        seconds = time.perf_counter() - began
        return {"bytes": harness.peak_bytes() - before, "seconds": seconds}

    return {"views": temporal * spatial}, once


def _processes() -> list[str]:
    return ["self", *(str(child.pid) for child in multiprocessing.active_children())]


def _cpu_seconds() -> float:
    """CPU time of this process and its workers so far (Linux)."""
    ticks = 0
    for process in _processes():
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_bytes() -> int:
    """Memory in RAM of this process and its workers, shared pages counted once (Linux: Pss).

    Without pages of files: other programs share these, and as they end, what is left counts more.
    """
    kinds, total = ("Pss_Anon:", "Pss_Shmem:"), 0
    for process in _processes():
        lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(kinds))
    return total
