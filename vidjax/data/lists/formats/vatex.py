"""VATEX: [{"videoID": "{id}_{start:06d}_{end:06d}", "enCap": [...]}]; English captions are read.

The private test set has none.
"""

from vidjax.data.lists.files import ANY
from vidjax.data.lists.source import Listing, Row, Source, clean_captions

JSON = 'VATEX [{"videoID": …, "enCap": […]}, …]'


def recognises(source: Source) -> bool:
    return source.objects is not None and all("videoID" in entry for entry in source.objects)


def read(source: Source) -> Listing:
    rows = []
    for entry in source.content:
        video, captions = entry["videoID"], clean_captions(entry.get("enCap", []))
        rows.append(Row(video, video + ANY, captions=captions))
    return Listing(rows)
