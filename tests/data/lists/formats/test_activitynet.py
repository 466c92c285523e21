"""ActivityNet Captions."""

import json

from tests.support.lists import captions, touch, write
from vidjax.data.lists import read_list


def test_activitynet_captions_are_paragraphs(tmp_path):
    touch(tmp_path, "v/v_uqiMw7tQ1Cc.mkv", "v/bXdq2zI1Ms0.mp4")
    entries = {
        "v_uqiMw7tQ1Cc": {
            "duration": 55.15,
            "timestamps": [[0.28, 55.15], [13.79, 54.32]],
            "sentences": [" A weight lifting tutorial is given. ", "The coach\nhelps. "],
        },
        "v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 1]], "sentences": ["A man cooks."]},
    }
    path = write(tmp_path, json.dumps(entries), "val_1.json")
    videos = read_list(path, tmp_path / "v", "activitynet", need_captions=True)
    assert captions(videos) == [
        ("v_uqiMw7tQ1Cc.mkv", ("A weight lifting tutorial is given. The coach helps.",)),
        ("bXdq2zI1Ms0.mp4", ("A man cooks.",)),
    ]
