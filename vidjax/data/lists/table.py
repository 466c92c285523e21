"""Tables of text: how lines split into fields, and whether the first is a header.

Told from all lines together:

    separators    tab, semicolon, comma or space, whichever explains most lines
    header        a first line of known column names; or one without numbers whose path is no video
                  or whose label is no number, where those of all others are

See `columns` for what the fields hold.
"""

import collections
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from vidjax.data.lists.files import LOOKED_AT, Files, spread
from vidjax.data.lists.headers import INDEX_COLUMNS, PATH_COLUMNS, SEPARATORS, header_separator
from vidjax.data.lists.lines import are_numbers, bad_line, column, column_names, split_line, whole
from vidjax.data.reading.video_files import EXTENSIONS, is_video
from vidjax.errors import UserError


class Table(NamedTuple):
    """The fields of a list's lines.

    header has the columns' names in lower case, with underscores, or nothing. separator is None
    where each line is a path.
    """

    header: list[str]
    rows: list[tuple[str, list[str]]]  # (where it is, such as "line 3", fields)
    separator: str | None = None
    first: str = ""  # the header as it is written

    def unlike(self, path: str, where: str, fields: Sequence[str]) -> UserError:
        """Returns the error of a line of the list `path` with other fields than the rest."""
        separator = self.separator or ","
        expected = f"`{self.first or f'path{separator}label'}`".replace("\t", "<tab>")
        return bad_line(path, where, separator.join(fields), expected)


def read_table(
    path: str, lines: list[tuple[int, str]], files: Files, columns: Collection[str]
) -> Table:
    """Splits the lines of a list.

    Args:
        path: the list, for messages.
        lines: what `read_lines` returned.
        files: those that the list names, to tell paths from labels.
        columns: names of further columns that a header may have.

    Raises:
        UserError: no separator explains the lines.
    """
    lines = _without_comments(lines, columns)
    if not lines:
        return Table([], [])
    separator, is_headed = _separator(path, lines, files, columns)
    texts = [text for _, text in lines]
    if separator is None:
        split = [[text.strip("\"'")] for text in texts]
    elif separator == " ":
        split = [texts[0].split()] if is_headed else []
        split += _split_at_spaces(texts[len(split) :], files)
    else:
        split = [split_line(text, separator) for text in texts]
    _drop_empty_ends(split)
    rows = [(f"line {n}", fields) for (n, _), fields in zip(lines, split, strict=True)]
    if not is_headed and separator is not None:
        is_headed = _differs(split, files)
    if is_headed:
        header = column_names("\t".join(split[0]), "\t")
        return _without_index(Table(header, rows[1:], separator, texts[0]))
    return _without_index(Table([], rows, separator))


def _without_comments(
    lines: list[tuple[int, str]], columns: Collection[str]
) -> list[tuple[int, str]]:
    """Returns the lines without those after #, if the first is one; it may be the header."""
    first = lines[0][1] if lines else ""
    if not first.startswith("#") or any(map(is_video, re.split(r"[\s,;]+", first))):
        return lines
    bare = first.lstrip("# ")
    header = [(lines[0][0], bare)] if header_separator(bare, columns) else []
    return header + [(number, text) for number, text in lines if not text.startswith("#")]


def _separator(
    path: str, lines: list[tuple[int, str]], files: Files, columns: Collection[str]
) -> tuple[str | None, bool]:
    """Returns the separator, None for bare paths, and whether a header of known names is first."""
    first = lines[0][1]
    separator = header_separator(first, columns)
    if separator:
        return separator, True
    is_headed = column_names(first, "\n")[0] in PATH_COLUMNS
    sample = [text for _, text in lines[is_headed:][:LOOKED_AT]]
    bare = [text.strip("\"'") for text in sample]
    if all(map(is_video, bare)):
        return _before_paths(bare, files), is_headed

    def explained(separator: str) -> int:
        count = 0
        for text in sample:
            fields = text.rsplit(None, 1) if separator == " " else split_line(text, separator)
            has_number = whole(fields[-1]) is not None
            count += len(fields) > 1 and (has_number or any(map(is_video, fields)))
        return count

    def on_disk(separator: str | None) -> int:
        first = [text.split(separator)[0].strip("\"' ") if separator else text for text in sample]
        return sum(files.find(name) is not None for name in first)

    best = max(SEPARATORS, key=explained)
    if explained(best):
        return best, is_headed
    if not files.remote:
        best = max((None, *SEPARATORS), key=on_disk)
        if on_disk(best):
            return best, is_headed
    for separator in "\t;":  # rare in text otherwise
        if {len(split_line(text, separator)) for text in sample} == {2}:
            return separator, is_headed
    raise UserError(
        f"cannot tell the format of {path}, whose first line is {first[:120]!r}; "
        "expected `path label`, separated by a space, comma or tab, or a header `path,caption`, "
        "and paths with an extension or below root"
    )


def _before_paths(lines: list[str], files: Files) -> str | None:
    """Returns the separator between labels and the paths after them; None for bare paths."""
    for separator in SEPARATORS:
        split = [line.partition(separator) for line in lines]
        if not all(middle for _, middle, _ in split):
            continue
        if all(whole(label) is not None for label, _, _ in split) or (
            not files.remote
            and any(files.find(name.strip()) for _, _, name in split)
            and not any(map(files.find, lines))
        ):
            return separator
    return None


