"""MSR-VTT, with the captions of each video.

The json has videos and sentences ({train_val,test}_videodatainfo.json, MSRVTT_data.json); of a file
with several splits one is read. A csv has a line for each caption, key,vid_key,video_id,sentence
(MSRVTT_JSFUSION_test.csv, the test set 1K-A), or video_id alone (MSRVTT_train.9k.csv), with
MSRVTT_data.json beside it.
"""

import collections
from typing import Any

from vidjax.data.lists.files import ANY
from vidjax.data.lists.source import Listing, Row, Source, clean_captions, read_json
from vidjax.data.reading import locators
from vidjax.errors import UserError

JSON = 'MSR-VTT {"videos": […], "sentences": […]}'


def recognises(source: Source) -> bool:
    if source.is_json:
        return isinstance(source.content, dict) and "sentences" in source.content
    if source.columns == ["video_id"]:
        return True
    # A column `caption` makes it a list of your own.
    return {"video_id", "sentence"} <= {*source.columns} and "caption" not in source.columns


def read(source: Source) -> Listing:
    return _read_json(source) if source.is_json else _read_csv(source)


def holds_splits(path: str) -> bool:
    """Returns whether a list is a json of MSR-VTT with several splits, of which one is read."""
    is_json = path.endswith(".json") and locators.is_file(path)
    return is_json and len(_splits(read_json(path))) > 1


def _read_csv(source: Source) -> Listing:
    captions = None
    if "sentence" not in source.columns:
        beside = source.beside("MSRVTT_data.json")
        if beside is None:
            raise UserError(
                f"{source.path} lists videos of MSR-VTT; put MSRVTT_data.json beside it"
            )
        captions = _captions(read_json(beside))
    rows = []
    for where, _, fields in source.records():
        video = fields["video_id"]
        if captions is None:
            texts = clean_captions([fields["sentence"]])
        else:
            texts = captions.get(video, ())
        rows.append(Row(where, video + ANY, captions=texts))
    return Listing(rows)


def _read_json(source: Source) -> Listing:
    """Reads MSR-VTT's own format; a file of one split is read whole, whatever split is wanted."""
    path, content, notices = source.path, source.content, []
    splits, captions = _splits(content), _captions(content)
    if len(splits) > 1:
        wanted = ("train",) if source.split == "train" else ("test", "validate")
        chosen = next((name for name in wanted if name in splits), None)
        if chosen is None:
            raise UserError(f"{path} has splits {', '.join(splits)}, but none for {source.split}")
        notices.append(f"{path}: of its splits {', '.join(splits)}, {chosen} is read")
        splits = [chosen]
    ids = [video["video_id"] for video in content["videos"] if video.get("split", "") in splits]
    rows = [Row(video, video + ANY, captions=captions[video]) for video in ids]
    return Listing(rows, notices=notices)


def _splits(content: Any) -> list[str]:
    """Returns the names of the splits in a json of MSR-VTT; [] of any other."""
    if not isinstance(content, dict) or not isinstance(content.get("videos"), list):
        return []
    return sorted({video.get("split", "") for video in content["videos"]})


def _captions(content: dict) -> dict[str, tuple[str, ...]]:
    """Returns all captions by video_id, repeated ones too; () for videos without."""
    captions = collections.defaultdict(list)
    for sentence in content["sentences"]:
        captions[sentence["video_id"]].append(sentence["caption"])
    ids = [video["video_id"] for video in content["videos"]]
    return {video: clean_captions(captions[video]) for video in ids}
