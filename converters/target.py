"""The folder that a conversion writes, which appears or is replaced as a whole."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vidjax import errors, files
from vidjax.errors import UserError


def local_folder(target: str | os.PathLike) -> Path:
    """Returns the path of a target, which must be on this machine."""
    if files.is_remote(target):
        raise UserError(f"--to={target} must be a folder of this machine; copy it up when done")
    return Path(target).expanduser()


@contextlib.contextmanager
def new_folder(target: Path, replaces: tuple[str, ...]) -> Iterator[Path]:
    """Makes a temporary folder beside `target` that becomes it when the block ends well.

    A target that holds exactly what an earlier conversion wrote (`replaces`) is replaced, if nobody
    changed it meanwhile. The temporary folder is locked, and that of a conversion that was killed
    is used again.

    Raises:
        UserError: the target holds something else or cannot be written, or another process converts
            into it.
    """
    if target.is_symlink():
        target = target.resolve()
    if target.exists() and not target.is_dir():
        raise UserError(f"--to={target} is a file; name a new folder")
    temporary = target.with_name(f".{target.name[:200]}.converting")
    new, old, mark = temporary / "new", temporary / "old", temporary / "lock"
    with errors.disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if temporary.is_dir() and not mark.is_file() and any(temporary.iterdir()):
                raise UserError(f"--to={target} needs {temporary}, which exists; remove that")
            temporary.mkdir(exist_ok=True)
            files.lock(mark, f"another process converts into --to={target}; wait for it")
        except OSError as error:
            raise UserError(
                f"--to={target} cannot be written: {error.strerror}; name another folder"
            ) from None
        try:
            if old.exists() and not target.exists():  # killed between two renames
                old.rename(target)
            before = _content(target)
            there = {path.parts[0] for path in before}
            if there and not (replaces and replaces[0] in there and there <= set(replaces)):
                raise UserError(
                    f"--to={target} is not empty and no earlier conversion; name a new folder, or "
                    f"remove it"
                )
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            yield new
            _replace(target, new, before, old)
        except UserError as error:  # of what is gone when it is read
            raise type(error)(str(error).replace(str(new), str(target))) from error
        finally:
            for folder in (new, temporary / "trash"):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                if not old.exists():
                    mark.unlink()
                    temporary.rmdir()
            files.unlock(mark)


def _replace(target: Path, new: Path, before: dict[Path, tuple[int, ...]], old: Path) -> None:
    """Puts `new` in the place of `target`, of which nothing but its content `before` is removed.

    By way of `old`, in a folder of its own.
    """
    changed = False
    if before:
        target.rename(old)
        changed = _content(old) != before
    if not changed:
        try:
            new.rename(target)  # onto nothing, or an empty folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            changed = True
    if changed:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise UserError(
            f"--to={target} changed while this command worked, so nothing was written"
            + (f" and what was there before is in {old}" if old.exists() else " or removed")
            + "; name a new folder"
        )
    if before:
        old.rename(old.with_name("trash"))


def _content(folder: Path) -> dict[Path, tuple[int, ...]]:
    """Returns what tells whether the files and folders below a folder change."""
    found = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        status = path.lstat()
        stamp = (status.st_size, status.st_mtime_ns) if path.is_file() else ()
        found[path.relative_to(folder)] = (status.st_ino, *stamp)
    return found
