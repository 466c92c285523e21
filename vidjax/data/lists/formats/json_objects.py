"""Your own .json: [{"path": ..., "label": ...}], with any names that columns of text may have."""

from vidjax.data.lists.columns import labelled
from vidjax.data.lists.headers import LABEL_COLUMNS, PATH_COLUMNS, path_column
from vidjax.data.lists.lines import bad_line
from vidjax.data.lists.source import Listing, Source
from vidjax.data.lists.table import Table

JSON = 'your own [{"path": …, "label": …}, …]'


def recognises(source: Source) -> bool:
    return source.is_json


def read(source: Source) -> Listing:
    entries = [(f"entry {number}", entry) for number, entry in enumerate(source.objects, 1)]
    return read_objects(source, entries)


def read_objects(source: Source, entries: list[tuple[str, dict]]) -> Listing:
    """Reads objects with a path and a label.

    Raises:
        KeyError: the first has no path or no label.
        UserError: another has no path.
    """
    keys = list(entries[0][1])
    header = [key.lower() for key in keys]
    if {*PATH_COLUMNS, "vid", "id"}.isdisjoint(header):
        raise KeyError("path")
    if set(LABEL_COLUMNS).isdisjoint(header):
        raise KeyError("label")
    rows = []
    for where, entry in entries:
        values = [entry.get(key) for key in keys]
        fields = ["" if value is None else str(value).strip() for value in values]
        if not fields[path_column(header, [fields])]:
            raise bad_line(source.path, where, entry, f"an object with {', '.join(keys)}")
        rows.append((where, fields))
    return labelled(source, Table(header, rows))
