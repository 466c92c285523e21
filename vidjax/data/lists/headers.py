"""Names of columns: which word in a header means the path, the label or something else."""

import functools
import re
from collections.abc import Collection, Sequence

from vidjax.data.lists.lines import are_numbers, column, column_names
from vidjax.data.reading.video_files import is_video

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
INDEX_COLUMNS = ("", "unnamed:_0", "index")
SEVERAL_LABELS = re.compile(r"(label|class|target|tag|action|category)_?\d+")
SEPARATORS = "\t;, "


def header_separator(line: str, columns: Collection[str]) -> str:
    """Returns the separator of a line of known column names; "" for other lines."""
    known = {*PATH_COLUMNS, *_WEAK_PATH_COLUMNS, *LABEL_COLUMNS, *columns}
    for separator in SEPARATORS:
        words = column_names(line, separator)
        if len(words) < 2 or any(w.isdigit() or is_video(w) for w in words):
            continue
        if sum(word in known for word in words) > 1 or (
            words[0] in PATH_COLUMNS and separator != " "
        ):
            return separator
    return ""


def path_column(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Returns which column of a table with a header has the paths."""
    words = [*PATH_COLUMNS, *_WEAK_PATH_COLUMNS]
    named = sorted((words.index(name), i) for i, name in enumerate(header) if name in words)
    places = [i for _, i in named] or range(len(header))
    are_videos = (i for i in places if all(map(is_video, column(rows, i))))
    return next(are_videos, places[0])


def label_columns(
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
    numbers = [i for i in places if are_numbers(column(rows, i))]
    names = [i for i in places if i not in numbers and any(column(rows, i))]
    if not numbers:
        return (names or places or [None])[0], None
    return numbers[0], names[0] if names else None
