"""Frames of small sets, decoded once: config.data.cache.

    ""              keeps nothing
    "2GB"           keeps frames in memory, of all data workers together, until the program ends
    "FOLDER:20GB"   keeps them in a folder of a disk, for the next runs, too

For training whole videos are kept, resized where the recipe begins by that; for evaluation the
finished views. What comes first stays until the size is reached; what is not kept is decoded as
without a cache. Batches are the same bit for bit.

Not kept for training are videos that are long or large, as of these a clip is a small part, and
such as are damaged, as what stands in for damage may depend on which frames are asked for.
"""

import contextlib
import dataclasses
import functools
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vidjax import checksums, files
from vidjax.data.frame_stores import Folder, Memory, Sample
from vidjax.data.frames import clips
from vidjax.data.reading import locators
from vidjax.data.reading.video import read_frames
from vidjax.errors import UserError, VideoError
from vidjax.preprocessing import Preprocessing

# The longest and the largest videos that are kept whole. To decode one of 300 frames takes as long
# as to read 2 to 6 clips of it, and that grows with the length; a worker holds all of it twice.
MOST_FRAMES, MOST_BYTES = 1024, 1 << 28

_VERSION = 1  # of what is kept under a name
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_BEGAN = time.time()
Resize = Callable[[np.ndarray], np.ndarray]
Step = tuple[Resize | None, Mapping[str, Any]]


class Kept(NamedTuple):
    """Whether a video is kept, and the bytes that this takes; 0: it is not to be kept."""

    is_kept: bool
    size: int


class FrameCache:
    """Reads videos from a store, and adds those that it lacks. Data workers get copies.

    Args:
        store: where frames are kept.
        text: config.data.cache, for messages.

    Attributes:
        told: names and sizes of the lists that a Tally has reported.
    """

    def __init__(self, store: Memory | Folder, text: str):
        self.store, self.text, self.told = store, text, set()
        self._refused: dict[str, int] = {}  # names of what is not kept, and Kept.size

    def frames(self, path: str, sample: Sample, step: Step, **how: Any) -> tuple[np.ndarray, Kept]:
        """Returns frames as read_frames does, but resized by `step`; raises what that raises.

        Args:
            path, sample: as of read_frames.
            step: as clips.fixed_step returns it.
            how: verdict, num_frames and reader of read_frames.
        """
        sample = functools.cache(sample)  # it draws random numbers: once, however often it is asked
        resize, values = step
        name = _name(path, {"step": values, **how})
        if not name:
            return read_frames(path, sample, **how)[0], Kept(False, 0)
        if found := self.store.read(name, sample):
            frames, count = found
            return frames, Kept(True, count * frames[0].nbytes)
        if name not in self._refused:
            try:
                whole = self._whole(path, sample, resize, how)
                if self.store.put(name, whole):
                    return whole[sample(len(whole))], Kept(True, whole.nbytes)
                self._refused[name] = whole.nbytes
            except _TooLargeError as error:
                self._refused[name] = error.size
            except VideoError:  # which may not concern this clip
                self._refused[name] = 0
        return read_frames(path, sample, **how)[0], Kept(False, self._refused[name])

    def _whole(
        self, path: str, sample: Sample, resize: Resize | None, how: Mapping[str, Any]
    ) -> np.ndarray:
        count = 0

        def every(num_frames: int) -> np.ndarray:
            nonlocal count
            sample(num_frames)  # raises VideoError for a video that is too short
            count = num_frames
            return np.arange(count)

        def each(picture: np.ndarray) -> np.ndarray:
            picture = resize(picture[None])[0] if resize else picture
            size = count * picture.nbytes
            if count > MOST_FRAMES or size > MOST_BYTES:
                raise _TooLargeError(0)
            if size > self.store.room:
                raise _TooLargeError(size)
            return picture

        return read_frames(path, every, each=each, strict=True, **how)[0]

    def views(
        self, path: str, preprocessing: Preprocessing, views: tuple[int, int], **how: Any
    ) -> tuple[np.ndarray, Kept]:
        """Returns what clips.prepare does, and Kept; raises what that raises."""
        facts = dataclasses.asdict(preprocessing)
        name = _name(path, {"preprocessing": facts, "views": views, **how})
        if name and (found := self.store.read(name, np.arange)):
            frames = found[0].reshape(views[0] * views[1], -1, *found[0].shape[1:])
            return frames, Kept(True, frames.nbytes)
        frames = clips.prepare(path, preprocessing, views, **how)
        is_kept = bool(name) and self.store.put(name, frames.reshape(-1, *frames.shape[2:]))
        return frames, Kept(is_kept, frames.nbytes if name else 0)


class _TooLargeError(Exception):
    """A video is not to be kept; `size` as of Kept."""

    def __init__(self, size: int):
        super().__init__(size)
        self.size = size


class NoCache:
    """Stands in for a FrameCache where nothing is kept, and tells no Kept."""

    def frames(self, path: str, sample: Sample, step: Step, **how: Any) -> tuple[np.ndarray, None]:
        """Returns frames as read_frames does, and None."""
        return read_frames(path, sample, **how)[0], None

    def views(
        self, path: str, preprocessing: Preprocessing, views: tuple[int, int], **how: Any
    ) -> tuple[np.ndarray, None]:
        """Returns what clips.prepare does, and None."""
        return clips.prepare(path, preprocessing, views, **how), None