def _split_at_spaces(texts: list[str], files: Files) -> list[list[str]]:
    """Splits where paths and names may hold spaces: after a video's extension, or by the disk."""
    video = rf"{'|'.join(map(re.escape, EXTENSIONS))}|\.array_record#\d+"
    after = re.compile(rf"[\"']?(.*(?:{video}))[\"']?(?:\s+(.*))?", re.IGNORECASE)
    matches = [after.fullmatch(text) for text in texts]
    if all(match and match[2] is None for match in matches):  # labels come first
        return [[field.strip(" \"'") for field in text.split(None, 1)] for text in texts]
    plain = [text.split() for text, match in zip(texts, matches, strict=True) if not match]
    sample = files.sample(plain)
    # To look up each path would list every folder of frames.
    by_disk = any(_end_on_disk(words, files) != _end_by_numbers(words) for words in sample)
    paths, rests = [], []
    for text, match in zip(texts, matches, strict=True):
        if match:
            path, rest = match[1], (match[2] or "").split()
        else:
            words = text.split()
            end = _end_on_disk(words, files) if by_disk else _end_by_numbers(words)
            path, rest = " ".join(words[:end]).strip("\"'"), words[end:]
        paths.append(path)
        rests.append(rest)
    return [[path, *rest] for path, rest in zip(paths, _join_names(rests), strict=True)]


def _join_names(rests: list[list[str]]) -> list[list[str]]:
    """Joins the words of a class's name, which may have a number before or after it."""
    others = rests[1:] or rests  # without what may be a header
    if all(map(are_numbers, others)):
        return rests
    if all(len(words) > 1 and whole(words[-1]) is not None for words in others):
        return [[" ".join(words[:-1]), words[-1]] if len(words) > 1 else words for words in rests]
    if all(len(words) > 1 and whole(words[0]) is not None for words in others):
        return [[words[0], " ".join(words[1:])] if len(words) > 1 else words for words in rests]
    return [[" ".join(words).strip("\"'")] if words else [] for words in rests]


def _end_by_numbers(words: list[str]) -> int:
    """Counts the words of a line's path: all but the numbers after it, or the last word."""
    end = len(words)
    while end > 1 and whole(words[end - 1]) is not None:
        end -= 1
    return end if end < len(words) else max(1, end - 1)


def _end_on_disk(words: list[str], files: Files) -> int:
    """Counts the words of a line that are the path of a file; by numbers if there is none."""
    ends = range(len(words), 0, -1)
    there = (end for end in ends if files.is_there(" ".join(words[:end]).strip("\"'")))
    return next(there, _end_by_numbers(words))


def _drop_empty_ends(split: list[list[str]]) -> None:
    """Removes columns at the end that are empty in all lines, as of `a.mp4,0,`."""
    widths = collections.Counter(map(len, split))
    width = widths.most_common(1)[0][0]
    while width > 1 and all(fields[width - 1 :] in ([], [""]) for fields in split):
        for fields in split:
            del fields[width - 1 :]
        width -= 1
    for fields in split:
        while len(fields) > width and not fields[-1]:
            fields.pop()


def _differs(split: list[list[str]], files: Files) -> bool:
    """Returns whether the first line is a header of unknown names, unlike all others."""
    first, rest = split[0], split[1:]
    if not rest or {len(fields) for fields in rest} != {len(first)} or len(first) < 2:
        return False
    if any(map(is_video, first)):
        return False
    video = video_column(rest, files)
    others = [i for i in range(len(first)) if i != video]
    names = spread(column(rest, video), LOOKED_AT)
    numbered = first[1:] if not first[0] else first
    if numbered == [str(i) for i in range(len(numbered))]:  # pandas' names of columns
        return all(map(is_video, names))
    if any(whole(field) is not None for field in first) or files.is_there(first[video]):
        return False
    if any(first[i] in column(rest, i) for i in others):
        return False
    if any(are_numbers(column(rest, i)) for i in others):
        return True
    return all(is_video(name) or files.is_there(name) for name in names)


def _without_index(table: Table) -> Table:
    """Removes a first column that only counts the lines, as pandas writes it."""
    width = min((len(fields) for _, fields in table.rows), default=0)
    if width < 2:
        return table
    fields = [fields for _, fields in table.rows]
    if table.header:
        is_index = table.header[0] in INDEX_COLUMNS
    else:
        middle = range(1, width - 1)  # with a label after it
        numbers = [whole(text) for text in column(fields[:2], 0)]
        is_index = numbers in ([0, 1], [1, 2]) and any(
            all(map(is_video, column(fields, i))) for i in middle
        )
        counts = range(numbers[0] or 0, (numbers[0] or 0) + len(fields))
        is_index = is_index and [whole(text) for text in column(fields, 0)] == list(counts)
    if not is_index:
        return table
    rows = [(where, fields[1:]) for where, fields in table.rows]
    return table._replace(header=table.header[1:], rows=rows)


def video_column(rows: list[list[str]], files: Files) -> int:
    """Returns the column of the paths in a table without a header."""
    width = min(map(len, rows))
    for index in range(width):
        if sum(map(is_video, column(rows, index))) > len(rows) / 2:
            return index
    sample = files.sample(rows)
    found = [sum(files.find(row[index]) is not None for row in sample) for index in range(width)]
    return found.index(max(found))
