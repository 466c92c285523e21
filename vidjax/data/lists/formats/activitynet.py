"""ActivityNet Captions: {"v_...": {"duration", "timestamps", "sentences"}}.

The sentences of a video make one paragraph, as paragraph retrieval wants it. Files are called
v_{id} or {id}.
"""

import functools

from vidjax.data.lists.files import ANY
from vidjax.data.lists.names import in_folders
from vidjax.data.lists.source import Listing, Row, Source, clean_captions

JSON = 'ActivityNet Captions {"v_…": {"sentences": […]}, …}'


def recognises(source: Source) -> bool:
    return isinstance(source.content, dict) and "sentences" not in source.content


def read(source: Source) -> Listing:
    rows = []
    for video, entry in source.content.items():
        paragraph = " ".join(clean_captions(entry["sentences"]))
        others = functools.partial(in_folders, video.removeprefix("v_") + ANY, "")
        captions = clean_captions([paragraph])
        rows.append(Row(video, video + ANY, captions=captions, others=others))
    return Listing(rows)
