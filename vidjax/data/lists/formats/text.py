"""Lines of text: a path and mostly a label or a caption, by space, comma, semicolon or tab.

Headers and quotes are allowed; see `table` and `columns`.

    path label        no label: -1 or nothing; a class's name may stand beside its number; also
                      VideoMAE's and mmaction2's lists (path 0 -1, dir num_frames label) and Moments
                      in Time's
    path,noun,verb    several labels, numbers, with a header that names their columns as the
                      dataset's groups or {group}_class
    path,caption      with this header, by comma or tab, perhaps with a label column; a path may
                      come again with another caption
"""

from vidjax.data.lists.columns import labelled
from vidjax.data.lists.headers import LABEL_COLUMNS, PATH_COLUMNS, path_column
from vidjax.data.lists.labels import GROUP_COLUMNS, group_columns, group_label
from vidjax.data.lists.lines import bad_line, labels, split_line
from vidjax.data.lists.source import Listing, Row, Source, clean_captions
from vidjax.data.lists.table import Table, read_table


def recognises(source: Source) -> bool:
    return source.is_text


def read(source: Source) -> Listing:
    if "caption" in source.columns and not set(PATH_COLUMNS).isdisjoint(source.columns):
        return _captioned(source)
    table = read_table(source.path, source.lines, source.files, GROUP_COLUMNS)
    groups = group_columns(table.header)
    return _grouped(source, table, groups) if groups else labelled(source, table)


def _grouped(source: Source, table: Table, groups: list[str]) -> Listing:
    video, rows = path_column(table.header, [fields for _, fields in table.rows]), []
    for where, fields in table.rows:
        if len(fields) != len(table.header):
            raise table.unlike(source.path, where, fields)
        by_name = dict(zip(table.header, fields, strict=True))
        label = group_label(source.path, where, by_name, groups)
        rows.append(Row(where, fields[video], label))
    return Listing(rows)


def _captioned(source: Source) -> Listing:
    columns, header = source.columns, source.lines[0][1]
    separator = next(s for s in "\t;," if s in header)
    video = next(column for column in PATH_COLUMNS if column in columns)
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    rows = []
    for number, line in source.lines[1:]:
        where, fields = f"line {number}", split_line(line, separator)
        if len(fields) != len(columns):
            expected = f'`{header}`, with "quotes" round a caption that holds a separator'
            raise bad_line(source.path, where, line, expected.replace("\t", "<tab>"))
        row = dict(zip(columns, fields, strict=True))
        captions = clean_captions([row["caption"]])
        rows.append(Row(where, row[video], row.get(label, ""), captions=captions))
    numbers = labels(row.label for row in rows)
    return Listing([row._replace(label=n) for row, n in zip(rows, numbers, strict=True)])
