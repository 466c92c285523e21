"""Tables of text: how lines split into fields, which line is a header, what each column holds.

A text list of videos is a table with a path and mostly a label a line. Its format is told from all
lines together:

    separators    tab, semicolon, comma or space, whichever explains most lines
    header        a first line of known column names; or one without numbers whose path is no video
                  or whose label is no number, where those of all others are
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
import csv
import functools
import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from vidjax.data.reading import locators, video_files
from vidjax.errors import UserError

_words = functools.partial(re.findall, r"\w+")

# Sorted by preference: of `clip_name,clip_path,label` the second is the file.
PATH_COLUMNS = _words(
    "path video_path clip_path file_path filepath full_path rel_path relative_path video_file file "
    "filename file_name video_filename video clip_file video_name vid_name clip_name clip video_id"
)
_WEAK_PATH_COLUMNS = _words("vid videoid clip_id frame_dir folder dir directory id uid key name")
LABEL_COLUMNS = _words(
    "label class class_id label_id target labels class_name action action_id action_label category "
    "category_id label_idx class_idx class_index label_index class_label label_name classname "
    "action_name category_name cls activity activity_id activity_name gesture gesture_id gt "
    "ground_truth annotation y tag sport emotion sign gloss word"
)
_NAME_COLUMNS = _words("name names template")
_OTHER_COLUMNS = _words(
    "index idx fps frames num_frames n_frames nframes total_frames frame_count start end split set "
    "start_frame end_frame stop_frame time_start time_end start_time end_time duration length size "
    "subset fold url width height sha md5 sha256 hash is_cc resolution codec text description "
    "sentence"
)
_INDEX_COLUMNS = ("", "unnamed:_0", "index")
_SEVERAL_LABELS = re.compile(r"(label|class|target|tag|action|category)_?\d+")
_SEVERAL_NUMBERS = re.compile(r"[\[(]?\s*\d+(\s*[,;|\s]\s*\d+)+\s*[\])]?")
_MISSING = {"", "nan", "<na>"}
_MISSING_NUMBERS = _MISSING | {"none", "null", "na", "n/a"}
_SEPARATORS = "\t;, "
_LOOKED_AT = 100  # lines that tell the separator
_FEWEST_FRAMES = 10  # a smaller number between path and label may be a label


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


class Entry(NamedTuple):
    """A line's path, its label as text, and the class's name beside a number."""

    where: str
    path: str
    label: str = ""
    name: str = ""


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


def column_names(line: str, separator: str = r"[,;\t]") -> list[str]:
    """Returns a header's words in lower case, with underscores for spaces and hyphens."""
    words = line.split() if separator == " " else re.split(separator, line)
    return [re.sub(r"[\s-]+", "_", word.strip("\"' \ufeff").lower()) for word in words]


