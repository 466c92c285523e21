"""Kinetics: a csv of label,youtube_id,time_start,time_end,split.

Clips are {id}_{start:06d}_{end:06d}.mp4. They may lie flat, in folders of their classes, of the
split or of both, and be named by the YouTube id alone.
"""

import functools
import os
from collections.abc import Sequence

from vidjax.data.lists.lines import labels
from vidjax.data.lists.names import split_folders, split_names
from vidjax.data.lists.source import Listing, Row, Source


def recognises(source: Source) -> bool:
    return "youtube_id" in source.columns


def read(source: Source) -> Listing:
    entries = []
    for where, line, fields in source.records():
        stem = fields["youtube_id"]
        try:
            if "time_start" in fields:
                start, end = int(float(fields["time_start"])), int(float(fields["time_end"]))
                stem += f"_{start:06d}_{end:06d}"
        except (ValueError, KeyError):
            raise source.unlike_header(where, line) from None
        entries.append((where, stem, fields))
    rows = []
    numbers = labels(fields.get("label") for _, _, fields in entries)
    for (where, stem, fields), label in zip(entries, numbers, strict=True):
        split = fields.get("split")
        splits = split_names(split) if split else split_folders(source.name)
        others = functools.partial(_names, stem, fields, splits)
        rows.append(Row(where, f"{stem}.mp4", label, others=others))
    return Listing(rows)


def _names(stem: str, fields: dict[str, str], splits: Sequence[str]) -> list[str]:
    """Returns names of a clip: in folders of class and split, or by the YouTube id alone."""
    label = fields.get("label") or ""
    classes = ("", label, label.replace(" ", "_"))
    folders = [os.path.join(split, name) for split in ("", *splits) for name in classes]
    stems = dict.fromkeys((stem, fields["youtube_id"]))
    return [os.path.join(folder, f"{name}.mp4") for name in stems for folder in folders]
