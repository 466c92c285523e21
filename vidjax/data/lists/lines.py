"""Lines of text lists: reading them, splitting them, and the values in their fields."""

import csv
import functools
import re
from collections.abc import Iterable, Sequence

from vidjax.data.reading import locators
from vidjax.errors import UserError

_MISSING = {"", "nan", "<na>"}
_MISSING_NUMBERS = _MISSING | {"none", "null", "na", "n/a"}


def read_lines(path: str) -> list[tuple[int, str]]:
    """Reads the numbered lines of a text file that are not blank, without outer spaces.

    Text may be UTF-8 or, as Excel writes it, UTF-16.

    Raises:
        UserError: the file cannot be read, or a line is not UTF-8.
    """
    content = read_bytes(path)
    has_mark = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in content and not has_mark:
        raise UserError(f"{path} is not text; save the list as UTF-8 text, such as csv")
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            content = content[2:].decode(encoding, "replace").encode()
    lines = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = line.decode().strip(" \r\n\f")
        except UnicodeDecodeError:
            raise UserError(
                f"{path} line {number} is not UTF-8: {line[:80]!r}; save the list as UTF-8"
            ) from None
        if text.strip(",;\t "):  # Excel writes empty rows as ,,,
            lines.append((number, text))
    return lines


def read_bytes(path: str) -> bytes:
    """Reads a file or object; raises UserError if that fails."""
    try:
        return locators.read(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def bad_line(path: str, where: str, line: object, expected: str) -> UserError:
    """Returns the error of a line that has another format."""
    return UserError(f"{path} {where}: expected {expected}, got {str(line)[:120]!r}")


def split_line(line: str, separator: str) -> list[str]:
    """Splits a line at commas or the like that are not in quotes."""
    fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    return [field.strip() for field in fields]


def column_names(line: str, separator: str = r"[,;\t]") -> list[str]:
    """Returns a header's words in lower case, with underscores for spaces and hyphens."""
    words = line.split() if separator == " " else re.split(separator, line)
    return [re.sub(r"[\s-]+", "_", word.strip("\"' \ufeff").lower()) for word in words]


@functools.lru_cache(100_000)  # labels come again and again
def whole(text: object) -> int | None:
    """Returns a whole number written in digits, or as a float by pandas (3.0); else None."""
    match = re.fullmatch(r"([+-]?\d+)(\.0*)?", str(text).strip())
    return int(match[1]) if match else None


def labels(texts: Iterable[object]) -> list[int | str]:
    """Returns the labels of a whole list: numbers, names, or -1 for none."""
    texts = ["" if text is None else str(text).strip() for text in texts]
    are_names = any(whole(t) is None and t.lower() not in _MISSING_NUMBERS for t in texts)
    missing = _MISSING if are_names else _MISSING_NUMBERS
    numbers = [-1 if text.lower() in missing else whole(text) for text in texts]
    return [t if number is None else number for t, number in zip(texts, numbers, strict=True)]


def are_numbers(texts: Sequence[str]) -> bool:
    """Returns whether all are whole numbers, or missing beside one that is."""
    return any(whole(text) is not None for text in texts) and not any(
        whole(text) is None and text.lower() not in _MISSING_NUMBERS for text in texts
    )


def column(rows: Sequence[Sequence[str]], index: int) -> list[str]:
    """Returns a column of rows of fields; "" where a row is too short."""
    return [row[index] if index < len(row) else "" for row in rows]
