"""Reads video files with decord, where it can be trusted.

decord 0.6 bundles an FFmpeg of 2020. Without saying so it returns other frames than asked of files
with edit lists (which stream-copy cutting makes), open GOPs and repeated timestamps, mirrored and
cropped pictures come out wrong, 10-bit colours differ, and MPEG-TS hangs it beyond any signal. So
it gets the files whose index is clean, and its first frame must be PyAV's.

A reader lives for one call, with one thread. A kept one decodes its whole file into memory, and one
shared between threads hangs.
"""

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np

from vidjax.data.reading import pyav
from vidjax.data.reading.watchdog import progress

_CODECS = ("h264", "hevc")  # the size of others may change within a file, as in recorded calls
_CHUNK = 16  # frames that are held at once as they were decoded


def is_installed() -> bool:
    """Returns whether decord can be imported (it has wheels for x86_64 only)."""
    try:
        import decord  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def read_at(
    path: str,
    index: pyav.Index,
    indices: Sequence[int],
    each: Callable[[np.ndarray], np.ndarray],
) -> list[np.ndarray] | None:
    """Reads frames as pyav.read_at does; returns None if decord cannot be trusted."""
    if index.problem or index.has_open_gops or index.codec not in _CODECS:
        return None
    import decord

    _quiet_worker()
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != index.count or not _is_right(reader[0].asnumpy(), path):
            return None
        kept = []
        for start in range(0, len(indices), _CHUNK):
            kept += map(each, reader.get_batch(indices[start : start + _CHUNK]).asnumpy())
            progress()
        return kept
    except (decord.DECORDError, RuntimeError, IndexError):
        return None  # a codec that it lacks (AV1), or damage


def _is_right(picture: np.ndarray, path: str) -> bool:
    """Returns whether decord's first frame is the one that PyAV gives."""
    show = next(pyav.in_order(path, pyav.Index(1, by_time=False)))
    return np.array_equal(picture, show())


@functools.cache
def _quiet_worker() -> None:
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
