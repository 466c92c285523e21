"""EPIC-Kitchens: EPIC_100_train.csv, EPIC_100_validation.csv, EPIC_100_test_timestamps.csv.

One video for each row, cut out of the long videos beforehand and named by its narration_id, flat or
in participants' folders. Labels are a noun and a verb; the test list has none.
"""

import csv
import functools
import glob
import os

from vidjax.data.datasets import GROUPED
from vidjax.data.lists.files import ANY, spread
from vidjax.data.lists.labels import group_columns, group_label
from vidjax.data.lists.lines import bad_line, read_lines
from vidjax.data.lists.names import default_name, in_folders
from vidjax.data.lists.source import Listing, Row, Source
from vidjax.errors import UserError


def recognises(source: Source) -> bool:
    return "narration_id" in source.columns


def read(source: Source) -> Listing:
    files, groups, rows = source.files, group_columns(source.columns), []
    for where, _, fields in source.records():
        label = group_label(source.path, where, fields, groups) if groups else -1
        clip = f"{fields['narration_id']}{ANY}"
        others = functools.partial(in_folders, clip, fields.get("participant_id", ""))
        rows.append(Row(where, clip, label, others=others))
    probe = spread(rows, 3 if files.remote else 50)
    if rows and not any(files.find(name) for row in probe for name in (row.path, *row.others())):
        clip = default_name(rows[0].path)
        raise UserError(
            f"{source.path}: {files.base or '.'} holds no clips such as {clip}; cut one for each "
            f"row out of the long videos, name it by narration_id, and set root"
        )
    return Listing(rows, _classes(source.folder))


def _classes(folder: str) -> tuple[str, ...] | None:
    """Returns the nouns and the verbs of EPIC_100_{noun,verb}_classes.csv, if both are there."""
    names = []
    for group, size in GROUPED["epic_kitchens"]:
        pattern = os.path.join(glob.escape(folder), f"EPIC_100_{group}_classes*.csv")
        files = sorted(glob.glob(pattern))
        if not files:
            return None
        file, numbered = files[-1], []  # the later of two versions
        for number, line in read_lines(file)[1:]:
            index, name, *_ = *next(csv.reader([line])), ""
            if index != str(len(numbered)):
                expected = f"class {len(numbered)}, as `id,key,instances,category`"
                raise bad_line(file, f"line {number}", line, expected)
            numbered.append(name)
        if len(numbered) != size:
            raise UserError(f"{file} names {len(numbered)} of the {size} {group} classes")
        names += numbered
    return tuple(names)