def read_table(
    path: str, lines: list[tuple[int, str]], files: video_files.Files, columns: Collection[str]
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


def split_line(line: str, separator: str) -> list[str]:
    """Splits a line at commas or the like that are not in quotes."""
    fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    return [field.strip() for field in fields]


def path_column(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Returns which column of a table with a header has the paths."""
    words = [*PATH_COLUMNS, *_WEAK_PATH_COLUMNS]
    named = sorted((words.index(name), i) for i, name in enumerate(header) if name in words)
    places = [i for _, i in named] or range(len(header))
    are_videos = (i for i in places if all(map(video_files.is_video, _column(rows, i))))
    return next(are_videos, places[0])


def entries(path: str, table: Table, files: video_files.Files) -> tuple[list[Entry], list[str]]:
    """Tells which columns of a table are the path, the label and its name.

    Returns:
        (entries, notices).

    Raises:
        UserError: a line has other columns than the rest, or several labels.
    """
    if not table.rows:
        return [], []
    if table.separator is None and not table.header:
        return [Entry(where, fields[0]) for where, fields in table.rows], []
    _check_widths(path, table)
    if not table.header:
        return _entries_by_content(path, table, files), []
    fields = [fields for _, fields in table.rows]
    video = path_column(table.header, fields)
    several = [name for name in table.header if _SEVERAL_LABELS.fullmatch(name)]
    if len(several) > 1:
        raise UserError(
            f"{path} has several labels a video ({', '.join(several)}), but a video has one; name "
            f"the column of the one to learn `label`"
        )
    notices, label, name = [], *_label_columns(table.header, fields, video)
    if label is None and len(table.header) > 1:
        unknown = [n for i, n in enumerate(table.header) if i != video]
        notices.append(
            f"{path}: none of its columns {', '.join(unknown)} is taken for a label; name the "
            f"column that is `label`"
        )
    result = [
        Entry(where, f[video], "" if label is None else f[label], "" if name is None else f[name])
        for where, f in table.rows
    ]
    splits = {f[table.header.index("split")] for f in fields} if "split" in table.header else ()
    if len(splits) > 1:
        notices.append(f"{path}: its column split has {', '.join(sorted(splits))}; all are read")
    _check_single(path, result)
    return result, notices


def _without_comments(
    lines: list[tuple[int, str]], columns: Collection[str]
) -> list[tuple[int, str]]:
    """Returns the lines without those after #, if the first is one; it may be the header."""
    first = lines[0][1] if lines else ""
    if not first.startswith("#") or any(map(video_files.is_video, re.split(r"[\s,;]+", first))):
        return lines
    bare = first.lstrip("# ")
    header = [(lines[0][0], bare)] if _header_separator(bare, columns) else []
    return header + [(number, text) for number, text in lines if not text.startswith("#")]


def _header_separator(line: str, columns: Collection[str]) -> str:
    """Returns the separator of a line of known column names; "" for other lines."""
    known = {*PATH_COLUMNS, *_WEAK_PATH_COLUMNS, *LABEL_COLUMNS, *columns}
    for separator in _SEPARATORS:
        words = column_names(line, separator)
        if len(words) < 2 or any(w.isdigit() or video_files.is_video(w) for w in words):
            continue
        if sum(word in known for word in words) > 1 or (
            words[0] in PATH_COLUMNS and separator != " "
        ):
            return separator
    return ""


def _separator(
    path: str, lines: list[tuple[int, str]], files: video_files.Files, columns: Collection[str]
) -> tuple[str | None, bool]:
    """Returns the separator, None for bare paths, and whether a header of known names is first."""
    first = lines[0][1]
    separator = _header_separator(first, columns)
    if separator:
        return separator, True
    is_headed = column_names(first, "\n")[0] in PATH_COLUMNS
    sample = [text for _, text in lines[is_headed:][:_LOOKED_AT]]
    bare = [text.strip("\"'") for text in sample]
    if all(map(video_files.is_video, bare)):
        return _before_paths(bare, files), is_headed

    def explained(separator: str) -> int:
        count = 0
        for text in sample:
            fields = text.rsplit(None, 1) if separator == " " else split_line(text, separator)
            has_number = whole(fields[-1]) is not None
            count += len(fields) > 1 and (has_number or any(map(video_files.is_video, fields)))
        return count

    def on_disk(separator: str | None) -> int:
        first = [text.split(separator)[0].strip("\"' ") if separator else text for text in sample]
        return sum(files.find(name) is not None for name in first)

    best = max(_SEPARATORS, key=explained)
    if explained(best):
        return best, is_headed
    if not files.remote:
        best = max((None, *_SEPARATORS), key=on_disk)
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


def _before_paths(lines: list[str], files: video_files.Files) -> str | None:
    """Returns the separator between labels and the paths after them; None for bare paths."""
    for separator in _SEPARATORS:
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


def _split_at_spaces(texts: list[str], files: video_files.Files) -> list[list[str]]:
    """Splits where paths and names may hold spaces: after a video's extension, or by the disk."""
    video = rf"{'|'.join(map(re.escape, video_files.EXTENSIONS))}|\.array_record#\d+"
    after = re.compile(rf"[\"']?(.*(?:{video}))[\"']?(?:\s+(.*))?", re.IGNORECASE)
    matches = [after.fullmatch(text) for text in texts]
    if all(match and match[2] is None for match in matches):  # labels come first
        return [[field.strip(" \"'") for field in text.split(None, 1)] for text in texts]
    plain = [text.split() for text, match in zip(texts, matches, strict=True) if not match]
    sample = [] if files.remote else video_files.spread(plain, _LOOKED_AT)
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
    if all(map(_are_numbers, others)):
        return rests
    if all(len(words) > 1 and whole(words[-1]) is not None for words in others):
        return [[" ".join(words[:-1]), words[-1]] if len(words) > 1 else words for words in rests]
    if all(len(words) > 1 and whole(words[0]) is not None for words in others):
        return [[words[0], " ".join(words[1:])] if len(words) > 1 else words for words in rests]
    return [[" ".join(words).strip("\"'")] if words else [] for words in rests]


def _is_there(name: str, files: video_files.Files) -> bool:
    return not files.remote and files.find(name) is not None


def _end_by_numbers(words: list[str]) -> int:
    """Counts the words of a line's path: all but the numbers after it, or the last word."""
    end = len(words)
    while end > 1 and whole(words[end - 1]) is not None:
        end -= 1
    return end if end < len(words) else max(1, end - 1)


def _end_on_disk(words: list[str], files: video_files.Files) -> int:
    """Counts the words of a line that are the path of a file; by numbers if there is none."""
    ends = range(len(words), 0, -1)
    there = (end for end in ends if _is_there(" ".join(words[:end]).strip("\"'"), files))
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


def _differs(split: list[list[str]], files: video_files.Files) -> bool:
    """Returns whether the first line is a header of unknown names, unlike all others."""
    first, rest = split[0], split[1:]
    if not rest or {len(fields) for fields in rest} != {len(first)} or len(first) < 2:
        return False
    if any(map(video_files.is_video, first)):
        return False
    video = _video_column(rest, files)
    others = [i for i in range(len(first)) if i != video]
    column = video_files.spread(_column(rest, video), _LOOKED_AT)
    numbered = first[1:] if not first[0] else first
    if numbered == [str(i) for i in range(len(numbered))]:  # pandas' names of columns
        return all(map(video_files.is_video, column))
    if any(whole(field) is not None for field in first) or _is_there(first[video], files):
        return False
    if any(first[i] in _column(rest, i) for i in others):
        return False
    if any(_are_numbers(_column(rest, i)) for i in others):
        return True
    return all(video_files.is_video(name) or _is_there(name, files) for name in column)


def _without_index(table: Table) -> Table:
    """Removes a first column that only counts the lines, as pandas writes it."""
    width = min((len(fields) for _, fields in table.rows), default=0)
    if width < 2:
        return table
    fields = [fields for _, fields in table.rows]
    if table.header:
        is_index = table.header[0] in _INDEX_COLUMNS
    else:
        middle = range(1, width - 1)  # with a label after it
        numbers = [whole(text) for text in _column(fields[:2], 0)]
        is_index = numbers in ([0, 1], [1, 2]) and any(
            all(map(video_files.is_video, _column(fields, i))) for i in middle
        )
        counts = range(numbers[0] or 0, (numbers[0] or 0) + len(fields))
        is_index = is_index and [whole(text) for text in _column(fields, 0)] == list(counts)
    if not is_index:
        return table
    rows = [(where, fields[1:]) for where, fields in table.rows]
    return table._replace(header=table.header[1:], rows=rows)


def _column(rows: Sequence[Sequence[str]], index: int) -> list[str]:
    return [row[index] if index < len(row) else "" for row in rows]


def _are_numbers(texts: Sequence[str]) -> bool:
    """Returns whether all are whole numbers, or missing beside one that is."""
    return any(whole(text) is not None for text in texts) and not any(
        whole(text) is None and text.lower() not in _MISSING_NUMBERS for text in texts
    )


def _video_column(rows: list[list[str]], files: video_files.Files) -> int:
    """Returns the column of the paths in a table without a header."""
    width = min(map(len, rows))
    for index in range(width):
        if sum(map(video_files.is_video, _column(rows, index))) > len(rows) / 2:
            return index
    sample = [] if files.remote else video_files.spread(rows, _LOOKED_AT)
    found = [sum(files.find(row[index]) is not None for row in sample) for index in range(width)]
    return found.index(max(found))


def _label_columns(
    header: list[str], rows: list[list[str]], video: int
) -> tuple[int | None, int | None]:
    """Returns the columns of the label and, beside a number, of its name."""
    words = [*LABEL_COLUMNS, *_NAME_COLUMNS]
    named = [(words.index(name), i) for i, name in enumerate(header) if name in words]
    places = [i for _, i in sorted(named) if i != video]
    others = [i for i, name in enumerate(header) if i != video and name not in _OTHER_COLUMNS]
    others = [i for i in others if header[i] not in (*PATH_COLUMNS, *_WEAK_PATH_COLUMNS)]
    if not places and len(others) == 1:
        places = others
    numbers = [i for i in places if _are_numbers(_column(rows, i))]
    names = [i for i in places if i not in numbers and any(_column(rows, i))]
    if not numbers:
        return (names or places or [None])[0], None
    return numbers[0], names[0] if names else None


def _check_widths(path: str, table: Table) -> None:
    """Raises if a line has not as many fields as the header or most lines."""
    counts = collections.Counter(len(fields) for _, fields in table.rows)
    width = len(table.header) or counts.most_common(1)[0][0]
    for where, fields in table.rows:
        if len(fields) == width:
            continue
        longest = max((fields for _, fields in table.rows), key=len)
        if not table.header and min(counts) > 1 and _are_numbers(longest[1:]):
            raise _several(path, *next((w, f) for w, f in table.rows if len(f) > 2))
        raise table.unlike(path, where, fields)


def _several(path: str, where: str, fields: Sequence[str]) -> UserError:
    return UserError(
        f"{path} {where}: {fields[0]} has several labels or numbers ({', '.join(fields[1:])}), but "
        f"a video has one label; write `path label` lines, or a header that names the columns, "
        f"such as `path,num_frames,label`"
    )


def _check_single(path: str, rows: list[Entry]) -> None:
    for row in rows:
        if _SEVERAL_NUMBERS.fullmatch(row.label):
            raise _several(path, row.where, (row.path, row.label))


def _entries_by_content(path: str, table: Table, files: video_files.Files) -> list[Entry]:
    """Returns the entries of a table without a header; see the module."""
    rows = [fields for _, fields in table.rows]
    video = _video_column(rows, files)
    columns = [_column(rows, i) for i in range(len(rows[0])) if i != video]
    numbers = [column for column in columns if _are_numbers(column)]
    names = [column for column in columns if not _are_numbers(column) and any(column)]
    paths = _column(rows, video)
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
    result = [
        Entry(where, *fields)
        for (where, _), *fields in zip(table.rows, paths, label, name, strict=True)
    ]
    _check_single(path, result)
    return result


def _is_between(
    paths: list[str], first: list[str], second: list[str], files: video_files.Files
) -> bool:
    """Returns whether the first of two numbers is a start frame or frame count, not a label."""
    if not any(map(video_files.is_video, paths)):
        sample = [] if files.remote else video_files.spread(paths, _LOOKED_AT)
        if not any(video_files.is_video(files.find(name) or "") for name in sample):
            return True
    starts = {whole(text) or 0 for text in first}
    return starts == {0} or min(starts) >= _FEWEST_FRAMES or {*map(whole, second)} == {-1}


def _counts_frames(
    paths: list[str], first: list[str], last: list[str], files: video_files.Files
) -> bool:
    """Returns whether the last number counts frames of folders, so that there are no labels."""
    if files.remote or any(map(video_files.is_video, paths)):
        return False
    sample = video_files.spread(list(zip(paths, first, last, strict=True)), 5)[:5]
    for name, start, end in sample:
        count = video_files.count_frames(os.path.join(files.base, files.find(name) or name))
        if not count or whole(start) == count or whole(end) != count:
            return False
    return True
