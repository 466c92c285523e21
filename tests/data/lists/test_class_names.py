"""Classes files."""

import pytest

from tests.support.lists import ABC, EPIC, FRAMES, pairs, read, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


def test_classes_file_decides_the_order(folder):
    path = write(folder, "a.mp4,surfing\nb.mp4,abseiling\n")
    names = write(folder, "zumba\nsurfing\nabseiling\n", "names.txt")
    videos = read_list(path, classes=names)
    assert pairs(videos) == [("a.mp4", 1), ("b.mp4", 2)]
    assert (videos.classes, videos.notices) == (("zumba", "surfing", "abseiling"), ())
    names.rename(folder / "classes.txt")  # found by itself
    assert read_list(path) == videos


def test_classes_with_ids(folder):
    path = write(folder, 'a.mp4,surfing\nb.mp4,"ski, jumping"\n')
    text = 'id,name\r\n1,surfing\r\n2,"ski, jumping"\r\n0,2 step dance\r\n'
    labels = write(folder, text, "some_labels.csv")
    videos = read_list(path, classes=labels)
    assert pairs(videos) == [("a.mp4", 1), ("b.mp4", 2)]
    assert (videos.classes, videos.notices) == (("2 step dance", "surfing", "ski, jumping"), ())
    labels.rename(folder / "classes.txt")
    assert read_list(path) == videos
    with pytest.raises(UserError, match="has 3 class names but the number of classes is 101"):
        read_list(path, dataset="ucf101")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0,a\n1,b\n1,c\n", "line 4: id 1 comes twice; the ids of 3 classes are 0 to 2"),
        ("1,a\n2,b\n", "line 3: id 2 is out of range; the ids of 2 classes are 0 to 1"),
        ("0,a\n-1,b\n", "line 3: id -1 is out of range"),
        ("0,a\n1,b, c\n", "line 3: expected `id,name`, names with a comma in quotes, got '1,b, c'"),
        ("0,a\n1\n", "line 3: expected `id,name`"),
        ("0,a\n1,\n", "line 3: expected `id,name`"),
        ("a,0\n", "line 2: expected `id,name`"),
        ("0,a\n1,a\n", "names 'a' twice"),
    ],
)
def test_mistakes_in_classes_with_ids(folder, lines, message):
    path = write(folder, "a.mp4 0\nb.mp4 0\n")
    labels = write(folder, "id,name\n" + lines, "labels.csv")
    with pytest.raises(UserError, match=rf"labels\.csv .*{message}"):
        read_list(path, classes=labels)


@pytest.mark.parametrize(
    "text",
    [
        "run,1\nyoga,0\n",
        "0,yoga\n1,run\n",
        "1 run\n0 yoga\n",
        "2 run\n1 yoga\n",
        "id,name\n1.0,run\n0.0,yoga\n",
    ],
)
def test_classes_with_numbers(made, text):
    classes = made((), "names.txt", text)
    path = made(ABC, "list.csv", "a.mp4,run\nb.mp4,yoga\n")
    assert read(path, classes=classes) == ([("a.mp4", 1), ("b.mp4", 0)], ("yoga", "run"), [])


def test_class_names_of_several_labels(folder):
    path = write(folder, "path,noun,verb\na.mp4,3,4\n")
    names = [f"noun {i}" for i in range(300)] + [f"noun {i}" for i in range(97)]
    write(folder, "\n".join(names), "classes.txt")  # a noun may be a verb, too
    assert read_list(path, **EPIC).classes == tuple(names)
    write(folder, "\n".join(names[:-1]), "classes.txt")
    with pytest.raises(UserError, match="has 396 class names but the number of classes is 397"):
        read_list(path, **EPIC)
    write(folder, "\n".join([*names[:-1], "noun 3"]), "classes.txt")
    with pytest.raises(UserError, match="names 'noun 3' twice"):
        read_list(path, **EPIC)


def test_jester(made):
    path = made(FRAMES, "jester-v1-train.csv", "v1;Drumming Fingers\nv2;Stop Sign\n")
    assert read(path)[:2] == ([("v1", 0), ("v2", 1)], ("Drumming Fingers", "Stop Sign"))
    made((), "jester-v1-labels.csv", "Stop Sign\nNo gesture\nDrumming Fingers\n")
    classes = ("Stop Sign", "No gesture", "Drumming Fingers")
    assert read(path) == ([("v1", 2), ("v2", 0)], classes, [])