class Tally:
    """Prints how much of a list is kept: when all of it was read, or the cache is full; once.

    Args:
        cache: that the list is read through.
        split: name of the list, for the message.
        total: number of its videos that this process reads.
    """

    def __init__(self, cache: FrameCache, split: str, total: int):
        self._cache, self._split, self._total = cache, split, total
        self._seen: dict[int, Kept | None] = {}

    def add(self, video_id: int, kept: Kept | None) -> None:
        """Counts a video; None is one that cannot be read."""
        if (self._split, self._total) in self._cache.told:
            return
        self._seen[video_id] = kept
        is_full = kept is not None and not kept.is_kept and kept.size > 0
        if is_full or len(self._seen) == self._total:
            self._cache.told.add((self._split, self._total))
            print(self._line(is_full), file=sys.stderr, flush=True)

    def _line(self, is_full: bool) -> str:
        good = [kept for kept in self._seen.values() if kept is not None]
        sizes = [kept.size for kept in good if kept.size]
        kept = sum(one.is_kept for one in good)
        if is_full:
            more = (self._total - kept) * sum(sizes) / len(sizes)
            return (
                f"cache: config.data.cache={self._cache.text} is full with {kept} of "
                f"{self._total} {self._split} videos; about "
                f"{_in_words(self._cache.store.limit + more)} would hold all"
            )
        others = "" if kept == len(good) else "; the others are too long, too large or damaged"
        return (
            f"cache: {kept} of {len(good)} {self._split} videos are kept, "
            f"{_in_words(sum(one.size for one in good if one.is_kept))}{others}"
        )


def parse(text: str) -> tuple[str, int]:
    """Returns the folder ("": memory) and the bytes of a config.data.cache that is not "".

    Raises:
        UserError: it is neither a size nor a folder of a disk with a size.
    """
    match = re.fullmatch(r"(?:(.*):)?(\d+(?:\.\d+)?) ?([MGT]B)", text, re.DOTALL)
    if match is None or match[1] == "" or files.is_remote(text) or not float(match[2]):
        raise UserError(
            f"config.data.cache is {text!r}; expected a size of memory such as 2GB, a folder on a "
            f"disk with a size such as FOLDER:20GB (MB, GB or TB), or nothing for no cache"
        )
    folder = os.path.abspath(os.path.expanduser(match[1])) if match[1] else ""
    return folder, round(float(match[2]) * _UNITS[match[3]])


@functools.cache  # one for training and evaluation, until the program ends
def open_cache(text: str) -> FrameCache | NoCache:
    """Opens the cache of a config.data.cache.

    Frames in memory lie in a file without a name, which on Linux goes with the program, however
    that ends, and whose workers open it through /proc.

    Raises:
        UserError: as `parse`; it is more than there is; the folder cannot be written.
    """
    if not text:
        return NoCache()
    folder, limit = parse(text)
    if folder:
        store = Folder(folder, limit, _BEGAN)
        try:
            free = store.open() + shutil.disk_usage(folder).free
        except OSError as error:
            raise UserError(
                f"config.data.cache={text}: {folder} cannot be written ({error.strerror}); choose "
                f"a folder on a disk that has file locks"
            ) from None
    else:
        free, store = _free_memory(), Memory(_memory_file(), limit)
    if limit > free:
        where = f"the disk of {folder}" if folder else "the memory of this machine"
        raise UserError(
            f"config.data.cache={text} is more than {where} has left, {_in_words(free)}; state a "
            f"smaller size"
        )
    return FrameCache(store, text)


def _memory_file() -> str:
    if sys.platform == "linux":
        return f"/proc/{os.getpid()}/fd/{os.memfd_create('vidjax cache')}"
    return _temporary_file().name


@functools.cache  # to keep it open, as closing removes it
def _temporary_file() -> Any:
    return tempfile.NamedTemporaryFile(prefix="vidjax-")


def _free_memory() -> int:
    """Returns the bytes that the machine has left, and its container at most."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as limit:
        found.append(int(limit.read()))  # or "max"
    return min(found)


def _name(path: str, values: Mapping[str, Any]) -> str:
    """Returns a name for what is made of a video, another if the file changes; "": unknown."""
    stamp = locators.stamp(path)
    if stamp is None:
        return ""
    path = path if locators.is_url(path) else os.path.abspath(path)
    software = _software(values["reader"])
    return checksums.json_sha256({"path": path, "stamp": stamp, **software, **values})


@functools.cache
def _software(reader: str) -> dict[str, Any]:
    """Returns versions of everything that pixels may depend on."""
    import av
    import cv2
    import PIL

    versions = {"format": _VERSION, "machine": platform.machine(), "ffmpeg": av.library_versions}
    versions |= {"av": av.__version__, "cv2": cv2.__version__, "pil": PIL.__version__}
    if reader == "decord":
        import decord

        versions["decord"] = decord.__version__
    return versions


def _in_words(size: float) -> str:
    unit = max((u for u in _UNITS if size >= _UNITS[u]), key=_UNITS.get, default="MB")
    return f"{size / _UNITS[unit]:.3g}{unit}"
