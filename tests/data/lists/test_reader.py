"""Reading a list: its format, what is missing, what is noticed, what is refused."""

import pytest

from tests.support.lists import touch, write
from vidjax.data.datasets import DATASETS
from vidjax.data.lists import read_list, reader
from vidjax.errors import UserError


def test_missing_lists(tmp_path):
    with pytest.raises(UserError, match=r"list file .*nowhere\.csv does not exist"):
        read_list(tmp_path / "nowhere.csv")
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4 is a video; give a list file"):
        read_list(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="is not JSON"):
        read_list(write(tmp_path, "{", "train.json"))


def test_lines_that_are_not_utf8_are_named(folder):
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        read_list(write(folder, b"a.mp4 0\ncaf\xe9.mp4 1\n"))


def test_repeated_paths_are_reported(folder):
    videos = read_list(write(folder, "a.mp4 0\nb.mp4 0\na.mp4 0\n"))
    assert len(videos) == 3
    assert "paths listed twice: 1, such as a.mp4" in videos.notices[0]


def test_a_wrong_root_is_an_error_and_single_missing_files_are_not(folder):
    assert len(read_list(write(folder, "a.mp4 0\nb.mp4 0\nmissing.mp4 1\n"))) == 3
    path = write(folder, "a.mp4 0\nx.mp4 0\ny.mp4 1\nz.mp4 0\n")
    with pytest.raises(UserError, match=r"3 of 4 videos looked up .*x\.mp4.*y\.mp4.* set root"):
        read_list(path)


def test_of_a_large_list_a_sample_is_looked_up(folder, monkeypatch):
    looked_up = []
    monkeypatch.setattr("os.path.exists", lambda path: not looked_up.append(path))
    path = write(folder, "".join(f"{i}.mp4 0\n" for i in range(50_000)))
    assert len(read_list(path)) == 50_000
    assert len(looked_up) <= 2_000


def test_facts():
    assert {name: d.num_classes for name, d in DATASETS.items()} == dict(
        **dict(k400=400, k600=600, k700=700, k710=710, ssv2=174, ucf101=101, hmdb51=51, demo=8),
        epic_kitchens=397,
        demo_pairs=6,
        **dict(msrvtt=0, vatex=0, activitynet=0, demo_captions=8, demo_unseen=0),
    )
    oriented = [name for name, facts in DATASETS.items() if not facts.flip]
    assert oriented == ["ssv2", "demo", "demo_pairs", "demo_captions", "demo_unseen"]
    grouped = {name: d.groups for name, d in DATASETS.items() if d.groups}
    assert grouped == {
        "epic_kitchens": (("noun", 300), ("verb", 97)),
        "demo_pairs": (("motion", 4), ("direction", 2)),
    }


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", {}, "lists no videos"),
        ("a.mp4 0\nb.mp4\n", {}, r"list\.csv line 2: expected `path label`, got 'b.mp4'"),
        ("a.mp4,0\nb.mp4 1\n", {}, r"line 2: expected `path,label`"),
        ("a.mp4,0\na.mp4,x,1\n", {}, r"line 2: expected `path,label`"),
        ("hello\nworld\n", {}, "cannot tell the format of .* 'hello'"),
        ("a.mp4 0\nb.mp4 400\n", {"dataset": "k400"}, "line 2: label 400 .* 400 classes.*from 0"),
        ("a.mp4 7\n", {"num_classes": 5}, "line 1: label 7 is out of range for 5 classes"),
        ("a.mp4 0\nb.mp4 -2\n", {}, "line 2: label -2 is negative"),
        ("a.mp4 0\nb.mp4 cat\n", {}, "line 2: label 'cat' is no number"),
        ("a.mp4\n", {"need_labels": True}, "line 1: a.mp4 has no label"),
        ("a.mp4 0 -1\n", {"need_labels": True}, "line 1: a.mp4 has no label"),
        ("a.mp4 0\na.mp4 1\n", {}, "line 2: a.mp4 has label 1 but 0 in line 1"),
        ("a.mp4 x\nb.mp4 y\n", {"dataset": "k400"}, "2 class names but .* is 400; put all names"),
        ("a.mp4 0\n", {"dataset": "k40"}, "unknown dataset 'k40'; did you mean 'k400'"),
        ("a.mp4 0\n", {"classes": "nowhere.txt"}, "classes file nowhere.txt does not exist"),
        ("a.mp4 0\n", {"root": "nowhere"}, "root nowhere of .* is not a folder"),
    ],
)
def test_mistakes_are_named_with_their_line(folder, text, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        read_list(write(folder, text), **arguments)
    assert "\n" not in str(caught.value)


def test_formats_are_tried_in_a_stated_order():
    modules = reader.formats_in_order()
    names = [module.__name__.rpartition(".")[2] for module in modules]
    assert tuple(names[-len(reader.GENERAL) :]) == reader.GENERAL
    assert names[: -len(reader.GENERAL)] == sorted(names[: -len(reader.GENERAL)])
    assert all(callable(module.recognises) and callable(module.read) for module in modules)
