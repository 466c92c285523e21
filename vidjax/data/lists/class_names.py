"""Class names: a tuple, a file that the user gives, or one beside the list.

A classes file has one name a line, or is a csv with the header `id,name`, as X-CLIP's labels are,
or has lines `name,number` or `number name`.
"""

import os
import re

from vidjax.data.lists.lines import bad_line, column_names, read_lines, split_line, whole
from vidjax.data.reading import locators
from vidjax.errors import UserError


def class_names(
    path: str,
    classes: str | os.PathLike | tuple[str, ...],
    groups: tuple[tuple[str, int], ...],
) -> tuple[str, ...] | None:
    """Returns the class names in the order of labels; None if there are none.

    Args:
        path: the list.
        classes: the names or their file; "" for a file beside the list.
        groups: of the dataset, whose names follow each other.

    Raises:
        UserError: the file is missing, or a line of it is wrong.
    """
    if isinstance(classes, tuple):
        return classes
    file = os.path.expanduser(classes)
    if not file:
        file = next(filter(locators.is_file, _class_files(path)), "")
        if not file:
            return None
    elif not locators.is_file(file):
        raise UserError(f"classes file {file} does not exist")
    lines = [(number, line.strip()) for number, line in read_lines(file)]
    if lines and column_names(lines[0][1]) == ["id", "name"]:
        names = _numbered_names(file, lines[1:])
    else:
        names = _names_with_numbers(lines) or tuple(line for _, line in lines)
    start = 0
    for _, size in groups or (("", len(names)),):  # a noun may be a verb too
        group = names[start : start + size]
        if len(set(group)) < len(group):
            twice = next(name for name in group if group.count(name) > 1)
            raise UserError(f"classes file {file} names {twice!r} twice")
        start += size
    return names


def _class_files(path: str) -> list[str]:
    """Returns the files beside a list that may name its classes."""
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    # Jester's are jester-v1-labels.csv beside jester-v1-train.csv.
    labels = re.sub(r"(train|validation|val|test)(?=\.(csv|txt)$)", "labels", name)
    names = ["classes.txt", "moments_categories.txt", *([labels] if labels != name else [])]
    return [os.path.join(folder, name) for name in names]


def _names_with_numbers(lines: list[tuple[int, str]]) -> tuple[str, ...] | None:
    """Returns the names of lines `name,number` or `number name` by their numbers; else None."""
    for pattern in (r"(?P<name>.*\S)\s*,\s*(?P<id>\d+)", r"(?P<id>\d+)(\s*,\s*|\s+)(?P<name>.+)"):
        matches = [re.fullmatch(pattern, line) for _, line in lines]
        if all(matches):
            names = {int(match["id"]): match["name"].strip('"') for match in matches}
            first = min(names, default=0)  # UCF101's classInd.txt counts from 1
            if first < 2 and sorted(names) == list(range(first, first + len(lines))):
                return tuple(names[number] for number in sorted(names))
    return None


def _numbered_names(path: str, lines: list[tuple[int, str]]) -> tuple[str, ...]:
    """Returns names of lines `id,name` by their ids, which must be 0, 1, ..., in any order."""
    names: dict[int, str] = {}
    for number, line in lines:
        fields = split_line(line, ",")
        if len(fields) != 2 or whole(fields[0]) is None or not fields[1]:
            raise bad_line(path, f"line {number}", line, "`id,name`, names with a comma in quotes")
        index = whole(fields[0])
        if index in names or not 0 <= index < len(lines):
            problem = "comes twice" if index in names else "is out of range"
            raise UserError(
                f"{path} line {number}: id {index} {problem}; the ids of {len(lines)} classes are "
                f"0 to {len(lines) - 1}"
            )
        names[index] = fields[1]
    return tuple(names[index] for index in range(len(lines)))
