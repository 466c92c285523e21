"""Something-Something V2's json."""

import json

import pytest

from tests.support.lists import pairs, read, touch, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError

SSV2 = json.dumps(
    [{"id": "7", "template": "Holding [something]"}, {"id": 9, "template": "Moving [something]"}]
)


def test_ssv2(tmp_path):
    touch(tmp_path, "v/7.webm", "v/9.webm")
    entries = [
        {"id": "7", "label": "holding potato", "template": "Holding [something]"},
        {"id": "9", "label": "x", "template": "Moving [something] and [something] closer"},
    ]
    path = write(tmp_path, json.dumps(entries), "train.json")
    with pytest.raises(UserError, match=r"needs SSv2's labels\.json"):
        read_list(path, tmp_path / "v")
    labels = {"Moving something and something closer": "0", "Holding something": "1"}
    write(tmp_path, json.dumps(labels), "labels.json")
    videos = read_list(path, tmp_path / "v")
    assert pairs(videos) == [("7.webm", 1), ("9.webm", 0)]
    assert videos.classes == ("Moving something and something closer", "Holding something")
    test_list = write(tmp_path, '[{"id": "9"}]', "test.json")
    assert pairs(read_list(test_list, tmp_path / "v")) == [("9.webm", -1)]


@pytest.mark.parametrize(
    ("names", "notices"),
    [
        (("7.webm", "9.webm"), []),
        (("7.mp4", "9.mp4"), ["files are read as .mp4 instead of .webm"]),
        (("7.mp4", "9.webm"), ["1 of 2 files are read as .mp4 instead of .webm"]),
        (("7", "9"), ["files are read as folders of frames instead of .webm"]),
        (("train/7.mp4", "train/9.mp4"), ["files are read as .mp4 instead of .webm"]),
    ],
)
def test_ssv2_in_other_forms(made, names, notices):
    made((), "labels.json", '{"Holding something": "0", "Moving something": "1"}')
    files = [f"v/{name}" + "/000001.jpg" * ("." not in name) for name in names]
    videos, _, told = read(made(files, "train.json", SSV2), "v")
    assert videos == [(f"v/{name}", label) for label, name in enumerate(names)]
    assert told == notices
