"""Labels as numbers: names, several labels, numbers that contradict names."""

import pytest

from tests.support.lists import ABC, EPIC, pairs, read, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_names_are_numbered_in_sorted_order_and_said_so(folder):
    videos = read_list(write(folder, "a.mp4,surfing\nb.mp4,abseiling\n"))
    assert pairs(videos) == [("a.mp4", 1), ("b.mp4", 0)]
    assert videos.classes == ("abseiling", "surfing")
    assert "2 class names are numbered in sorted order" in videos.notices[0]


def test_unknown_class_suggests_the_near_name(folder):
    names = write(folder, "surfing\nabseiling\n", "names.txt")
    with pytest.raises(
        UserError, match="line 1: class 'surfin' is unknown; did you mean 'surfing'"
    ):
        read_list(write(folder, "a.mp4,surfin\n"), classes=names)
    write(folder, "surfing\nsurfing\n", "names.txt")
    with pytest.raises(UserError, match="names 'surfing' twice"):
        read_list(write(folder, "a.mp4,surfing\n"), classes=names)


def test_names_that_contradict_their_numbers(made):
    path = made(ABC, "list.csv", "a.mp4,1,yoga\nb.mp4,1,run\nc.mp4,0,x\n")
    reason = "they contradict its numbers: 'run' is 1 and 'yoga' 1"
    videos = [("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 0)]
    assert read(path) == (videos, None, [f"its names are not used, as {reason}"])


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("a.mp4 1\nb.mp4 2\nc.mp4 3\n", {}, True),
        ("a.mp4,1,x\nb.mp4,2,y\n", {}, True),
        ("a.mp4 1\nb.mp4 1\n", {}, False),
        ("a.mp4 1\nb.mp4 2\nc.mp4 0\n", {}, False),
        ("a.mp4 1\nb.mp4 2\n", {"num_classes": 4}, False),
        ("a.mp4 1\nb.mp4 2\n", {"classes": ("x", "y", "z")}, False),
    ],
)
def test_labels_from_1_are_noticed(made, text, arguments, expected):
    notice = "class 0 has no videos; labels count from 0, are these counted from 1?"
    assert (notice in read(made(ABC, "list.csv", text), **arguments)[2]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "path,noun,verb\na.mp4,299,0\nb.mp4,0,96\n",
        "path, noun, verb\na.mp4, 299, 0\nb.mp4, 0, 96\n",
        "verb,noun,path\n0,299,a.mp4\n96,0,b.mp4\n",
        "path noun verb\na.mp4 299 0\nb.mp4 0 96\n",
        "path\tverb_class\tnoun_class\na.mp4\t0\t299\nb.mp4\t96\t0\n",
        "video,verb,noun,noun_class,verb_class\na.mp4,cut,tap,299,0\nb.mp4,wash,cup,0,96\n",
    ],
)
def test_lists_with_several_labels(folder, text):
    path = write(folder, text)
    videos = read_list(path, **EPIC, need_labels=True)
    assert pairs(videos) == [("a.mp4", (299, 0)), ("b.mp4", (0, 96))]
    assert read_list(path) == videos  # as data.check reads it


def test_several_labels_may_be_unknown(folder):
    path = write(folder, "path,noun,verb\na.mp4,-1,-1\nb.mp4,0,96\n")
    assert pairs(read_list(path, **EPIC)) == [("a.mp4", -1), ("b.mp4", (0, 96))]
    with pytest.raises(UserError, match=r"line 2: a\.mp4 has no label, but epic_kitchens needs"):
        read_list(path, **EPIC, need_labels=True)
    path = write(folder, "a.mp4\nb.mp4\n")
    assert pairs(read_list(path, **EPIC)) == [("a.mp4", -1), ("b.mp4", -1)]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("path,noun,verb\na.mp4,300,0\n", EPIC, "line 2: noun 300 is out of range for 300 classes"),
        ("path,noun,verb\na.mp4,0,0\nb.mp4,0,97\n", EPIC, "line 3: verb 97 is out of range for 97"),
        ("path,noun,verb\na.mp4,-1,0\n", EPIC, "line 2: noun -1 is out of range"),
        ("path,noun,verb\na.mp4,3\n", EPIC, "line 2: expected `path,noun,verb`, got 'a.mp4,3'"),
        ("path,noun,verb\na.mp4,3,\n", EPIC, "line 2: verb is ''; write it as a number"),
        ("path,noun,verb\na.mp4,tap,cut\n", EPIC, "line 2: noun is 'tap'; write it as a number"),
        (
            "path,noun\na.mp4,3\n",
            EPIC,
            "line 2: .* the label 3, but epic_kitchens needs noun and v",
        ),
        ("a.mp4 3\n", EPIC, "line 1: .* header such as `path,noun,verb`"),
        (
            "path,noun,verb\na.mp4,3,4\n",
            {"dataset": "k400"},
            "has 2 labels, but data of k400 has one",
        ),
        (
            "path,noun,verb\na.mp4,3,4\n",
            {"need_labels": True},
            r"custom\) .* \(epic_kitchens, demo_pairs have sev",
        ),
        (
            "path,noun,verb\na.mp4,3,4\na.mp4,3,5\n",
            EPIC,
            r"has label \(3, 5\) but \(3, 4\) in line 2",
        ),
    ],
)
def test_mistakes_in_several_labels_are_named_with_their_line(folder, text, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        read_list(write(folder, text), **arguments)
    assert "\n" not in str(caught.value)
