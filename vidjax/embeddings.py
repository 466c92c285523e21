"""Files of embeddings: the finished one, and what there is until then.

The finished file out.npz holds (np.load; nothing in it is pickled)

    embeddings              float32 [W, D], in the order of the list, then of time
    video                   int32 [W], which of `paths`
    start_frame, end_frame  int64 [W]; the end is the first frame after the window
    start_time, end_time    float64 [W], seconds from the first frame; nan if the file tells none
    paths                   all videos of the list
    stamps                  int64 [paths, 2], size and time of change (ns) of each; -1: no file
    settings                JSON: what it was made with

or out.npy the embeddings alone, and out.json the rest. The zip comment of out.npz, or out.json, has
the SHA-256 of what was written, which is compared before the output counts as finished.
"""

import contextlib
import hashlib
import json
import os
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from vidjax import checksums, files
from vidjax.errors import UserError, disk_errors

_INDEX = ("start_frame", "end_frame", "start_time", "end_time")
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError)
_DAMAGED += (struct.error, zlib.error, zipfile.BadZipFile)  # of np.load
_COMMENT = b"sha256:"  # before the digest of all that precedes it
_DIGITS = 64


class Part:
    """The finished videos of an unfinished output, a file each, in a folder.

    Args:
        folder: where they are, or will be.
        settings: of the output.
        stamps: path -> size and time of change of all its videos, in order, from before any is
            read.
        alone: whether no other process may work on it meanwhile.

    Attributes:
        windows: path -> float64 [W, 4], columns as _INDEX.

    Raises:
        UserError: the folder has videos of other or unreadable settings, is in use, or cannot be
            written.
    """

    def __init__(
        self,
        folder: str,
        settings: dict[str, Any],
        stamps: dict[str, list[int]],
        alone: bool = True,
    ):
        self._folder, self._settings, self._stamps = folder, settings, stamps
        self.windows: dict[str, np.ndarray] = {}
        path = os.path.join(folder, "settings.json")
        try:
            os.makedirs(folder, exist_ok=True)
            if alone:
                files.lock(
                    os.path.join(folder, "lock"),
                    f"another process works on {folder}; wait for it, or choose another --output",
                )
            if not os.path.exists(path):
                self._write(path, json.dumps(settings))
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}") from None
        try:
            with open(path) as file:
                earlier = dict(json.load(file))
        except _DAMAGED:
            raise UserError(
                f"{path} is damaged; delete {folder}, and the same command begins anew"
            ) from None
        _check_settings(folder, earlier, settings)

    def add(self, path: str, windows: Sequence, vectors: np.ndarray, pool: str) -> None:
        """Keeps a video's windows [W, 4] and embeddings [W, D]."""
        windows = np.array(windows, float)
        if pool == "mean":
            vectors = vectors.mean(0, keepdims=True)
            windows = windows[:1] * [1, 0, 1, 0] + windows[-1:] * [0, 1, 0, 1]
        self.windows[path] = windows
        content = {"embeddings": vectors, "windows": windows, "stamp": self._stamps[path]}

        def arrays(file) -> None:
            np.savez(file, **content)
            _add_digest(file)

        os.makedirs(os.path.dirname(self._file(path)), exist_ok=True)
        self._write(self._file(path), arrays)

    def find(self, path: str) -> bool:
        """Whether a video is there whole, embedded from the file as its stamp has it."""
        with contextlib.suppress(*_DAMAGED):
            windows, stamp = self._load(path, "windows", "stamp")
            if _is_whole(self._file(path), None) and stamp.tolist() == self._stamps[path]:
                self.windows[path] = windows
        return path in self.windows

    def write(self, output: str) -> None:
        """Writes the output, of any size, video by video."""
        paths, stamps = list(self._stamps), list(self._stamps.values())
        order = [i for i, path in enumerate(paths) if path in self.windows]
        tables = [self.windows[paths[i]] for i in order]
        index = {"video": np.repeat(np.int32(order), [len(table) for table in tables])}
        for name, column in zip(_INDEX, np.concatenate(tables).T, strict=True):
            index[name] = column.astype(np.int64) if name.endswith("frame") else column

        def embeddings(file) -> None:
            for i in order:
                (vectors,) = self._load(paths[i], "embeddings")
                if i == order[0]:
                    shape = len(index["video"]), vectors.shape[1]
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(vectors.astype("<f4").tobytes())

        if output.endswith(".npy"):
            # JSON has no nan.
            index = {k: np.where(np.isnan(v), None, v).tolist() for k, v in index.items()}
            index |= {"paths": paths, "stamps": stamps, "settings": self._settings}
            aside = os.path.join(self._folder, "embeddings.npy")
            self._write(aside, embeddings)
            text = checksums.sealed_line(index | {"sha256": checksums.sha256(aside)})
            self._write(_json_of(output), text)
            os.replace(aside, output)
            return
        index |= {"paths": np.array(paths), "stamps": np.array(stamps)}
        index["settings"] = np.array(json.dumps(self._settings))

        def archive(file) -> None:
            with zipfile.ZipFile(file, "w") as members:
                for name in ("embeddings", *index):
                    # A ZipInfo has a fixed date: the same content makes the same file.
                    entry = zipfile.ZipInfo(f"{name}.npy")
                    with members.open(entry, "w", force_zip64=True) as member:
                        if name == "embeddings":
                            embeddings(member)
                        else:
                            np.lib.format.write_array(member, index[name], allow_pickle=False)
            _add_digest(file)

        self._write(output, archive)

    def _write(self, path: str, content: str | Callable[[IO[bytes]], Any]) -> None:
        """Writes a file whole, aside in the folder."""
        aside = os.path.join(self._folder, f"{uuid.uuid4().hex}.tmp")  # pods may share process ids
        with disk_errors(self._folder):
            files.write_whole(path, content, aside)

    def _load(self, path: str, *names: str) -> list[np.ndarray]:
        with np.load(self._file(path)) as file:
            return [file[name] for name in names]

    def _file(self, path: str) -> str:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()
        return os.path.join(self._folder, name[:2], f"{name[2:]}.npz")


