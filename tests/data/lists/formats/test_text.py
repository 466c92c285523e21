"""Lines of text: labels and captions."""

import pytest

from tests.support.lists import captions, pairs, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 0\nb.mp4 3\n", [("a.mp4", 0), ("b.mp4", 3)]),
        ("a.mp4,0\nb.mp4,3\n", [("a.mp4", 0), ("b.mp4", 3)]),
        ("a.mp4\t0\r\nb.mp4\t3\r\n", [("a.mp4", 0), ("b.mp4", 3)]),
        ("path,label\na.mp4,0\n\nb.mp4,3\n", [("a.mp4", 0), ("b.mp4", 3)]),
        ("label,path\n0,a.mp4\n3,b.mp4\n", [("a.mp4", 0), ("b.mp4", 3)]),
        ("path label\na.mp4 0\n", [("a.mp4", 0)]),
        ("path\nc d.mp4\n", [("c d.mp4", -1)]),
        ("file,fps,sha\na.mp4,30,f0\n", [("a.mp4", -1)]),
        ("\ufeffa.mp4 1", [("a.mp4", 1)]),
        ("c d.mp4 2\na.mp4 0\n", [("c d.mp4", 2), ("a.mp4", 0)]),
        ('"c d.mp4" 2\n', [("c d.mp4", 2)]),
        ('c d.mp4,2\n"e,f.mp4",1\n', [("c d.mp4", 2), ("e,f.mp4", 1)]),
        ("a.mp4\nc d.mp4\n", [("a.mp4", -1), ("c d.mp4", -1)]),
        ("a.mp4 0 -1\nc d.mp4 0 -1\n", [("a.mp4", -1), ("c d.mp4", -1)]),
        ("a.mp4 300 5\n", [("a.mp4", 5)]),
        ("a.mp4,300,5\n", [("a.mp4", 5)]),
    ],
)
def test_text_lists(folder, text, expected):
    assert pairs(read_list(write(folder, text))) == expected


def test_captions_beside_labels(folder):
    text = "path,label,caption\na.mp4,run,he runs\nb.mp4,jump,x\na.mp4,run,he is running\n"
    videos = read_list(write(folder, text), need_labels=True, need_captions=True)
    assert captions(videos) == [("a.mp4", ("he runs", "he is running")), ("b.mp4", ("x",))]
    assert pairs(videos) == [("a.mp4", 1), ("b.mp4", 0)]
    with pytest.raises(UserError, match=r"line 4: a\.mp4 has label 0 but 1 in line 2"):
        read_list(write(folder, text.replace("run,he is", "jump,he is")))
    line = '{"path": "a.mp4", "label": 3, "captions": ["x"]}'
    assert pairs(read_list(write(folder, line, "l.jsonl"))) == [("a.mp4", 3)]


def test_the_same_caption_twice_is_a_duplicate(folder):
    videos = read_list(write(folder, "path,caption\na.mp4,one\na.mp4,two\na.mp4,one\n"))
    assert captions(videos) == [("a.mp4", ("one", "two"))]
    assert "paths listed twice: 1, such as a.mp4" in videos.notices[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", 'path,caption\na.mp4,"one, two"\nb.mp4,four\na.mp4,three\n'),
        ("l.csv", 'caption, path\r\n"one, two", a.mp4\nfour,b.mp4\nthree,a.mp4\n'),
        ("l.tsv", "video\tcaption\na.mp4\tone, two\nb.mp4\tfour\na.mp4\tthree\n"),
        ("l.jsonl", '{"path": "a.mp4", "captions": ["one, two", " three "]}\n'
         '{"path": "b.mp4", "captions": ["four", ""], "fps": 30}\n'),
        ("l.jsonl", '{"path": "a.mp4", "captions": ["one, two"]}\n{"path": "b.mp4", "captions": '
         '["four"]}\n{"path": "a.mp4", "captions": ["three"]}\n'),
    ],
)  # fmt: skip
def test_lists_with_captions(folder, name, text):
    videos = read_list(write(folder, text, name), need_captions=True)
    assert captions(videos) == [("a.mp4", ("one, two", "three")), ("b.mp4", ("four",))]
    assert videos.notices == () and [video.label for video in videos] == [-1, -1]


@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("l.csv", "path,caption\na.mp4,one, two\n", {}, 'line 2: expected .*with "quotes"'),
        ("l.csv", "path,caption\na.mp4,one\nb.mp4,\n", {"need_captions": True},
         "line 3: b.mp4 has no caption; write `path,caption` lines"),
        ("l.csv", "a.mp4 0\n", {"need_captions": True}, "line 1: a.mp4 has no caption"),
        ("l.csv", "path,caption\na.mp4,one\n", {"need_labels": True}, "a.mp4 has no label"),
        ("l.jsonl", '{"path": "a.mp4", "captions": "one"}', {}, "line 1: expected a JSON object"),
        ("l.jsonl", '{"captions": ["one"]}', {}, "line 1: expected a JSON object"),
        ("l.jsonl", "[1]", {}, "line 1: expected a JSON object"),
        ("l.csv", "id,caption\n1,one\n", {}, "or a header `path,caption`"),
    ],
)  # fmt: skip
def test_mistakes_in_captions_are_named(folder, name, text, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        read_list(write(folder, text, name), **arguments)
    assert "\n" not in str(caught.value)
