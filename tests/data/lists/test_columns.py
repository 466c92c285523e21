"""Lines as other tools write them: which column holds the path, which the label."""

import pytest

from tests.support.lists import ABC, FRAMES, IDS, read, refused


@pytest.mark.parametrize(
    ("names", "text", "labels"),
    [
        (ABC, "path,label\na.mp4,0.0\nb.mp4,10.0\nc.mp4,2.\n", [0, 10, 2]),
        (ABC, "a.mp4 0.0\nb.mp4 10.0\nc.mp4 2.0\n", [0, 10, 2]),
        (ABC, "path,label\na.mp4,0.0\nb.mp4,nan\nc.mp4,\n", [0, -1, -1]),
        (ABC, "a.mp4,3\nb.mp4,\nc.mp4,None\n", [3, -1, -1]),
        (ABC, "a.mp4\t3\nb.mp4\t\n", [3, -1]),
        (("1.mp4", "2.mp4"), "id,label\n1.0,0.0\n2.0,1.0\n", [0, 1]),
        # headers
        (ABC, "video_id,label\na,3\nb,0\n", [3, 0]),
        (ABC, ",path,label\n0,a.mp4,3\n1,b.mp4,0\n", [3, 0]),
        (ABC, "\tpath\tlabel\n0\ta.mp4\t3\n1\tb.mp4\t0\n", [3, 0]),
        (ABC, ",0,1\n0,a.mp4,3\n1,b.mp4,0\n", [3, 0]),
        (ABC, "0,1\na.mp4,3\nb.mp4,0\n", [3, 0]),
        (ABC, "0,a.mp4,3\n1,b.mp4,0\n2,c.mp4,5\n", [3, 0, 5]),
        (ABC, "foo;bar\na.mp4;3\nb.mp4;0\n", [3, 0]),
        (ABC, "foo bar\na.mp4 3\nb.mp4 0\n", [3, 0]),
        (ABC, "foo,bar\na,2\nb,0\n", [2, 0]),
        (ABC, "video,frames,gesture_nr\na.mp4,30,2\nb.mp4,40,0\n", [2, 0]),
        (ABC, "File Name,Class\na.mp4,2\nb.mp4,0\n", [2, 0]),
        (ABC, "video,filename,label\n1,a.mp4,3\n2,b.mp4,0\n", [3, 0]),
        (ABC, "0 a.mp4\n3 b.mp4\n", [0, 3]),
        (ABC, "0,a.mp4\n3,b.mp4\n", [0, 3]),
        # ids
        (IDS, "abc 0\n-3B32lodo2M 1\n12345678901 2\n", [0, 1, 2]),
        (IDS, "abc\n-3B32lodo2M\n12345678901\n", [-1, -1, -1]),
        # numbers before the label
        (ABC, "a.mp4 0 3\nb.mp4 0 2\n", [3, 2]),
        (ABC, "a.mp4 300 3\nb.mp4 120 2\n", [3, 2]),
        (ABC, "path,num_frames,label\na.mp4,3,3\nb.mp4,4,2\n", [3, 2]),
        (("x/v1.avi", "x/v2.avi"), "x/v1 121 0\nx/v2 40 1\n", [0, 1]),
        # encodings and habits
        (ABC, "a.mp4\t3\r\nb.mp4\t0\r\n".encode("utf-16"), [3, 0]),
        (ABC, b"\xfe\xff" + "path;label\r\na.mp4;3\r\n".encode("utf-16-be"), [3]),
        (ABC, "\ufefffile_name,label\r\na.mp4,1\r\nb.mp4,0\r\n", [1, 0]),
        (ABC, "# mine\na.mp4 0\n# x\nb.mp4 1\n", [0, 1]),
        (ABC, "# path,label\na.mp4,0\nb.mp4,1\n", [0, 1]),
        (("#1.mp4", "b.mp4"), "#1.mp4 0\nb.mp4 1\n", [0, 1]),
        (ABC, "a.mp4,0,\nb.mp4,1,\n,,\n", [0, 1]),
        (ABC, "path,label\na.mp4,0,\nb.mp4,1,\n", [0, 1]),
        (("a.mp4", "e, f.mp4"), 'a.mp4, 0\n"e, f.mp4", 1\n', [0, 1]),
        (ABC, '"path";"label"\n"a.mp4";"3"\n"b.mp4";"0"\n', [3, 0]),
        (ABC, "'a.mp4' 0\n'b.mp4' 1\n", [0, 1]),
        (("video 1.mp4", "video 2.mp4"), "video 1.mp4\nvideo 2.mp4\n", [-1, -1]),
    ],
)
def test_numbers(made, names, text, labels):
    videos, classes, notices = read(made(names, "list.csv", text))
    assert videos == [(name, label) for name, label in zip(names, labels, strict=False)]
    assert (classes, notices) == (None, [])


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("file_name,label\na.mp4,yoga\nb.mp4,run\n", [1, 0]),
        ("clip,action\na.mp4,yoga\nb.mp4,run\n", [1, 0]),
        ("foo\tbar\na.mp4\tyoga\nb.mp4\trun\n", [1, 0]),
        ("vid,cls\na,yoga\nb,run\n", [1, 0]),
        ("a,yoga\nb,run\n", [1, 0]),
        ("a.mp4,yoga\nb.mp4,run\nc.mp4,\n", [1, 0, -1]),
        ("yoga,a.mp4\nrun,b.mp4\n", [1, 0]),
    ],
)
def test_names(made, text, labels):
    videos, classes, notices = read(made(ABC, "list.csv", text))
    assert videos == list(zip(ABC, labels, strict=False))
    assert classes == ("run", "yoga")
    assert notices == ["its 2 class names are numbered in sorted order"]


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4,1,playing yoga\nb.mp4,0,zumba\n",
        "a.mp4,playing yoga,1\nb.mp4,zumba,0\n",
        "a.mp4 1 playing yoga\nb.mp4 0 zumba\n",
        "a.mp4 playing yoga 1\nb.mp4 zumba 0\n",
        "path,label,name\na.mp4,1.0,playing yoga\nb.mp4,0.0,zumba\n",
        "path,class_name,class_id\na.mp4,playing yoga,1\nb.mp4,zumba,0\n",
    ],
)
def test_names_beside_numbers(made, text):
    path = made(ABC, "list.csv", text)
    videos = [("a.mp4", 1), ("b.mp4", 0)]
    assert read(path) == (videos, ("zumba", "playing yoga"), [])
    notice = "its names are not used, as some classes have none"
    assert read(path, num_classes=5) == (videos, None, [notice])


