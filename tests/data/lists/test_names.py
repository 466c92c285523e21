"""Names that differ from the files on disk."""

import collections

import fsspec
import pytest

from tests.support.lists import ABC, read, refused
from vidjax.data.lists import read_list
from vidjax.data.reading import locators


@pytest.mark.parametrize(
    ("listed", "names", "notices"),
    [
        (("cls\\a.mp4", "cls\\b.mp4"), ("cls/a.mp4", "cls/b.mp4"), []),
        (("./cls/a.mp4", "./b.mp4"), ("cls/a.mp4", "b.mp4"), []),
        (("a.MP4", "b.mp4"), ("a.mp4", "b.MP4"), []),
        (("cls/a", "cls/b.c"), ("cls/a.mkv", "cls/b.c.mp4"), []),
        (("a.avi", "b.avi"), ("a.mp4", "b.avi"), ["1 of 2 files are read as .mp4 instead of .avi"]),
        (
            ("/cls/a.mp4", "/cls/b.mp4"),
            ("cls/a.mp4", "cls/b.mp4"),
            ["paths are read from root, as cls/a.mp4 instead of /cls/a.mp4"],
        ),
        (
            ("/home/x/cls/a.mp4", "/home/x/cls/b.mp4"),
            ("cls/a.mp4", "cls/b.mp4"),
            ["paths are read from root, as cls/a.mp4 instead of /home/x/cls/a.mp4"],
        ),
        (
            ("x/a.mp4", "x/b.mp4"),
            ("a.mp4", "b.mp4"),
            ["paths are read from root, as a.mp4 instead of x/a.mp4"],
        ),
        (
            ("D:\\x\\cls\\a.avi", "D:\\x\\cls\\b.avi"),
            ("cls/a.mp4", "cls/b.mp4"),
            [
                "files are read as .mp4 instead of .avi, and paths are read from root, as "
                "cls/a.mp4 instead of D:\\x\\cls\\a.avi"
            ],
        ),
        (("v1", "v2"), ("v1/img_00001.jpg", "v2/img_00001.png"), []),
        (("cls/a.mp4", "cls/b.mp4"), ("train/cls/a.mp4", "train/cls/b.mp4"), []),
    ],
)
def test_names_that_differ_from_files(made, listed, names, notices):
    text = "".join(f"{name},{label}\n" for label, name in enumerate(listed))
    path = made([f"v/{name}" for name in names], "train.csv", text)
    expected = [(f"v/{name}".partition("/img_")[0], label) for label, name in enumerate(names)]
    assert read(path, "v") == (expected, None, notices)


def test_the_usual_of_several_files_is_read(made):
    path = made(("x/a.gif", "x/a.mp4", "x/a.avi"), "list.csv", "x/a,0\n")
    assert read(path)[0] == [("x/a.mp4", 0)]


def test_a_manifest_means_the_files_that_it_names(made):
    text = '{"path": "a.avi", "label": 0, "frames": 9, "verdict": "ok"}\n'
    assert "1 of 1 videos looked up do not exist" in refused(made(ABC, "l.jsonl", text))


def test_two_videos_never_become_one(made):
    path = made(("a.mp4",), "list.csv", "x/a.mp4,0\ny/a.mp4,1\n")
    assert "2 of 2 videos looked up do not exist" in refused(path)


def test_ucf101_and_hmdb51_with_another_extension(made):
    made((), "classInd.txt", "1 Archery\n")
    path = made(("v/Archery/v_A_g01.mp4",), "trainlist01.txt", "Archery/v_A_g01.avi 1\n")
    notice = "files are read as .mp4 instead of .avi"
    assert read(path, "v") == ([("v/Archery/v_A_g01.mp4", 0)], ("Archery",), [notice])
    path = made(("v/run/a.mp4",), "s/run_test_split1.txt", "a.avi 1\n")
    videos = read_list(path.parent, path.parent.parent / "v")
    assert videos[0].path.endswith("v/run/a.mp4") and videos.notices[1].endswith(notice)
    assert "is one class of HMDB51; give its folder" in refused(path)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("x{}x.mp4", "x{}x.mp4,0"),
        ("x{}x.webm", "x{}x.mp4,0"),
        ("x{}x.mkv", "x{}x,0"),
        ("c/x{}x.mp4", "/data/c/x{}x.mp4,0"),
        ("train/run_far/x{}x_000001_000011.mp4", "run far,x{}x,1,11,train"),
        ("train/run_far/x{}x.mp4", "run far,x{}x,1,11,train"),
    ],
)
def test_few_objects_are_looked_up(file, line, monkeypatch):
    memory, count, numbers = fsspec.filesystem("memory"), collections.Counter(), range(300)
    head = "label,youtube_id,time_start,time_end,split\n" if "train" in line else ""
    for number in numbers:
        memory.pipe_file(f"/few/{file.format(number)}", b"")
    text = head + "".join(f"{line.format(number)}\n" for number in numbers)
    memory.pipe_file("/few/train.csv", text.encode())
    look_up = locators.is_file
    monkeypatch.setattr(locators, "is_file", lambda x: count.update([x]) or look_up(x))
    try:
        videos = read_list("memory://few/train.csv")
        assert [v.path for v in videos] == [f"memory://few/{file.format(i)}" for i in numbers]
        assert count.total() < 90
    finally:
        memory.rm("/few", recursive=True)
