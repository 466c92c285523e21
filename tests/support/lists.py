"""Small lists, and what tests compare of them."""

import os

import pytest

from vidjax.data.lists import read_list
from vidjax.errors import UserError


def write(folder, text: str | bytes, name: str = "list.csv"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(videos) -> list[tuple[str, int]]:
    return [(video.path.rpartition("/")[2], video.label) for video in videos]


def captions(videos) -> list[tuple[str, tuple[str, ...]]]:
    return [(video.path.rpartition("/")[2], video.captions) for video in videos]


def read(path, root: str = "", **arguments) -> tuple:
    """[(path below the folder, label)], classes, and notices without the list's name."""
    folder = path.parent
    videos = read_list(path, folder / root if root else "", **arguments)
    pairs = [(os.path.relpath(video.path, folder), video.label) for video in videos]
    return pairs, videos.classes, [n.removeprefix(f"{path}: ") for n in videos.notices]


def refused(path, root: str = "", **arguments) -> str:
    with pytest.raises(UserError) as caught:
        read_list(path, path.parent / root if root else "", **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


ABC = ("a.mp4", "b.mp4", "c.mp4")
IDS = ("abc.mp4", "-3B32lodo2M.mkv", "12345678901.webm")
FRAMES = tuple(f"{video}/img_{i:05d}.jpg" for video in ("v1", "v2") for i in (1, 2, 3))
EPIC = {"dataset": "epic_kitchens"}
EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
EPIC_ROWS = (
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,"
    "open,3,door,8,['door'],[8]\n"
    'P02_10_7,P02,P02_10,00:00:02.6,00:00:04.37,00:00:06.17,262,370,"take, then put",'
    'take,0,"plate:small",2,"[\'plate:small\', \'pan\']","[2, 5]"\n'
)


def msrvtt(*splits: str) -> dict:
    """videos i of the splits with sentences in another order."""
    return {
        "info": {"version": "1.0"},
        "videos": [
            {"video_id": f"video{i}", "category": 9, "url": "", "split": split, "id": i}
            for i, split in enumerate(splits)
        ],
        "sentences": [
            {"caption": text.format(i), "video_id": f"video{i}", "sen_id": k}
            for k, (i, text) in enumerate(
                (i, text) for text in ("first of {}", "both", "both") for i in range(len(splits))
            )
        ],
    }
