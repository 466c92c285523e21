"""Files that are written whole, and files that one process at a time works on."""

import errno
import fcntl  # the system takes a lock away from a process that dies, however it dies
import os
from typing import Any

from etils import epath

from vidjax.errors import UserError

_locks: dict[str, Any] = {}  # open files by path, which closing would unlock


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


def write_whole(path: epath.Path, content: str | bytes) -> None:
    """Writes a file so that a kill leaves the old one or the new one."""
    new = path.with_suffix(".tmp")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    new.replace(path)


def absolute(path: epath.Path) -> epath.Path:
    """Orbax refuses relative paths; gs:// paths are absolute as they are."""
    return path if "://" in str(path) else epath.Path(os.path.abspath(path))
