"""HMDB51: a folder of {class}_test_split1.txt files, or a glob such as s/*_split2.txt.

Lines are `video.avi 1`: 1 is train, 2 test, 0 unused.
"""

import glob
import os
import re

from vidjax.data.lists.lines import bad_line, read_lines
from vidjax.data.lists.source import Listing, Row, Source
from vidjax.errors import UserError

_FILE = re.compile(r"(?P<class>.+)_test_split\d\.txt")


def is_folder(path: str) -> bool:
    """Returns whether a list is a folder of these files."""
    pattern = os.path.join(glob.escape(path), "*_test_split1.txt")
    return os.path.isdir(path) and bool(glob.glob(pattern))


def recognises(source: Source) -> bool:
    is_one = source.is_text and _FILE.fullmatch(source.name) is not None
    return is_one or source.is_glob or is_folder(source.path)


def read(source: Source) -> Listing:
    path, notices = source.path, []
    if source.is_text:
        raise UserError(f"{path} is one class of HMDB51; give its folder, or a glob of one split")
    if source.is_folder:
        notices.append(f"{path}: split 1 of HMDB51 is read; {path}/*_test_split2.txt is another")
        path = os.path.join(glob.escape(path), "*_test_split1.txt")
    files = sorted(glob.glob(path))
    wrong = [f for f in files if not _FILE.fullmatch(os.path.basename(f))]
    if not files or wrong:
        got = f"matches {wrong[0]}" if wrong else "matches no file"
        raise UserError(
            f"{path} {got}; expected HMDB51 split files, {{class}}_test_split1.txt, or a list file"
        )
    numbers = {file[-5] for file in files}
    if len(numbers) > 1:
        raise UserError(f"{path} mixes splits {', '.join(sorted(numbers))}; choose one, *_split1*")
    wanted = {"train": "1", "test": "2"}[source.split]
    rows, classes = [], []
    for file in files:
        name = _FILE.fullmatch(os.path.basename(file))["class"]
        label = name.replace("_", " ")  # the words that models of texts are asked for
        classes.append(label)
        for number, line in read_lines(file):
            video, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise bad_line(file, f"line {number}", line, "`video.avi 0|1|2`")
            if use == wanted:
                where = f"({os.path.basename(file)} line {number})"
                rows.append(Row(where, os.path.join(name, video.strip()), label))
    return Listing(rows, tuple(classes), notices)
