"""Lines of JSON: manifests of `vidjax.data.check`, and videos with captions or labels.

A manifest's first line is about the list. Each other line is one of

    {"path": ..., "label": ..., "frames": ..., "verdict": ...}
    {"path": ..., "captions": [...]}, perhaps with a label
    {"path": ..., "label": ...}
"""

import json
import re
from typing import Annotated

from vidjax import checksums, json_files
from vidjax.data.lists.formats import json_objects
from vidjax.data.lists.lines import bad_line, labels, read_lines
from vidjax.data.lists.source import Listing, Row, Source, clean_captions
from vidjax.data.reading import locators
from vidjax.errors import UserError

_EXPECTED = (
    "a JSON object with path and captions, with path and label, or with path, label, frames and "
    "verdict (written by data.check)"
)
_VERDICT = re.compile(r"ok|sequential|trim:[1-9]\d*|reject")
_Verdict = Annotated[
    str, json_files.Must("that is ok, sequential, trim:N or reject", _VERDICT.fullmatch)
]
LINE_TYPES = {
    "classes": tuple[str, ...] | None,
    "videos": json_files.Count,
    "path": str,
    "frames": json_files.Count | None,
    "verdict": _Verdict | None,
}


def is_manifest(path: str) -> bool:
    """Returns whether a list was written by vidjax.data.check."""
    if not path.endswith(".jsonl") or not locators.is_file(path):
        return False
    lines = read_lines(path)
    return bool(lines) and lines[0][1].startswith('{"manifest"')


def recognises(source: Source) -> bool:
    return source.name.endswith(".jsonl")


def read(source: Source) -> Listing:
    path, rows, classes, plain, expected = source.path, [], None, [], 0
    for number, line in source.lines:
        where = f"line {number}"
        try:
            entry = json.loads(line)
            if not checksums.is_intact(entry):
                raise UserError(
                    f"{path} {where} is damaged or was edited, as its checksum is that of another "
                    f"line; write the manifest again, or delete `line_crc32` from the line"
                )
            json_files.check(entry, LINE_TYPES, f"{path} {where}")
            if "manifest" in entry:
                classes = entry["classes"] and tuple(entry["classes"])
                expected += entry.get("videos", 0)
            elif entry.keys().isdisjoint(("captions", "verdict")):
                plain.append((where, entry))
            else:
                rows.append(_row(where, entry))
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise bad_line(path, where, line, _EXPECTED) from None
    notices = []
    count = len(rows) + len(plain)
    if expected and count != expected:
        notices.append(f"{path} lists {count} videos, but was written with {expected}")
    if not plain:
        return Listing(rows, classes, notices)
    try:
        objects = json_objects.read_objects(source, plain)
    except KeyError:
        raise bad_line(path, *plain[0], _EXPECTED) from None
    return Listing(rows + objects.rows, classes, [*notices, *objects.notices])


def _row(where: str, entry: dict) -> Row:
    captions = clean_captions(entry.get("captions", []))
    if "captions" in entry:
        entry = {"label": -1, "frames": None, "verdict": None} | entry
    label = entry["label"]
    if isinstance(label, list):
        label = tuple(map(int, label))
    elif not isinstance(label, str):
        label = labels([label])[0]
    return Row(where, entry["path"], label, entry["frames"], entry["verdict"], captions)
