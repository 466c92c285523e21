import dataclasses

import pytest

from vidjax.data.datasets import Video, VideoList
from vidjax.data.lists import hold_out
from vidjax.errors import UserError

COUNTS = {0: 10, 1: 4, 2: 1, (3, 1): 2}
VIDEOS = VideoList(
    tuple(Video(f"/data/{c}/{i}.mp4", c) for c, count in COUNTS.items() for i in range(count)),
    notices=("read",),
)


def names(videos):
    return {video.path.removeprefix("/data").removeprefix("/else/where") for video in videos}


def test_each_class_gives_its_share_but_keeps_one():
    train, val = hold_out(VIDEOS, 0.2, 0)
    assert names(train) | names(val) == names(VIDEOS) and not names(train) & names(val)
    held = {c: sum(video.label == c for video in val) for c in COUNTS}
    assert held == {0: 2, 1: 1, 2: 0, (3, 1): 1}
    train, val = hold_out(VIDEOS, 0.99, 0)
    assert {c: sum(video.label == c for video in train) for c in COUNTS} == dict.fromkeys(COUNTS, 1)
    assert train.notices[0] == "read" and not val.notices
    assert train.notices[1].startswith("13 of 17 videos are held out for validation")
    assert train.notices[2].endswith("trained on but not validated: 2")


def test_the_draw_depends_on_seed_and_names_alone():
    _, val = hold_out(VIDEOS, 0.2, 0)
    backwards = dataclasses.replace(VIDEOS, videos=VIDEOS.videos[::-1])
    assert names(hold_out(backwards, 0.2, 0)[1]) == names(val)
    moved = [dataclasses.replace(v, path=f"/else/where{v.path[5:]}") for v in VIDEOS]
    moved = dataclasses.replace(VIDEOS, videos=tuple(moved))
    assert names(hold_out(moved, 0.2, 0)[1]) == names(val)
    assert any(names(hold_out(VIDEOS, 0.2, seed)[1]) != names(val) for seed in range(1, 5))
    # Other classes change nothing in a class.
    of_class_0 = dataclasses.replace(VIDEOS, videos=(*VIDEOS.videos[:10], *VIDEOS.videos[-2:]))
    kept = {name for name in names(val) if name.startswith("/0/")}
    assert {n for n in names(hold_out(of_class_0, 0.2, 0)[1]) if n.startswith("/0/")} == kept


def test_entries_of_one_path_stay_together():
    videos = tuple(Video(f"/data/{i}.mp4", captions=(text,)) for i in range(6) for text in "ab")
    train, val = hold_out(VideoList(videos), 0.5, 0)
    assert len(train) == len(val) == 6 and not names(train) & names(val)


def test_no_class_with_two_videos():
    videos = VideoList((Video("a/x.mp4", 0), Video("b/x.mp4", 1)), ("a", "b"))
    with pytest.raises(UserError, match="no class has two videos"):
        hold_out(videos, 0.2, 0)
