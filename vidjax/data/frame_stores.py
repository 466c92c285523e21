"""Frames by name, shared by processes and within a size: in memory, or in a folder.

An array of frames [N, H, W, 3] follows a header with its name, shape and checksum. Reading copies
the frames that are asked for and no others, by pread: a file that another program cuts off gives
too few bytes then, where a mapped one would end this program.
"""

import contextlib
import fcntl
import functools
import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Sample = Callable[[int], np.ndarray]

_HEADER = struct.Struct("<32s3QI")  # sha256, N, H, W, crc32 of the frames
_CHUNK = 1 << 20
_PATIENCE = 5.0  # seconds to wait for a lock: a process that was stopped may hold it


class Memory:
    """A file in memory that grows with its arrays; see frame_cache.open_cache for its life.

    Args:
        place: path of the file, for all processes.
        limit: bytes that it never exceeds.
    """

    def __init__(self, place: str, limit: int):
        self._place, self.limit = place, limit
        self._starts: dict[str, tuple[int, int, int, int]] = {}  # where frames start, and N, H, W
        self._end = 0  # of the arrays known here

    def __reduce__(self):
        return Memory, (self._place, self.limit)

    @property
    def room(self) -> int:
        """Bytes that another array may have, as far as this process knows."""
        return self.limit - self._end - _HEADER.size

    def read(self, name: str, sample: Sample) -> tuple[np.ndarray, int] | None:
        """Returns the frames that `sample` picks of N, and N; None if the array is not there."""
        with contextlib.suppress(OSError):
            if name not in self._starts:
                with _locked(self._place) as file:
                    self._learn(file)
            if name in self._starts:
                start, *shape = self._starts[name]
                return _frames(self._file, start, shape, sample)
        return None

    def put(self, name: str, frames: np.ndarray) -> bool:
        """Adds an array; returns whether it is there now."""
        with contextlib.suppress(OSError), _locked(self._place) as file:
            self._learn(file)
            if name not in self._starts and frames.nbytes <= self.room:
                os.ftruncate(file, self._end)  # a process may have been killed right here
                _write(file, memoryview(frames).cast("B"), self._end + _HEADER.size)
                _write(file, memoryview(_header(name, frames)), self._end)
                self._learn(file)
            return name in self._starts
        return False

    @functools.cached_property
    def _file(self) -> int:
        return os.open(self._place, os.O_RDONLY)

    def _learn(self, file: int) -> None:
        """Learns of the arrays that others have added; a header is written last."""
        while len(header := os.pread(file, _HEADER.size, self._end)) == _HEADER.size:
            digest, *shape, _ = _HEADER.unpack(header)
            if not any(digest):
                return
            start = self._end + _HEADER.size
            self._starts[digest.hex()] = (start, *shape)
            self._end = start + 3 * math.prod(shape)


