"""Lists as other tools write them: numbers, headers, columns, layouts on disk, frame folders."""

import collections
import json
import os

import fsspec
import pytest

from vidjax.data.lists import lines, read_list
from vidjax.data.reading import locators
from vidjax.errors import UserError


@pytest.fixture
def made(tmp_path):
    """made(names, list name, list) writes empty files and a list; returns the list's path."""

    def make(names, name: str, text: str | bytes = ""):
        for file in names:
            place = tmp_path / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir() if file.endswith("/") else place.touch()
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            place.write_bytes(text if isinstance(text, bytes) else text.encode())
        return place

    return make


def read(path, root: str = "", **arguments) -> tuple:
    """[(path below the folder, label)], classes, and notices without the list's name."""
    folder = path.parent
    videos = read_list(path, folder / root if root else "", **arguments)
    pairs = [(os.path.relpath(video.path, folder), video.label) for video in videos]
    return pairs, videos.classes, [n.removeprefix(f"{path}: ") for n in videos.notices]


def refused(path, root: str = "", **arguments) -> str:
    with pytest.raises(UserError) as caught:
        read_list(path, path.parent / root if root else "", **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


ABC = ("a.mp4", "b.mp4", "c.mp4")
IDS = ("abc.mp4", "-3B32lodo2M.mkv", "12345678901.webm")
FRAMES = tuple(f"{video}/img_{i:05d}.jpg" for video in ("v1", "v2") for i in (1, 2, 3))


# --- text ---------------------------------------------------------------------------------------


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


def test_names_that_contradict_their_numbers(made):
    path = made(ABC, "list.csv", "a.mp4,1,yoga\nb.mp4,1,run\nc.mp4,0,x\n")
    reason = "they contradict its numbers: 'run' is 1 and 'yoga' 1"
    videos = [("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 0)]
    assert read(path) == (videos, None, [f"its names are not used, as {reason}"])


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


def test_columns_that_are_not_read_are_told(made):
    path = made(ABC, "list.csv", "path,foo,bar\na.mp4,1,2\nb.mp4,1,3\n")
    assert read(path)[2] == [
        "none of its columns foo, bar is taken for a label; name the column that is `label`"
    ]
    path = made(ABC, "list.csv", "path,label,split\na.mp4,0,train\nb.mp4,1,val\n")
    assert read(path)[2] == ["its column split has train, val; all are read"]


def test_whole_numbers():
    assert list(map(lines.whole, ("3", "-1", "+2", "3.0", "3.", 4.0))) == [3, -1, 2, 3, 3, 4]
    assert set(map(lines.whole, ("2.5", "", "nan", "x3", "3 4", "1e3"))) == {None}
    assert lines.labels(["0", None, "N/A", "2.0"]) == [0, -1, -1, 2]
    assert lines.labels(["none", "nan", "x"]) == ["none", -1, "x"]


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


# --- folders ------------------------------------------------------------------------------------


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


# --- files on disk ------------------------------------------------------------------------------


SSV2 = json.dumps(
    [{"id": "7", "template": "Holding [something]"}, {"id": 9, "template": "Moving [something]"}]
)


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


@pytest.mark.parametrize(
    "names",
    [
        ("-bc_1_000001_000011.mkv", "xyz_000104_000114.mp4"),
        ("play it/-bc_1_000001_000011.webm", "run/xyz_000104_000114.webm"),
        ("play_it/-bc_1_000001_000011.mp4", "run/xyz_000104_000114.mp4"),
        ("val/-bc_1_000001_000011.mp4", "val/xyz_000104_000114.mp4"),
        ("validation/play it/-bc_1_000001_000011.mp4", "validation/run/xyz_000104_000114.mp4"),
        ("validate/play_it/-bc_1_000001_000011.mp4", "validate/run/xyz_000104_000114.mp4"),
        ("-bc_1.mp4", "xyz.mkv"),
        ("run/xyz.webm", "play_it/-bc_1.mp4"),
        ("play_it/-bc_1_000001_000011/00001.jpg", "run/xyz_000104_000114/00001.jpg"),
    ],
)
@pytest.mark.parametrize("split", [",validate", ""])
def test_kinetics_in_other_layouts(made, names, split):
    text = (
        f"label,youtube_id,time_start,time_end{',split' * bool(split)}\n"
        f"play it,-bc_1,1.0,11.0{split}\nrun,xyz,104,114{split}\nrun,gone,1,11{split}\n"
    )
    path = made([f"k/{name}" for name in names], "val.csv", text)
    videos = read(path, "k")[0]
    expected = {os.path.join("k", name).removesuffix("/00001.jpg") for name in names}
    assert {name for name, _ in videos[:2]} == expected
    assert [label for _, label in videos] == [0, 1, 1]


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


def test_a_first_video_that_is_missing_is_no_header(made):
    path = made(IDS, "list.csv", "gone,run\nabc,run\n-3B32lodo2M,yoga\n")
    assert read(path)[0] == [("gone.mp4", 0), ("abc.mp4", 0), ("-3B32lodo2M.mkv", 1)]


def test_a_manifest_means_the_files_that_it_names(made):
    text = '{"path": "a.avi", "label": 0, "frames": 9, "verdict": "ok"}\n'
    assert "1 of 1 videos looked up do not exist" in refused(made(ABC, "l.jsonl", text))


def test_two_videos_never_become_one(made):
    path = made(("a.mp4",), "list.csv", "x/a.mp4,0\ny/a.mp4,1\n")
    assert "2 of 2 videos looked up do not exist" in refused(path)


def test_moments_in_time(made):
    text = "yoga/a.mp4,yoga,3,0\nrun/b.mp4,run,2,1\n"
    names = ("v/training/yoga/a.mp4", "v/training/run/b.mp4")
    path = made(names, "trainingSet.csv", text)
    assert read(path, "v")[:2] == ([(names[0], 1), (names[1], 0)], ("run", "yoga"))
    made((), "moments_categories.txt", "run,1\nyoga,0\nzip,2\n")
    assert read(path, "v") == ([(names[0], 0), (names[1], 1)], ("yoga", "run", "zip"), [])


def test_ucf101_and_hmdb51_with_another_extension(made):
    made((), "classInd.txt", "1 Archery\n")
    path = made(("v/Archery/v_A_g01.mp4",), "trainlist01.txt", "Archery/v_A_g01.avi 1\n")
    notice = "files are read as .mp4 instead of .avi"
    assert read(path, "v") == ([("v/Archery/v_A_g01.mp4", 0)], ("Archery",), [notice])
    path = made(("v/run/a.mp4",), "s/run_test_split1.txt", "a.avi 1\n")
    videos = read_list(path.parent, path.parent.parent / "v")
    assert videos[0].path.endswith("v/run/a.mp4") and videos.notices[1].endswith(notice)
    assert "is one class of HMDB51; give its folder" in refused(path)


def test_epic_kitchens_with_floats(made):
    text = "narration_id,participant_id,verb_class,noun_class\nP01_1,P01,3.0,4.0\nP01_2,P01,,\n"
    path = made(("P01/P01_1.mp4", "P01/P01_2.webm"), "train.csv", text)
    videos = [("P01/P01_1.mp4", (4, 3)), ("P01/P01_2.webm", -1)]
    assert read(path, dataset="epic_kitchens") == (videos, None, [])


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


def test_jester(made):
    path = made(FRAMES, "jester-v1-train.csv", "v1;Drumming Fingers\nv2;Stop Sign\n")
    assert read(path)[:2] == ([("v1", 0), ("v2", 1)], ("Drumming Fingers", "Stop Sign"))
    made((), "jester-v1-labels.csv", "Stop Sign\nNo gesture\nDrumming Fingers\n")
    classes = ("Stop Sign", "No gesture", "Drumming Fingers")
    assert read(path) == ([("v1", 2), ("v2", 0)], classes, [])


@pytest.mark.parametrize(
    ("names", "text", "root", "message"),
    [
        (
            ("s/74226.mp4",),
            "s/74225.webm 0\n",
            "",
            "such as s/74225.webm; the folder s holds "
            "other names, such as 74226.mp4; correct the list",
        ),
        (("s/a-b.mp4",), "s/A_b.webm 0\n", "", "such as s/A_b.webm; there is s/a-b.mp4; correct"),
        (("videos/a.mp4",), "vids/a.mp4 0\n", "", "there is no folder vids, but videos; set root"),
        (("x/sub/a.mp4",), "sub/a.webm 0\n", "", "set root to x, which has sub/a.mp4"),
        (
            ("x/a.mp4",),
            "q.mp4 0\n",
            "x",
            "the folder x holds other names, such as a.mp4; correct the list or root",
        ),
        (("x/b.mp4",), "/nowhere/a.mp4 0\n", "x", "there is no folder /nowhere; correct its abso"),
        (
            (),
            "only_here.mp4 0\n",
            "",
            "such as only_here.mp4; set root to the folder that its paths",
        ),
    ],
)
def test_missing_paths_are_explained(made, names, text, root, message):
    assert message in refused(made(names, "l.csv", text), root)


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
