"""Where lists and videos are: on a disk, in an object store, in a shard of many videos.

    /data/a.mp4, a.mp4               a local path
    gs://bucket/a.mp4                a URL, opened by fsspec with the driver of its scheme
    /data/00003.array_record#17      a record, counted from 0, of an ArrayRecord shard
    gs://bucket/00003.array_record#17

Records are written by `python -m vidjax.data.pack`: a line of JSON about the video, then its file.
A record that is just a video file will do as well. Shards are read by the array_record library,
which knows disks and gs:// only.
"""

import contextlib
import functools
import os
import re
import time
from typing import Any

from vidjax import files
from vidjax.errors import UserError, brief

_RECORD = re.compile(r"(.+\.array_record)#(\d+)", re.DOTALL)
# How scheme and package differ; else the error of fsspec says which package it wants.
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "abfs": "adlfs"}
_PAUSES = (1.0, 4.0)  # seconds before an object is asked for again
_OPEN_SHARDS = 256  # at a time in a process; each is an open file


def is_url(locator: str) -> bool:
    """Returns whether fsspec is to open it."""
    return "://" in locator


def is_local(locator: str) -> bool:
    """Returns whether it is a plain file, which any program can open by this name."""
    return not is_url(locator) and _RECORD.fullmatch(locator) is None


def join(base: str, locator: str) -> str:
    """Joins a locator to the folder `base`, unless it is absolute."""
    return locator if is_url(locator) else os.path.join(base, locator)


def container(locator: str) -> str:
    """Returns the file or object that it is in: a record's shard, else itself.

    Raises:
        UserError: a record of a shard that cannot be read where it is.
    """
    record = _RECORD.fullmatch(locator)
    if record is None:
        return locator
    if is_url(record[1]) and not record[1].startswith("gs://"):
        raise UserError(
            f"{locator}: shards are read from a disk or from gs://; copy them to a disk, or mount "
            f"their bucket"
        )
    return record[1]


def is_file(locator: str) -> bool:
    """Returns whether there is such a file or object.

    Raises:
        UserError: there is no driver for the URL, or it cannot be asked (no right, no network).
    """
    if not is_url(locator):
        return os.path.isfile(locator)
    filesystem = _filesystem(locator)
    try:
        return filesystem.isfile(locator)
    except Exception as error:  # each driver has errors of its own
        raise UserError(f"{locator} cannot be looked up: {brief(error)}") from None


def names(folder: str) -> list[str]:
    """Returns the sorted names of what a folder holds.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    if not is_url(folder):
        return sorted(os.listdir(folder or "."))
    return sorted(
        os.path.basename(path.rstrip("/"))
        for path in _asked(_filesystem(folder).ls, folder, detail=False)
    )


def stamp(locator: str) -> str | None:
    """Returns a text that changes when a video's file, object, folder or shard does.

    None if it is not there, or cannot be told.
    """
    where = container(locator)
    if is_url(where):
        with contextlib.suppress(Exception):  # each driver has errors of its own
            return _filesystem(where).ukey(where)
        return None
    if os.path.isdir(where):
        return repr(sorted((file.name, files.stamp(file)) for file in os.scandir(where)))
    status = files.stamp(where)
    return status and repr(status)


def read(locator: str) -> bytes:
    """Reads a file, an object, or the video file in a record.

    Raises:
        OSError: it is not there, or cannot be read.
        UserError: there is no driver for the URL.
    """
    record = _RECORD.fullmatch(locator)
    if record is not None:
        return video_in(_record(container(locator), int(record[2])))
    if is_url(locator):
        fetch = _filesystem(locator).cat_file
        for seconds in _PAUSES:
            with contextlib.suppress(Exception):  # each driver has errors of its own
                return fetch(locator)
            if not is_file(locator):
                break
            time.sleep(seconds)
        return _asked(fetch, locator)
    with open(locator, "rb") as file:
        return file.read()


def video_in(record: bytes) -> bytes:
    """Returns the video file in a record."""
    # No video file begins with a brace.
    return record[record.index(b"\n") + 1 :] if record[:1] == b"{" else record


def _record(shard: str, index: int) -> bytes:
    if not is_url(shard) and not os.path.isfile(shard):  # it would be a shard without records
        raise FileNotFoundError(f"there is no shard {shard}")
    reader = _reader(shard)
    if index >= reader.num_records():
        _reader.cache_clear()  # it may have been incomplete
        raise OSError(f"its shard holds {reader.num_records()} records")
    try:
        return reader.read([index])[0]
    except RuntimeError as error:
        raise OSError(f"its shard is damaged: {brief(error)}") from None


@functools.lru_cache(_OPEN_SHARDS)
def _reader(shard: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(shard, "readahead_buffer_size:0")  # access is random


def _filesystem(locator: str) -> Any:
    return _by_scheme(locator.partition("://")[0])


@functools.cache  # fsspec's own cache is by thread, and each video is read in a new one
def _by_scheme(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        driver = _DRIVERS.get(scheme)
        how = f"pip install {driver}" if driver else str(error)
        raise UserError(f"{scheme}:// needs a driver that is not installed; {how}") from None
    except ValueError:
        raise UserError(
            f"{scheme}:// is no known kind of URL; known are {', '.join(sorted(_DRIVERS))} and "
            f"others of fsspec"
        ) from None


def _asked(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except OSError:
        raise
    except Exception as error:  # each driver has errors of its own
        raise OSError(brief(error)) from None
