"""Checks of a list's rows, which raise UserError or return notices."""

from vidjax.data.lists.source import Row
from vidjax.errors import UserError


def check_names(path: str, rows: list[Row]) -> None:
    """Raises if a path cannot be written as UTF-8, as the names of files on Linux may be."""
    for row in rows:
        try:
            row.path.encode()
        except UnicodeEncodeError:
            name = row.path.encode("ascii", "backslashreplace").decode()
            where = row.where if row.where.isascii() else name
            raise UserError(
                f"{path} {where}: the path {name} is not UTF-8; rename the file and list it anew"
            ) from None


def check_labels_agree(path: str, rows: list[Row], labels: list[int]) -> list[str]:
    """Raises if a path has two labels; a notice if it comes again without another caption."""
    first: dict[str, tuple[Row, int]] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    repeated = []
    for row, label in zip(rows, labels, strict=True):
        earlier, earlier_label = first.setdefault(row.path, (row, label))
        if label != earlier_label:
            raise UserError(
                f"{path} {row.where}: {row.path} has label {label} "
                f"but {earlier_label} in {earlier.where}; a video has one label"
            )
        if (row.path, row.captions) in seen:
            repeated.append(row)
        seen.add((row.path, row.captions))
    if not repeated:
        return []
    return [f"{path}: paths listed twice: {len(repeated)}, such as {repeated[0].path}"]


def check_captions(path: str, rows: list[Row]) -> None:
    captioned = {row.path for row in rows if row.captions}
    for row in rows:
        if row.path not in captioned:
            raise UserError(
                f"{path} {row.where}: {row.path} has no caption; write `path,caption` lines with "
                f"this header, as training on texts and retrieval need them"
            )
