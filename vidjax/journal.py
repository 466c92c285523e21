"""Files of JSON objects, one a line, that grow: metrics, bad videos, steps that went wrong."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath


class Journal:
    """One such file, on a disk or in a bucket.

    Each entry is on disk when `add` returns. Objects in buckets cannot grow, so they are written
    again whole.

    Attributes:
        path: the file; made by the first entry.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = epath.Path(path)
        self._is_remote = "://" in str(path)
        self._text = self._whole_lines()
        if not self._is_remote and self.path.exists() and self._text != self.path.read_text():
            self.path.write_text(self._text)

    def _whole_lines(self) -> str:
        """The text up to where a kill cut a line off."""
        text = self.path.read_text() if self.path.exists() else ""
        return text[: text.rfind("\n") + 1]

    def read(self) -> list[dict[str, Any]]:
        """All entries; lines that are none are left out."""
        return list(_entries(self._text if self._is_remote else self._whole_lines()))

    def add(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry) + "\n"
        if self._is_remote:
            self._text += line
            self.path.write_text(self._text)
            return
        with open(self.path, "a") as file:
            file.write(line)

    def rewrite(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Puts these entries in the place of all."""
        self._text = "".join(json.dumps(entry) + "\n" for entry in entries)
        new = self.path.with_suffix(".tmp")
        new.write_text(self._text)
        new.replace(self.path)


def _entries(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
