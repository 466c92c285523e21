"""A list as its format sees it, and the rows that a format makes of it."""

import csv
import functools
import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from vidjax.data.lists.files import Files
from vidjax.data.lists.lines import bad_line, column_names, read_bytes, read_lines
from vidjax.data.reading import locators
from vidjax.errors import UserError


class Row(NamedTuple):
    """A video as a list has it.

    Attributes:
        where: for messages, such as "line 3".
        path: as it is listed; it may end with files.ANY.
        label: a number, a class's name, or numbers for each group of the dataset; -1: none.
        name: of the class, beside a number.
        others: names that the format allows beside `path`.
    """

    where: str
    path: str
    label: int | str | tuple[int, ...] = -1
    num_frames: int | None = None
    verdict: str | None = None
    captions: tuple[str, ...] = ()
    name: str = ""
    others: Callable[[], Sequence[str]] = tuple


class Listing(NamedTuple):
    """Rows of a list, class names where the format has them, and notices to the user."""

    rows: list[Row]
    classes: tuple[str, ...] | None = None
    notices: Sequence[str] = ()


class Source:
    """The file, folder or glob of a list; its content is read when first asked for.

    Attributes:
        path, folder, name: the path, and its two parts.
        files: those that the list names.
        split: "train" or "test", for formats that hold both.
    """

    def __init__(self, path: str, files: Files, split: str):
        self.path, self.files, self.split = path, files, split
        self.folder, self.name = os.path.split(path)
        self.is_folder = os.path.isdir(path)
        self.is_glob = is_glob(path)

    @property
    def is_json(self) -> bool:
        return self.name.endswith(".json") and not self.is_folder and not self.is_glob

    @property
    def is_text(self) -> bool:
        others = self.is_folder, self.is_glob, self.name.endswith((".json", ".jsonl"))
        return not any(others)

    @functools.cached_property
    def lines(self) -> list[tuple[int, str]]:
        """Numbered lines of a text file."""
        return read_lines(self.path)

    @functools.cached_property
    def columns(self) -> list[str]:
        """Words of a text file's first line, as in a header; [] of others."""
        return column_names(self.lines[0][1]) if self.is_text and self.lines else []

    @functools.cached_property
    def content(self) -> Any:
        """The value in a .json; None of others."""
        return read_json(self.path) if self.is_json else None

    @functools.cached_property
    def objects(self) -> list[dict[str, Any]] | None:
        """The objects of a .json that is a list of these; None of others."""
        is_list = isinstance(self.content, list)
        return self.content if is_list and all(isinstance(e, dict) for e in self.content) else None

    def records(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Yields (where, line, fields by column) of a csv with a header.

        Raises:
            UserError: a line has more or fewer fields than the header.
        """
        for number, line in self.lines[1:]:
            try:
                fields = dict(zip(self.columns, next(csv.reader([line])), strict=True))
            except ValueError:
                raise self.unlike_header(f"line {number}", line) from None
            yield f"line {number}", line, fields

    def unlike_header(self, where: str, line: str) -> UserError:
        """Returns the error of a line with other fields than the header has."""
        return bad_line(self.path, where, line, f"`{self.lines[0][1]}`")

    def beside(self, *names: str) -> str | None:
        """Returns the first of the files of these names beside the list, if there is one."""
        paths = (os.path.join(self.folder, name) for name in names)
        return next(filter(locators.is_file, paths), None)


def is_glob(path: str) -> bool:
    """Returns whether a list is given as a pattern of file names."""
    return glob.has_magic(path) and not locators.is_url(path) and not os.path.exists(path)


def read_json(path: str) -> Any:
    """Reads a .json; raises UserError if it is none."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def clean_captions(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns texts without line breaks and without the empty ones; TypeError if they are none."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("captions are a list of texts")
    return tuple(filter(None, (" ".join(text.split()) for text in texts)))
