"""Manifests and other lines of JSON."""

import json

import pytest

from tests.support.lists import EPIC, pairs, write
from vidjax.data.datasets import Video
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_manifest(folder):
    lines = [
        {"manifest": 1, "classes": ["x", "y"]},
        {"path": "a.mp4", "label": 1, "frames": 30, "verdict": "trim:30", "reason": ""},
        {"path": "b.mp4", "label": 0, "frames": None, "verdict": "reject", "reason": "empty"},
    ]
    path = write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    videos = read_list(path)
    assert videos.videos == (Video(str(folder / "a.mp4"), 1, 30, "trim:30"),)
    assert videos.classes == ("x", "y")
    assert "1 of 2 videos are left out" in videos.notices[0]
    write(folder, '{"path": "a.mp4"}', "list.manifest.jsonl")
    with pytest.raises(UserError, match=r"line 1: expected a JSON object"):
        read_list(path)


def test_manifest_with_several_labels(folder):
    lines = [
        {"manifest": 1, "classes": None},
        {"path": "a.mp4", "label": [1, 2], "frames": 30, "verdict": "ok", "reason": ""},
        {"path": "b.mp4", "label": -1, "frames": 3, "verdict": "ok", "reason": ""},
    ]
    path = write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    videos = read_list(path, **EPIC)
    assert pairs(videos) == [("a.mp4", (1, 2)), ("b.mp4", -1)]
    with pytest.raises(UserError, match="2 labels, but data of k400 has one"):
        read_list(path, dataset="k400")
    lines[2]["label"] = [1, 2, 3]
    write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    with pytest.raises(UserError, match=r"line 3: b.mp4 has the label \(1, 2, 3\)"):
        read_list(path, **EPIC)


def test_manifest_with_captions(folder):
    lines = [
        {"manifest": 1, "classes": None},
        {"path": "a.mp4", "label": 1, "frames": 30, "verdict": "ok", "captions": ["x", "x", "y"]},
        {"path": "b.mp4", "label": 0, "frames": 9, "verdict": "trim:9", "captions": ["z"]},
    ]
    path = write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    videos = read_list(path, need_captions=True)
    assert videos[0] == Video(str(folder / "a.mp4"), 1, 30, "ok", ("x", "x", "y"))
    assert videos[1] == Video(str(folder / "b.mp4"), 0, 9, "trim:9", ("z",))
