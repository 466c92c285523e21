"""MSR-VTT's csv and json."""

import json

import pytest

from tests.support.lists import captions, msrvtt, touch, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError

JSFUSION = (
    "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person is connecting something\n"
    'ret1,msr9771,video9771,"a little girl, singing"\n'
)


def test_msrvtt_csv(tmp_path):
    touch(tmp_path, "v/video9770.mp4", "v/video9771.WEBM", "v/video9771.json")
    videos = read_list(write(tmp_path, JSFUSION), tmp_path / "v", "msrvtt", need_captions=True)
    assert captions(videos) == [
        ("video9770.mp4", ("a person is connecting something",)),
        ("video9771.WEBM", ("a little girl, singing",)),
    ]
    with pytest.raises(UserError, match="line 3: expected `key,vid_key,"):
        read_list(write(tmp_path, JSFUSION.replace('"', "")), tmp_path / "v")
    with pytest.raises(UserError, match=r"2 of 2 videos .*video9770\.mp4.*; set root"):
        read_list(write(tmp_path, JSFUSION))


def test_msrvtt_train_list_finds_its_captions(tmp_path):
    touch(tmp_path, "v/video0.mp4", "v/video2.mp4")
    path = write(tmp_path, "video_id\nvideo2\nvideo0\n", "MSRVTT_train.9k.csv")
    with pytest.raises(UserError, match=r"put MSRVTT_data\.json beside it"):
        read_list(path, tmp_path / "v")
    write(tmp_path, json.dumps(msrvtt("train", "train", "validate")), "MSRVTT_data.json")
    videos = read_list(path, tmp_path / "v", "msrvtt", need_captions=True)
    assert captions(videos) == [
        ("video2.mp4", ("first of 2", "both", "both")),
        ("video0.mp4", ("first of 0", "both", "both")),
    ]


@pytest.mark.parametrize(
    ("splits", "asked", "expected"),
    [
        (("test", "test"), "test", [0, 1]),
        (("test", "test"), "train", [0, 1]),  # test_videodatainfo.json: there is nothing else
        (("train", "validate", "train"), "train", [0, 2]),
        (("train", "validate", "train"), "test", [1]),
        (("train", "validate", "test"), "test", [2]),
    ],
)
def test_msrvtt_json(tmp_path, splits, asked, expected):
    touch(tmp_path, "video0.mp4", "video1.mp4", "video2.mkv")
    path = write(tmp_path, json.dumps(msrvtt(*splits)), "videodatainfo.json")
    videos = read_list(path, dataset="msrvtt", split=asked, need_captions=True)
    # All 20 captions of a video are queries of the full test set, repeated ones, too.
    texts = [(f"first of {i}", "both", "both") for i in expected]
    assert [video.captions for video in videos] == texts
    names = ("video0.mp4", "video1.mp4", "video2.mkv")
    assert [name for name, _ in captions(videos)] == [names[i] for i in expected]
    assert len(videos.notices) == (len(set(splits)) > 1)
