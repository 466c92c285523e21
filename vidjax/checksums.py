"""Checksums of the files that commands write and read back: JSON, and whole files.

A line of JSON carries its own checksum, so that damage costs that line alone. Files that were
written before there were checksums have none, and are taken as they are.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from vidjax import files

_KEY = "line_crc32"


def _sorted(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True).encode()


def json_sha256(entry: Mapping[str, Any]) -> str:
    """Returns the digest of a JSON object, which does not depend on the order of its keys."""
    return hashlib.sha256(_sorted(entry)).hexdigest()


def sealed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its checksum, which comes last."""
    content = {key: value for key, value in entry.items() if key != _KEY}
    return {**content, _KEY: f"{zlib.crc32(_sorted(content)):08x}"}


def is_intact(entry: Mapping[str, Any], *, is_sealed: bool = False) -> bool:
    """Whether an object is as it was sealed, or has no checksum, unless it must be sealed."""
    return (_KEY not in entry and not is_sealed) or entry.get(_KEY) == sealed(entry)[_KEY]


def sealed_line(entry: Mapping[str, Any]) -> str:
    """Returns the line of an object with its checksum."""
    return json.dumps(sealed(entry)) + "\n"


def read_lines(path: str | os.PathLike, *, are_sealed: bool = False) -> list[dict[str, Any]]:
    """Returns the objects of a file that are as they were written; none if there is no file.

    Lines that are cut off, damaged or no objects are left out. So are those without a checksum, if
    another line has one, or if `are_sealed`.

    Raises:
        OSError: it cannot be read.
    """
    if not os.path.isfile(path):
        return []
    entries = []
    with open(path, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and is_intact(entry):
                    entries.append(entry)
    if are_sealed or any(_KEY in entry for entry in entries):
        entries = [entry for entry in entries if _KEY in entry]
    for entry in entries:
        entry.pop(_KEY, None)
    return entries


def write_lines(path: str | os.PathLike, entries: Iterable[Mapping[str, Any]]) -> None:
    """Writes objects with their checksums, unless the file holds just them already.

    A kill or a power cut leaves the old file or the new one.

    Raises:
        OSError: it cannot be written.
    """
    content = "".join(map(sealed_line, entries)).encode()
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == content:
            return
    files.write_whole(path, content)


def sha256(path: str | os.PathLike, end: int | None = None) -> str:
    """Returns the digest of a file, or of its first `end` bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest, left = hashlib.sha256(), os.path.getsize(path) if end is None else end
    with open(path, "rb") as file:
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
