"""Files that are written whole, and files that one process at a time works on."""

import errno
import fcntl  # the system takes a lock away from a process that dies, however it dies
import os
import pathlib
from collections.abc import Callable
from typing import IO, Any

from etils import epath

from vidjax.errors import UserError

_locks: dict[str, Any] = {}  # open files by path, which closing would unlock


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket, gs:// and the like."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """Expands ~ and makes a path absolute, as Orbax demands; those in buckets are.

    Raises:
        UserError: nothing opens buckets of this kind.
    """
    path = os.fspath(path)
    try:
        return epath.Path(path if is_remote(path) else os.path.abspath(os.path.expanduser(path)))
    except KeyError:
        raise UserError(
            f"{path} is neither a folder nor in a bucket that can be opened, such as gs://BUCKET/RUN"
        ) from None


def cache_folder(name: str) -> pathlib.Path:
    """Returns the folder of one of vidjax's caches, which need not exist.

    It is in $VIDJAX_CACHE, else in $XDG_CACHE_HOME/vidjax, else in ~/.cache/vidjax.

    Raises:
        UserError: neither is set, and this user has no home.
    """
    chosen, caches = os.environ.get("VIDJAX_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        root = pathlib.Path(chosen or pathlib.Path(caches, "vidjax")).expanduser()
    except RuntimeError:
        raise UserError("this user has no home for a cache; set VIDJAX_CACHE to a folder") from None
    return root.absolute() / name


def write_whole(
    path: str | os.PathLike,
    content: str | bytes | Callable[[IO[bytes]], Any],
    aside: str | os.PathLike = "",
) -> None:
    """Writes a file so that a kill or a power cut leaves the old one or the new one.

    Args:
        path: on a disk or in a bucket.
        content: the file's content, or a function that writes it to the open file, which on a disk
            can be read, too.
        aside: name of the file until it is complete, on the same disk; "" appends .tmp to `path`.

    Raises:
        OSError: it cannot be written.
    """
    new = epath.Path(aside or f"{os.fspath(path)}.tmp")
    with new.open("wb") if is_remote(new) else open(new, "w+b") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        if not is_remote(new):
            os.fsync(file.fileno())
    new.replace(path)


def stamp(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns size and time of change (ns) of a file, None if there is none: to notice changes."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def lock(path: str | os.PathLike, busy: str) -> None:
    """Makes a file this process's until `unlock`, or until it ends; the file is made if need be.

    Where the file system has no locks, nothing happens.

    Args:
        path: of the file, whose content stays as it is.
        busy: the message if another process has it.

    Raises:
        UserError: another process has it.
        OSError: it cannot be opened.
    """
    path = os.path.abspath(path)
    unlock(path)
    while True:
        file = open(path, "ab")  # noqa: SIM115 - it stays open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(busy) from None
            return
        try:  # the last owner may have removed the file since it was opened
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        file.close()
    _locks[path] = file


def unlock(path: str | os.PathLike) -> None:
    """Lets other processes have the file."""
    if file := _locks.pop(os.path.abspath(path), None):
        file.close()
