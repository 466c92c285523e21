"""The list of bad videos."""

import json

import pytest

from vidjax.data import BadVideos
from vidjax.errors import UserError


def test_bad_videos_keeps_earlier_lines_but_counts_this_run(tmp_path):
    path = tmp_path / "bad.jsonl"
    first = BadVideos(path, 4, 0.5)
    for video in ("a", "b", "a"):
        first.add(video, "empty file")
    second = BadVideos(path, 4, 0.5)
    assert second.count == 0
    second.add("b", "empty file")
    second.add("c", "no such file")
    assert [json.loads(line)["path"] for line in path.open()] == ["a", "b", "c"]
    with pytest.raises(UserError, match="3 of 4 videos"):
        second.add("d", "no such file")


def test_a_hang_is_listed_although_the_video_was_bad_otherwise(tmp_path):
    path = tmp_path / "bad.jsonl"
    BadVideos(path, 9, 1.0).add("a", "too short: 5 frames of at least 16")
    BadVideos(path, 9, 1.0).add("a", "no answer in 60 s")
    assert BadVideos(path, 9, 1.0).hanging == {"a": "no answer in 60 s"}
    BadVideos(path, 9, 1.0).add("a", "no answer in 60 s")
    assert len(path.read_text().splitlines()) == 2