def test_names_of_several_words(made):
    text = "a.mp4 2 step dance\nb.mp4 run\n"
    assert read(made(ABC, "list.txt", text))[1] == ("2 step dance", "run")
    assert read(made(IDS, "list.txt", "abc playing guitar\n-3B32lodo2M run\n"))[:2] == (
        [("abc.mp4", 0), ("-3B32lodo2M.mkv", 1)],
        ("playing guitar", "run"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,0.5\nb.mp4,2.5\n", "line 1: label '0.5' is no whole number; labels are whole"),
        ("a.mp4,0\nb.mp4,2.5\n", "line 2: label '2.5' is no whole number, as others are"),
        ("a.mp4 1 2 3\nb.mp4 4 5 6\n", "line 1: a.mp4 has several labels or numbers (1, 2, 3)"),
        ("a.mp4,1,2,3\nb.mp4,4\n", "line 1: a.mp4 has several labels or numbers (1, 2, 3)"),
        ("a.mp4 1\nb.mp4 4 5\n", "line 2: b.mp4 has several labels or numbers (4, 5)"),
        ("a.mp4 1 2\nb.mp4 0 3\n", "write `path label` lines, or a header that names the columns"),
        ("a,1,2\nb,0,3\n", "line 1: a has several labels or numbers (1, 2)"),
        ("v1 3 0 1\nv2 3 2 1\n", "line 1: v1 has several labels or numbers (3, 0, 1)"),
        ('a.mp4,"1,2"\nb.mp4,3\n', "line 1: a.mp4 has several labels or numbers (1,2)"),
        ("a.mp4;1|2\nb.mp4;3\n", "line 1: a.mp4 has several labels or numbers (1|2)"),
        ("path,label_1,label_2\na.mp4,1,2\n", "has several labels a video (label_1, label_2)"),
        ("a.mp4,yoga,train\nb.mp4,run,test\n", "line 1: expected `path,label`"),
        (b"PK\x03\x04\0\0", "list.csv is not text; save the list as UTF-8 text"),
    ],
)
def test_lists_that_are_refused(made, text, message):
    assert message in refused(made((*ABC, *FRAMES), "list.csv", text))


def test_columns_that_are_not_read_are_told(made):
    path = made(ABC, "list.csv", "path,foo,bar\na.mp4,1,2\nb.mp4,1,3\n")
    assert read(path)[2] == [
        "none of its columns foo, bar is taken for a label; name the column that is `label`"
    ]
    path = made(ABC, "list.csv", "path,label,split\na.mp4,0,train\nb.mp4,1,val\n")
    assert read(path)[2] == ["its column split has train, val; all are read"]


def test_a_first_video_that_is_missing_is_no_header(made):
    path = made(IDS, "list.csv", "gone,run\nabc,run\n-3B32lodo2M,yoga\n")
    assert read(path)[0] == [("gone.mp4", 0), ("abc.mp4", 0), ("-3B32lodo2M.mkv", 1)]


def test_moments_in_time(made):
    text = "yoga/a.mp4,yoga,3,0\nrun/b.mp4,run,2,1\n"
    names = ("v/training/yoga/a.mp4", "v/training/run/b.mp4")
    path = made(names, "trainingSet.csv", text)
    assert read(path, "v")[:2] == ([(names[0], 1), (names[1], 0)], ("run", "yoga"))
    made((), "moments_categories.txt", "run,1\nyoga,0\nzip,2\n")
    assert read(path, "v") == ([(names[0], 0), (names[1], 1)], ("yoga", "run", "zip"), [])


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("v1 3 0\nv2 3 2\n", [0, 2]),  # as many as there are frames, or not
        ("v1 9 0\nv2 4 2\n", [0, 2]),
        ("path,label\nv1,0\nv2,2\n", [0, 2]),
        ("v1;0\nv2;2\n", [0, 2]),
        ("v1 1 3\nv2 1 3\n", [-1, -1]),
        ("v1 0 -1\nv2 0 -1\n", [-1, -1]),
    ],
)
def test_frame_folders(made, text, labels):
    expected = list(zip(("v1", "v2"), labels, strict=True))
    assert read(made(FRAMES, "list.txt", text)) == (expected, None, [])


def test_frame_folders_with_spaces_and_names(made):
    path = made([f"c d/{name}" for name in FRAMES], "list.txt", "c d/v1 3 0\nc d/v2 3 2\n")
    assert read(path)[0] == [("c d/v1", 0), ("c d/v2", 2)]
    path = made(FRAMES, "l/list.txt", "v1 3 yoga\nv2 3 run\n")
    assert read(path, "..")[:2] == ([("../v1", 1), ("../v2", 0)], ("run", "yoga"))
