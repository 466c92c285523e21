"""Folders of classes."""

import pytest

from tests.support.lists import FRAMES, pairs, read, refused, touch
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_folder_per_class(tmp_path):
    touch(tmp_path, "v/run/b.mp4", "v/run/a.mp4", "v/jump/c.MKV", "v/jump/notes.txt")
    videos = read_list(tmp_path / "v")
    assert pairs(videos) == [("c.MKV", 0), ("a.mp4", 1), ("b.mp4", 1)]
    assert videos.classes == ("jump", "run")
    with pytest.raises(UserError, match="holds no videos in class folders"):
        read_list(tmp_path / "v" / "run")


def test_a_folder_of_classes(made):
    names = (
        "f/apple/1.mp4",
        "f/apple/00001.MTS",
        "f/apple/._1.mp4",
        "f/apple/.DS_Store",
        "f/apple/notes.txt",
        "f/apple/@eaDir/1.mp4/T1.jpg",
        "f/Banana/p1/s/2.3GP",
        "f/__MACOSX/apple/1.mp4",
        "f/@eaDir/1.mp4",
        "f/.ipynb_checkpoints/x.mp4",
        "f/empty/",
        "f/loose.mp4",
        "f/classes.csv",
    )
    videos = [("f/Banana/p1/s/2.3GP", 0), ("f/apple/00001.MTS", 1), ("f/apple/1.mp4", 1)]
    assert read(made(names, "f")) == (
        videos,
        ("Banana", "apple"),
        [
            "left out are 1 videos without a class folder, such as loose.mp4; 1 files that are no "
            "videos, such as apple/notes.txt; folders without videos: empty"
        ],
    )


def test_class_folders_of_frame_folders(made):
    names = [f"f/run/{name}" for name in FRAMES]
    names += ["f/go/x.mp4", "f/go/thumb1.jpg", "f/no/1.jpg"]
    assert read(made(names, "f")) == (
        [("f/go/x.mp4", 0), ("f/run/v1", 1), ("f/run/v2", 1)],
        ("go", "run"),
        [
            "left out are 1 files that are no videos, such as go/thumb1.jpg; folders without "
            "videos: no"
        ],
    )


def test_class_folders_that_are_numbers_are_names(made):
    """In the order of text as ever, and as torchvision has it: checkpoints know them so."""
    _, classes, _ = read(made([f"f/{i}/a.mp4" for i in (2, 0, 10)], "f"))
    assert classes == ("0", "10", "2")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("f/train/run/a.mp4", "f/val/run/b.mp4"),
            "folders of splits (train, val), not of classes; give one of them, such as f/train",
        ),
        (
            ("f/a.mp4", "f/b.mp4"),
            "holds no videos in class folders (class/video.mp4) and no HMDB51 "
            "split files, but 2 videos directly in it, such as a.mp4; give a list file",
        ),
        ([f"f/{name}" for name in FRAMES], "but folders of frames, such as v"),
    ],
)
def test_other_folders_are_refused(made, names, message):
    assert message in refused(made(names, "f"))


def test_a_folder_of_folders_of_classes_is_told(made):
    notices = read(made(("f/UCF/run/a.mp4", "f/UCF/go/b.mp4"), "f"))[2]
    assert "its only class is UCF" in notices[0] and "f/UCF if its folders are" in notices[0]
