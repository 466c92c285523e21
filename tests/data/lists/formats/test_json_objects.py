"""Your own .json, and json of no format."""

import json

import pytest

from tests.support.lists import ABC, read, refused, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.jsonl", '{"video": "a.mp4", "label": 2.0}\n{"video": "b.mp4", "label": null}\n'),
        ("l.jsonl", '{"file_name": "a", "class": "2"}\n{"file_name": "b", "class": ""}\n'),
        ("l.json", '[{"vid_name": "a", "label": 2, "end_frame": 9}, {"vid_name": "b"}]'),
        ("l.json", '[{"id": "a", "label": 2}, {"id": "b", "label": -1}]'),
    ],
)
def test_json_of_paths_and_labels(made, name, text):
    assert read(made(ABC, name, text)) == ([("a.mp4", 2), ("b.mp4", -1)], None, [])


def test_json_with_mistakes(made):
    assert "line 2: expected an object with path, label" in refused(
        made(ABC, "l.jsonl", '{"path": "a.mp4", "label": 2}\n{"label": 1}\n')
    )
    text = '{"path": "a.mp4", "label": [1, 2]}\n'
    assert "a.mp4 has several labels" in refused(made(ABC, "l.jsonl", text))


@pytest.mark.parametrize(
    "content",
    [
        *({"a": 1}, {"a": {"caption": "x"}}, {"sentences": []}, [1, 2], ["videoID"], "text", "", 3),
        *([{"name": "x"}], [{"videoID": "x", "enCap": "a text"}], {"videos": [], "sentences": [1]}),
    ],
)
def test_other_json_is_refused(tmp_path, content):
    with pytest.raises(UserError, match=r"is none of the json lists: .*MSR-VTT.*SSv2 .*VATEX") as e:
        read_list(write(tmp_path, json.dumps(content), "l.json"))
    assert "\n" not in str(e.value)
