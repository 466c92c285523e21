"""Files that grow by a line an entry: metrics, bad videos, steps that went wrong."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from vidjax import files


class Journal:
    """A file of JSON objects, one a line, on a disk or in a bucket.

    Each entry is written when `add` returns. Objects in buckets cannot grow, so they are written
    again whole.

    Attributes:
        path: the file; made by the first entry.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = epath.Path(path)
        self._ends_whole = False

    def _text(self) -> str:
        return self.path.read_bytes().decode(errors="replace") if self.path.exists() else ""

    def read(self, **types: type) -> list[dict[str, Any]]:
        """Returns all entries that have values of these types; notes how many lines have not.

        A kill may cut a line off, and a disk may damage others.
        """
        lines, entries = list(filter(str.strip, self._text().split("\n"))), []
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and all(
                    type(entry.get(key)) is kind for key, kind in types.items()
                ):
                    entries.append(entry)
        if count := len(lines) - len(entries):
            print(
                f"note: {count} of {len(lines)} lines of {self.path} are damaged and left out",
                file=sys.stderr,
            )
        return entries

    def add(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry) + "\n"
        if files.is_remote(self.path):
            self.path.write_text(self._text() + line)
            return
        if not self._ends_whole:  # a line that was cut off stays one by itself
            self._ends_whole = True
            text = self._text()
            line = f"\n{line}" if text and not text.endswith("\n") else line
        with open(self.path, "a") as file:
            file.write(line)

    def rewrite(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replaces all entries; a kill leaves the old ones or these."""
        files.write_whole(self.path, "".join(json.dumps(entry) + "\n" for entry in entries))
