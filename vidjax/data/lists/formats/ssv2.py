"""Something-Something V2: [{"id": ..., "template": ...}] with labels.json beside it.

Videos are {id}.webm, classes are templates. The test file has ids only.
"""

import re

from vidjax.data.lists.lines import whole
from vidjax.data.lists.source import Listing, Row, Source, read_json
from vidjax.errors import UserError

JSON = 'SSv2 [{"id": "1", …}, …]'


def recognises(source: Source) -> bool:
    return source.objects is not None and all(
        "id" in entry and ("template" in entry or len(entry) == 1) for entry in source.objects
    )


def read(source: Source) -> Listing:
    classes, entries = None, source.content
    if any("template" in entry for entry in entries):
        file = source.beside("labels.json", "something-something-v2-labels.json")
        if file is None:
            raise UserError(
                f"{source.path} needs SSv2's labels.json (template to number) beside it"
            )
        numbers = read_json(file)
        classes = tuple(sorted(numbers, key=lambda template: int(numbers[template])))
    rows = []
    for number, entry in enumerate(entries, 1):
        label = re.sub(r"[\[\]]", "", entry["template"]) if "template" in entry else -1
        rows.append(Row(f"entry {number}", f"{_id(entry['id'])}.webm", label))
    return Listing(rows, classes)


def _id(value: object) -> str:
    """Returns an id of json as text; it may have become a number."""
    return str(value if whole(value) is None or isinstance(value, str) else whole(value))
