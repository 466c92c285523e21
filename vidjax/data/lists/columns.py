"""Columns of a table of text: which holds the path, which the label, which its name.

    paths         the column whose fields have a video's extension, or are found on disk
    labels        whole numbers, also as pandas writes them (3.0); else names. Empty fields, and nan
                  and the like among numbers, are no labels.

A line without a header may have a number and a name beside its path, in either order: the label and
its class's name. Of two numbers the second is the label in

    dir num_frames label       lines of mmaction2: paths without a video's extension
    path start_frame label     lines of VideoMAE: the first number is 0 in all lines
    path num_frames label      the first number is at least 10 in all lines

A number that counts the frames of a folder is no label, so that `dir num_frames name` has names and
VideoMAE V2's `dir start_frame num_frames` no labels. Other lines with several numbers have several
labels; they are refused unless a header names the columns. Lines of a path, the name of one of its
folders and two counts are Moments in Time's.
"""

import collections
import os
import re
from collections.abc import Sequence

from vidjax.data.lists.files import Files
from vidjax.data.lists.headers import SEVERAL_LABELS, label_columns, path_column
from vidjax.data.lists.lines import are_numbers, column, labels, whole
from vidjax.data.lists.source import Listing, Row, Source
from vidjax.data.lists.table import Table, video_column
from vidjax.data.reading.video_files import count_frames, is_video
from vidjax.errors import UserError

_SEVERAL_NUMBERS = re.compile(r"[\[(]?\s*\d+(\s*[,;|\s]\s*\d+)+\s*[\])]?")
_FEWEST_FRAMES = 10  # a smaller number between path and label may be a label


def labelled(source: Source, table: Table) -> Listing:
    """Tells which columns of a table are the path, the label and its name.

    Raises:
        UserError: a line has other columns than the rest, or several labels.
    """
    rows, notices = _rows(source.path, table, source.files)
    for row in rows:
        if _SEVERAL_NUMBERS.fullmatch(row.label):
            raise _several(source.path, row.where, (row.path, row.label))
    numbers = labels(row.label for row in rows)
    rows = [row._replace(label=label) for row, label in zip(rows, numbers, strict=True)]
    return Listing(rows, notices=notices)


def _rows(path: str, table: Table, files: Files) -> tuple[list[Row], list[str]]:
    """Returns rows whose labels are text, and notices."""
    if not table.rows:
        return [], []
    if table.separator is None and not table.header:
        return [Row(where, fields[0], "") for where, fields in table.rows], []
    _check_widths(path, table)
    if not table.header:
        return _rows_by_content(path, table, files), []
    fields = [fields for _, fields in table.rows]
    video = path_column(table.header, fields)
    several = [name for name in table.header if SEVERAL_LABELS.fullmatch(name)]
    if len(several) > 1:
        raise UserError(
            f"{path} has several labels a video ({', '.join(several)}), but a video has one; name "
            f"the column of the one to learn `label`"
        )
    notices, label, name = [], *label_columns(table.header, fields, video)
    if label is None and len(table.header) > 1:
        unknown = [n for i, n in enumerate(table.header) if i != video]
        notices.append(
            f"{path}: none of its columns {', '.join(unknown)} is taken for a label; name the "
            f"column that is `label`"
        )
    rows = []
    for where, f in table.rows:
        texts = ["" if place is None else f[place] for place in (label, name)]
        rows.append(Row(where, f[video], texts[0], name=texts[1]))
    splits = {f[table.header.index("split")] for f in fields} if "split" in table.header else ()
    if len(splits) > 1:
        notices.append(f"{path}: its column split has {', '.join(sorted(splits))}; all are read")
    return rows, notices


def _rows_by_content(path: str, table: Table, files: Files) -> list[Row]:
    """Returns the rows of a table without a header; see the module."""
    rows = [fields for _, fields in table.rows]
    video = video_column(rows, files)
    columns = [column(rows, i) for i in range(len(rows[0])) if i != video]
    numbers = [column for column in columns if are_numbers(column)]
    names = [column for column in columns if not are_numbers(column) and any(column)]
    paths = column(rows, video)
    for where, fields in table.rows:
        if len(names) > 1 or not fields[video]:
            raise table.unlike(path, where, fields)
    if len(numbers) > 1 and names:
        folders = (re.split(r"[\\/]+", name)[:-1] for name in paths)
        if all(name in inside for name, inside in zip(names[0], folders, strict=True)):
            numbers = []  # Moments in Time's counts of annotators
    if len(numbers) == 1 and names and _counts_frames(paths, names[0], numbers[0], files):
        numbers = []
    if len(numbers) == 2:
        if _counts_frames(paths, *numbers, files):
            numbers = []
        elif _is_between(paths, *numbers, files):
            numbers = numbers[1:]
    if len(numbers) > 1:
        raise _several(path, table.rows[0][0], (paths[0], *(column[0] for column in numbers)))
    empty = [""] * len(rows)
    label = (numbers or names or [empty])[0]
    name = names[0] if numbers and names else empty
    return [
        Row(where, video, text, name=word)
        for (where, _), video, text, word in zip(table.rows, paths, label, name, strict=True)
    ]


def _is_between(paths: list[str], first: list[str], second: list[str], files: Files) -> bool:
    """Returns whether the first of two numbers is a start frame or frame count, not a label."""
    if not any(map(is_video, paths)):
        sample = files.sample(paths)
        if not any(is_video(files.find(name) or "") for name in sample):
            return True
    starts = {whole(text) or 0 for text in first}
    return starts == {0} or min(starts) >= _FEWEST_FRAMES or {*map(whole, second)} == {-1}


def _counts_frames(paths: list[str], first: list[str], last: list[str], files: Files) -> bool:
    """Returns whether the last number counts frames of folders, so that there are no labels."""
    if files.remote or any(map(is_video, paths)):
        return False
    sample = files.sample(list(zip(paths, first, last, strict=True)), 5)[:5]
    for name, start, end in sample:
        count = count_frames(os.path.join(files.base, files.find(name) or name))
        if not count or whole(start) == count or whole(end) != count:
            return False
    return True


def _check_widths(path: str, table: Table) -> None:
    """Raises if a line has not as many fields as the header or most lines."""
    counts = collections.Counter(len(fields) for _, fields in table.rows)
    width = len(table.header) or counts.most_common(1)[0][0]
    for where, fields in table.rows:
        if len(fields) == width:
            continue
        longest = max((fields for _, fields in table.rows), key=len)
        if not table.header and min(counts) > 1 and are_numbers(longest[1:]):
            raise _several(path, *next((w, f) for w, f in table.rows if len(f) > 2))
        raise table.unlike(path, where, fields)


def _several(path: str, where: str, fields: Sequence[str]) -> UserError:
    return UserError(
        f"{path} {where}: {fields[0]} has several labels or numbers ({', '.join(fields[1:])}), but "
        f"a video has one label; write `path label` lines, or a header that names the columns, "
        f"such as `path,num_frames,label`"
    )