def is_finished(output: str, settings: dict[str, Any], stamps: dict[str, list[int]]) -> bool:
    """Whether the output exists, with these settings and these videos as they are now.

    Raises:
        UserError: its name, or that of its .json, is taken by something else, or it is damaged, or
            of other settings, another list or videos that have changed since.
    """
    index = _json_of(output) if output.endswith(".npy") else output
    if not (os.path.exists(output) or os.path.exists(index)):
        return False
    try:
        if index != output:
            with open(index) as file:
                found = dict(json.load(file))
            if not checksums.is_intact(found, is_sealed="sha256" in found):
                raise ValueError("its checksum is of another content")
            paths, old, made_with = found["paths"], found["stamps"], found["settings"]
        else:
            with np.load(output) as file:
                paths, old = file["paths"].tolist(), file["stamps"].tolist()
                made_with = json.loads(str(file["settings"]))
        made_with = dict(made_with)
        if len(paths) != len(old):
            raise ValueError("paths and stamps are not of the same videos")
    except _DAMAGED:
        taken = index if os.path.exists(index) else output
        raise UserError(
            f"{taken} exists and was not made by this command, or is damaged; choose another "
            f"--output, or move it away"
        ) from None
    if not os.path.exists(output):  # killed between the two, or the .npy deleted since
        return False
    if not _is_whole(output, None if index == output else found):
        raise UserError(
            f"{output} is not as it was written; delete it, and the same command makes it anew, or "
            f"restore it from a copy"
        )
    _check_settings(output, made_with, settings)
    if paths != list(stamps):
        raise UserError(f"{output} is complete, of another list; choose another --output")
    changed = [path for path, stamp in zip(paths, old, strict=True) if stamp != stamps[path]]
    if changed:
        raise UserError(
            f"{output} is complete, but {len(changed)} of its videos changed since, such as "
            f"{changed[0]}; choose another --output, or delete it"
        )
    return True


def _is_whole(output: str, index: dict[str, Any] | None) -> bool:
    """Whether a finished output is as it was written; `index` is the .json of a .npy."""
    try:
        if index is not None and "sha256" in index:
            return checksums.sha256(output) == index["sha256"]
        if index is not None:  # written before there were digests, as are files without a comment
            return len(np.load(output, mmap_mode="r")) == len(index["video"])
        with zipfile.ZipFile(output) as file:
            if not file.comment:
                return file.testzip() is None
            return file.comment == _COMMENT + _digest_but_comment(output)
    except _DAMAGED:
        return False


def _add_digest(file: IO[bytes]) -> None:
    """Writes the digest of an open zip file into its comment."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = _COMMENT + b"0" * _DIGITS
    file.flush()
    digest = _digest_but_comment(file.name)
    file.seek(-_DIGITS, os.SEEK_END)
    file.write(digest)


def _digest_but_comment(path: str) -> bytes:
    return checksums.sha256(path, os.path.getsize(path) - _DIGITS).encode()


def _check_settings(what: str, found: dict[str, Any], settings: dict[str, Any]) -> None:
    changed = []
    for key, value in settings.items():
        if _without_none(old := found.get(key)) != _without_none(value):
            long = key in ("model", "preprocessing", "parameters")
            changed.append(f"other {key}" if long else f"{key} {old}, now {value}")
    if changed:
        raise UserError(
            f"{what} was made with another checkpoint or settings ({'; '.join(changed)}); choose "
            f"another --output, or delete it"
        )


def _without_none(value: Any) -> Any:
    """Leaves out keys without a value, which fields that came later have in older files."""
    if isinstance(value, dict):
        return {key: inner for key, inner in value.items() if inner is not None}
    return value


def _json_of(output: str) -> str:
    return f"{output.removesuffix('.npy')}.json"
