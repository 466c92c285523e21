"""VATEX's json."""

import json

import pytest

from tests.support.lists import captions, touch, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_vatex_json(tmp_path):
    touch(tmp_path, "v/--07WQ2iBlw_000001_000011.mp4", "v/G9zN5TTuGO4_000179_000189.mkv")
    entries = [
        {"videoID": "G9zN5TTuGO4_000179_000189", "enCap": ["a man", "he"], "chCap": ["一个人"]},
        {"videoID": "--07WQ2iBlw_000001_000011", "enCap": ["a rock"]},
    ]
    path = write(tmp_path, json.dumps(entries), "vatex_validation_v1.0.json")
    videos = read_list(path, tmp_path / "v", "vatex", need_captions=True)
    assert captions(videos) == [
        ("G9zN5TTuGO4_000179_000189.mkv", ("a man", "he")),
        ("--07WQ2iBlw_000001_000011.mp4", ("a rock",)),
    ]
    del entries[1]["enCap"]  # as in the private test set
    path = write(tmp_path, json.dumps(entries), "vatex_private_test_without_annotations.json")
    assert read_list(path, tmp_path / "v")[1].captions == ()
    with pytest.raises(UserError, match=r"_000011: --07WQ\S*\.mp4 has no caption"):
        read_list(path, tmp_path / "v", need_captions=True)
