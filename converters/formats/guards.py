"""Guards around files that may be damaged or hostile."""

import contextlib
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from vidjax import errors
from vidjax.errors import UserError


@contextlib.contextmanager
def reading(path: Path, name: str = "", kind: str = "", hint: str = "fetch it again") -> Iterator:
    """Turns what libraries raise of damaged files, which is anything, into one sentence.

    Raises:
        UserError: naming the file, and the tensor `name` in it, or the `kind` of file it should be.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        what = f"{path}: {name}" if name else path
        how = f"as {kind}" if kind else "safely"
        raise UserError(f"{what} cannot be read {how}: {reason(error)}; {hint}") from error


def reason(error: Exception) -> str:
    """Returns an exception's first line, after its type where that says more than the line."""
    telling = isinstance(error, ValueError | OSError | zipfile.BadZipFile)
    prefix = "" if telling else f"{type(error).__name__}: "
    return prefix + errors.first_line(error)[:200]


def check_claim(path: Path, num_bytes: int, factor: int = 1) -> None:
    """Raises UserError for a file that claims more than its size can hold, before it is read."""
    if num_bytes > factor * (size := path.stat().st_size):
        raise UserError(
            f"{path} has {size:,} bytes and claims tensors of {num_bytes:,}; it is damaged, fetch "
            "it again"
        )


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip file, whose directory must have as many members as its last record says."""
    archive = zipfile.ZipFile(path)
    with path.open("rb") as file:
        file.seek(-22 - len(archive.comment), 2)
        (count,) = struct.unpack("<H", file.read(12)[10:])
    if count not in (len(archive.infolist()), 0xFFFF):  # the latter of more than it can say
        raise zipfile.BadZipFile(
            f"its directory lists {len(archive.infolist())} of {count} members"
        )
    return archive
