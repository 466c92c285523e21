"""Files of JSON objects, one a line, that grow: metrics, bad videos, steps that went wrong."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath


class Journal:
    """One such file, on a disk or in a bucket.

    Each entry is written when `add` returns. Objects in buckets cannot grow, so they are written
    again whole.

    Attributes:
        path: the file; made by the first entry.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = epath.Path(path)
        self._ends_whole = False

    def _text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""

    def read(self) -> list[dict[str, Any]]:
        """All entries; lines that are none, as where a kill cut one off, are left out."""
        found = []
        for line in self._text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                found.append(entry)
        return found

    def add(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry) + "\n"
        if "://" in str(self.path):
            self.path.write_text(self._text() + line)
            return
        if not self._ends_whole:  # a line that was cut off stays one by itself
            self._ends_whole = True
            text = self._text()
            line = f"\n{line}" if text and not text.endswith("\n") else line
        with open(self.path, "a") as file:
            file.write(line)

    def rewrite(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Puts these entries in the place of all; a kill leaves the old ones or these."""
        new = self.path.with_suffix(".tmp")
        new.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        new.replace(self.path)