class Folder:
    """A folder with a file for each array, which outlives the program; several may share it.

    A file is written aside and renamed. Its size and checksum are looked at when a process first
    reads it: a file that is cut off or damaged is as good as none. Where there is no room, arrays
    go that nobody has read since this program began, the oldest first.

    Args:
        folder: on a disk that has file locks.
        limit: bytes that its files never exceed.
        began: time.time() at which the program began.

    Attributes:
        room: bytes that another array may have, as far as this process knows.
    """

    def __init__(self, folder: str, limit: int, began: float):
        self._folder, self.limit, self._began = folder, limit, began
        self._intact: set[tuple[str, int, int]] = set()  # name, inode and size
        self._has_stale, self.room = True, limit

    def __reduce__(self):
        return Folder, (self._folder, self.limit, self._began)

    def open(self) -> int:
        """Makes the folder if need be, drops the oldest above the limit; returns bytes in use.

        Raises:
            OSError: it cannot be written, or has no locks.
        """
        os.makedirs(self._folder, exist_ok=True)
        with _locked(self._path("lock")) as ledger:
            return self._fit(ledger, 0, before=time.time())

    def read(self, name: str, sample: Sample) -> tuple[np.ndarray, int] | None:
        """Returns the frames that `sample` picks of N, and N; None if there is no intact array."""
        with contextlib.suppress(OSError), open(self._path(name), "rb") as opened:
            file = opened.fileno()
            header = os.pread(file, _HEADER.size, 0)
            if self._check(file, name, header):
                return _frames(file, _HEADER.size, _HEADER.unpack(header)[1:4], sample)
        return None

    def put(self, name: str, frames: np.ndarray) -> bool:
        """Writes an array's file; returns whether it is there now."""
        path, size = self._path(name), _HEADER.size + frames.nbytes
        with contextlib.suppress(OSError, ValueError), _locked(self._path("lock")) as ledger:
            used = int(os.pread(ledger, 20, 0))
            if os.path.exists(path):  # damaged, or another process was quicker
                used -= os.path.getsize(path)
                os.remove(path)
            if used + size > self.limit and self._has_stale:
                used = self._fit(ledger, size, before=self._began)
            if used + size > self.limit:
                self._has_stale, self.room = False, self.limit - used - _HEADER.size
                return False
            _write_ledger(ledger, used + size)  # first: a kill may not make it too small
            aside = self._path("new")
            with contextlib.ExitStack() as stack:
                stack.callback(_remove, aside)
                with open(aside, "wb") as file:
                    _write(file.fileno(), memoryview(_header(name, frames)), 0)
                    _write(file.fileno(), memoryview(frames).cast("B"), _HEADER.size)
                os.replace(aside, path)
            return True
        return False

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}.frames")

    def _check(self, file: int, name: str, header: bytes) -> bool:
        status = os.fstat(file)
        known = name, status.st_ino, status.st_size
        if known in self._intact:
            return True
        if len(header) < _HEADER.size:
            return False
        digest, *shape, crc = _HEADER.unpack(header)
        size = _HEADER.size + 3 * math.prod(shape)
        if digest.hex() != name or size != status.st_size or crc != _crc_of(file):
            return False
        with contextlib.suppress(OSError):  # another user's
            os.utime(self._path(name))
        self._intact.add(known)
        return True

    def _fit(self, ledger: int, more: int, *, before: float) -> int:
        """Counts the bytes of all files, after dropping what must go for `more` others."""
        found = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(".frames") and entry.name != "lock.frames":
                status = entry.stat()
                found.append((status.st_mtime, status.st_size, entry.path))
        used = sum(size for _, size, _ in found)
        for changed, size, path in sorted(found):
            if path == self._path("new") or (used + more > self.limit and changed < before):
                _remove(path)
                used -= size
        _write_ledger(ledger, used)
        return used


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int]:
    """Opens a file that no other thread or process holds meanwhile.

    Raises:
        OSError: it cannot be opened or locked, or others hold it for too long.
    """
    file, deadline = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
        yield file
    finally:
        os.close(file)


def _header(name: str, frames: np.ndarray) -> bytes:
    return _HEADER.pack(bytes.fromhex(name), *frames.shape[:3], zlib.crc32(frames))


def _frames(file: int, start: int, shape: Sequence[int], sample: Sample) -> tuple[np.ndarray, int]:
    indices = sample(shape[0])
    frames = np.empty((len(indices), *shape[1:], 3), np.uint8)
    for frame, index in zip(frames, indices, strict=True):
        if os.preadv(file, [frame], start + int(index) * frame.nbytes) != frame.nbytes:
            raise OSError("the file is cut off")
    return frames, shape[0]


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count


def _write_ledger(ledger: int, used: int) -> None:
    _write(ledger, memoryview(b"%020d" % used), 0)


def _crc_of(file: int) -> int:
    crc, offset = 0, _HEADER.size
    while data := os.pread(file, _CHUNK, offset):
        crc, offset = zlib.crc32(data, crc), offset + len(data)
    return crc


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)
