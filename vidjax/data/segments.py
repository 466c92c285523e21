"""Shared memory of data workers: under a name that tells whose it is, so that nothing is left.

Python's resource tracker removes the segments of workers that were killed, unless it was killed
itself, as with its whole group or container. Each program that has workers therefore locks a file
/dev/shm/vidjax-TOKEN.lock, and the names of its segments begin with vidjax-TOKEN. The next program
that starts workers removes what belongs to files that nobody locks.
"""

import atexit
import contextlib
import functools
import glob
import os
import secrets
from multiprocessing import shared_memory

from vidjax import files
from vidjax.errors import UserError

_FOLDER = "/dev/shm"  # on Linux; elsewhere nothing here does anything


@functools.cache
def claim() -> str:
    """Returns the beginning of this program's names, "" where there are none to choose.

    Removes the segments of programs that are dead.
    """
    if not os.path.isdir(_FOLDER):
        return ""
    with contextlib.suppress(OSError):  # a full or forbidden place is no reason not to run
        for file in glob.glob(f"{_FOLDER}/vidjax-*.lock"):
            with contextlib.suppress(UserError, OSError):  # it lives, or is another user's
                files.lock(file, "it lives")
                for segment in glob.glob(f"{file.removesuffix('.lock')}-*"):
                    os.remove(segment)
                os.remove(file)
                files.unlock(file)
        prefix = f"vidjax-{secrets.token_hex(4)}"
        file = f"{_FOLDER}/{prefix}.lock"
        files.lock(file, "two programs drew the same name")
        atexit.register(_remove, file)
        return prefix
    return ""


def _remove(file: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(file)


def name_by(prefix: str) -> None:
    """Lets the names of the segments that this process makes begin with `prefix`."""
    if prefix:
        shared_memory._SHM_NAME_PREFIX = f"/{prefix}-"
        shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 18  # 16 random digits
