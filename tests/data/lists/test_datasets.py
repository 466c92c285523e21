"""Every list format, and one clear sentence for every mistake in a list."""

import json

import pytest

from vidjax.data.datasets import DATASETS, Video, VideoList
from vidjax.data.lists import few_shot, read_list
from vidjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A folder with empty files to list; `read_list` looks at names only."""
    for name in ("a.mp4", "b.mp4", "c d.mp4", "e,f.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text: str | bytes, name: str = "list.csv"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(videos) -> list[tuple[str, int]]:
    return [(video.path.rpartition("/")[2], video.label) for video in videos]


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


def test_names_are_numbered_in_sorted_order_and_said_so(folder):
    videos = read_list(write(folder, "a.mp4,surfing\nb.mp4,abseiling\n"))
    assert pairs(videos) == [("a.mp4", 1), ("b.mp4", 0)]
    assert videos.classes == ("abseiling", "surfing")
    assert "2 class names are numbered in sorted order" in videos.notices[0]


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


def labelled(labels, classes=None) -> VideoList:
    return VideoList(tuple(Video(f"{i}.mp4", label) for i, label in enumerate(labels)), classes)


def test_few_shot_draws_so_many_of_every_class():
    videos = labelled([2, 0, 1] * 8, ("a", "b", "c"))
    drawn = few_shot(videos, 3, seed=0)
    assert sorted(video.label for video in drawn) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    order = [int(video.path.removesuffix(".mp4")) for video in drawn]
    assert order == sorted(order) and all(videos[i] == v for i, v in zip(order, drawn, strict=True))
    assert drawn.classes == ("a", "b", "c")
    assert drawn.notices == (
        "9 of 24 videos are used: 3 of each of the 3 classes, drawn with seed 0",
    )
    assert few_shot(videos, 3, seed=0) == drawn
    others = {few_shot(videos, 3, seed).videos for seed in range(5)}
    assert len(others) == 5
    for seed in range(5):
        kept = [set(few_shot(videos, shots, seed)) for shots in (2, 4, 8)]
        assert kept[0] < kept[1] < kept[2] == set(videos)
    # The draws of classes are not the same positions, nor do they depend on each other.
    first = {v.label: int(v.path.removesuffix(".mp4")) // 3 for v in few_shot(videos, 1, 0)}
    assert len({few_shot(videos, 1, seed)[0].path for seed in range(20)}) > 5
    assert first != dict.fromkeys(range(3), first[0])
    alone = labelled([-2, 0, -2] * 8)
    alone = VideoList(tuple(video for video in alone if video.label == 0))
    assert set(few_shot(alone, 3, 0)) == {video for video in drawn if video.label == 0}


@pytest.mark.parametrize(
    ("videos", "shots", "message"),
    [
        (labelled([0, 0, 1], ("x", "y")), 2, "class 'y' has 1 videos, but 2 of each class are to"),
        (labelled([0, 0, 7]), 2, "class 7 has 1 videos"),
        (labelled([0, 0, 2, 2], ("x", "y", "z")), 1, "class 'y' has 0 videos"),
        (labelled([0, -1]), 1, r"1\.mp4 has the label -1"),
        (labelled([(0, 3)]), 1, r"0\.mp4 has the label \(0, 3\)"),
        (labelled([0]), 0, "must be positive, not 0"),
    ],
)
def test_few_shot_needs_enough_of_every_class(videos, shots, message):
    with pytest.raises(UserError, match=message):
        few_shot(videos, shots, seed=0)


def test_kinetics_csv_flat_and_in_class_folders(tmp_path):
    text = (
        "label,youtube_id,time_start,time_end,split\n"
        "surfing,abc-_1,5,15,train\n"
        '"cooking, outside",xyz,104,114,train\n'
    )
    flat = ["abc-_1_000005_000015.mp4", "xyz_000104_000114.mp4"]
    folders = {
        "flat": flat,
        "classes": [f"surfing/{flat[0]}", f"cooking, outside/{flat[1]}"],
        "underscores": [f"surfing/{flat[0]}", f"cooking,_outside/{flat[1]}"],
    }
    for root, names in folders.items():
        touch(tmp_path / root, *names)
        videos = read_list(write(tmp_path, text), tmp_path / root)
        assert [v.path for v in videos] == [str(tmp_path / root / name) for name in names]
        assert [v.label for v in videos] == [1, 0]
    test_list = write(tmp_path, "youtube_id,time_start,time_end,split\nxyz,104,114,test\n")
    assert [v.label for v in read_list(test_list, tmp_path / "flat")] == [-1]


def test_ssv2(tmp_path):
    touch(tmp_path, "v/7.webm", "v/9.webm")
    entries = [
        {"id": "7", "label": "holding potato", "template": "Holding [something]"},
        {"id": "9", "label": "x", "template": "Moving [something] and [something] closer"},
    ]
    path = write(tmp_path, json.dumps(entries), "train.json")
    with pytest.raises(UserError, match=r"needs SSv2's labels\.json"):
        read_list(path, tmp_path / "v")
    labels = {"Moving something and something closer": "0", "Holding something": "1"}
    write(tmp_path, json.dumps(labels), "labels.json")
    videos = read_list(path, tmp_path / "v")
    assert pairs(videos) == [("7.webm", 1), ("9.webm", 0)]
    assert videos.classes == ("Moving something and something closer", "Holding something")
    test_list = write(tmp_path, '[{"id": "9"}]', "test.json")
    assert pairs(read_list(test_list, tmp_path / "v")) == [("9.webm", -1)]


def test_ucf101_labels_count_from_1_in_the_files_and_from_0_here(tmp_path):
    touch(tmp_path, "v/Archery/v_Archery_g01_c01.avi", "v/Basketball/v_Basketball_g02_c03.avi")
    lines = "Archery/v_Archery_g01_c01.avi 1\r\nBasketball/v_Basketball_g02_c03.avi 2\r\n"
    train = write(tmp_path, lines, "trainlist01.txt")
    with pytest.raises(UserError, match=r"classInd\.txt"):
        read_list(train, tmp_path / "v")
    write(tmp_path, "1 Archery\r\n2 Basketball\r\n", "classInd.txt")
    test = write(tmp_path, "Basketball/v_Basketball_g02_c03.avi\n", "testlist01.txt")
    videos = read_list(train, tmp_path / "v")
    assert [v.label for v in videos] == [0, 1]
    assert videos.classes == ("Archery", "Basketball")
    assert [v.label for v in read_list(test, tmp_path / "v")] == [1]
    write(tmp_path, "Archery/v_Archery_g01_c01.avi 2\n", "trainlist01.txt")
    with pytest.raises(UserError, match=r"trainlist01\.txt line 1"):
        read_list(train, tmp_path / "v")


def test_hmdb51(tmp_path):
    touch(tmp_path, "v/wave/a b.avi", "v/wave/c.avi", "v/wave/d.avi", "v/run/e.avi")
    write(tmp_path, "a b.avi 1 \nc.avi 2 \nd.avi 0 \n", "s/wave_test_split1.txt")
    write(tmp_path, "e.avi 1 \n", "s/run_test_split1.txt")
    write(tmp_path, "e.avi 2 \n", "s/run_test_split2.txt")
    touch(tmp_path, "v/brush_hair/f.avi")
    write(tmp_path, "f.avi 2 \n", "s/brush_hair_test_split1.txt")
    train = read_list(tmp_path / "s" / "*_test_split1.txt", tmp_path / "v")
    assert [v.path for v in train] == [
        str(tmp_path / "v" / p) for p in ("run/e.avi", "wave/a b.avi")
    ]
    assert ([v.label for v in train], train.classes) == ([1, 2], ("brush hair", "run", "wave"))
    # X-CLIP's label files have the names in words.
    names = write(tmp_path, "id,name\n0,run\n1,wave\n2,brush hair\n", "labels.csv")
    test = read_list(tmp_path / "s", tmp_path / "v", split="test", classes=names)
    assert pairs(test) == [("f.avi", 2), ("c.avi", 1)]
    assert "split 1" in test.notices[0]
    with pytest.raises(UserError, match="mixes splits 1, 2"):
        read_list(tmp_path / "s" / "*_test_split*.txt", tmp_path / "v")
    with pytest.raises(UserError, match="matches no file"):
        read_list(tmp_path / "s" / "*_split3.txt", tmp_path / "v")


def test_folder_per_class(tmp_path):
    touch(tmp_path, "v/run/b.mp4", "v/run/a.mp4", "v/jump/c.MKV", "v/jump/notes.txt")
    videos = read_list(tmp_path / "v")
    assert pairs(videos) == [("c.MKV", 0), ("a.mp4", 1), ("b.mp4", 1)]
    assert videos.classes == ("jump", "run")
    with pytest.raises(UserError, match="holds no videos in class folders"):
        read_list(tmp_path / "v" / "run")


def test_manifest(folder):
    lines = [
        {"manifest": 1, "classes": ["x", "y"]},
        {"path": "a.mp4", "label": 1, "frames": 30, "verdict": "trim:30", "reason": ""},
        {"path": "b.mp4", "label": 0, "frames": None, "verdict": "reject", "reason": "empty"},
    ]
    path = write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    videos = read_list(path)
    assert videos.videos == (Video(str(folder / "a.mp4"), 1, 30, "trim:30"),)
    assert videos.classes == ("x", "y")
    assert "1 of 2 videos are left out" in videos.notices[0]
    write(folder, '{"path": "a.mp4"}', "list.manifest.jsonl")
    with pytest.raises(UserError, match=r"line 1: expected a JSON object"):
        read_list(path)


EPIC = {"dataset": "epic_kitchens"}
EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
EPIC_ROWS = (
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,"
    "open,3,door,8,['door'],[8]\n"
    'P02_10_7,P02,P02_10,00:00:02.6,00:00:04.37,00:00:06.17,262,370,"take, then put",'
    'take,0,"plate:small",2,"[\'plate:small\', \'pan\']","[2, 5]"\n'
)


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
    "names",
    [
        ("P01_01_0.mp4", "P02_10_7.mp4"),
        ("P01_01_0.MP4", "P02_10_7.MP4"),
        ("P01/P01_01_0.webm", "P02/P02_10_7.webm"),
    ],
)
def test_epic_kitchens_csv(tmp_path, names):
    touch(tmp_path, *(f"v/{name}" for name in names))
    path = write(tmp_path, EPIC_HEADER + EPIC_ROWS, "EPIC_100_train.csv")
    videos = read_list(path, tmp_path / "v", **EPIC, need_labels=True)
    assert [v.path for v in videos] == [str(tmp_path / "v" / name) for name in names]
    assert [v.label for v in videos] == [(8, 3), (2, 0)]
    assert videos.classes is None
    with pytest.raises(UserError, match=r"no clips such as P01_01_0\.mp4; cut one for each row"):
        read_list(path, tmp_path, **EPIC)
    # The noun classes alone are not enough; of two versions the later counts.
    nouns = [f"{i},\"noun {i}\",\"['a', 'b']\",x" for i in range(300)]
    write(tmp_path, "\n".join(["id,key", *nouns[:5]]), "EPIC_100_noun_classes.csv")
    write(
        tmp_path, "\n".join(["id,key,instances,category", *nouns]), "EPIC_100_noun_classes_v2.csv"
    )
    assert read_list(path, tmp_path / "v", **EPIC).classes is None
    verbs = write(
        tmp_path,
        "id,key\n" + "".join(f"{i},noun {i}\n" for i in range(97)),
        "EPIC_100_verb_classes.csv",
    )
    classes = read_list(path, tmp_path / "v", **EPIC).classes
    assert len(classes) == 397 and classes[299] == "noun 299" and classes[300] == "noun 0"
    assert read_list(path, tmp_path / "v", **EPIC, classes=classes).classes == classes
    verbs.write_text("id,key\n0,take\n2,put\n")
    with pytest.raises(UserError, match=r"verb_classes.csv line 3: expected class 1"):
        read_list(path, tmp_path / "v", **EPIC)
    verbs.write_text("id,key\n0,take\n")
    with pytest.raises(UserError, match="names 1 of the 97 verb classes"):
        read_list(path, tmp_path / "v", **EPIC)


def test_epic_kitchens_test_list_has_no_labels(tmp_path):
    touch(tmp_path, "P01_01_0.mp4")
    text = "narration_id,participant_id,video_id,start_frame\nP01_01_0,P01,P01_01,8\n"
    path = write(tmp_path, text, "EPIC_100_test_timestamps.csv")
    assert pairs(read_list(path, **EPIC)) == [("P01_01_0.mp4", -1)]
    with pytest.raises(UserError, match=r"line 2: P01_01_0\.mp4 has no label"):
        read_list(path, **EPIC, need_labels=True)
    with pytest.raises(UserError, match="line 2: expected `narration_id,"):
        read_list(write(tmp_path, text.replace(",8", ""), "EPIC_100_test_timestamps.csv"), **EPIC)


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


def test_manifest_with_several_labels(folder):
    lines = [
        {"manifest": 1, "classes": None},
        {"path": "a.mp4", "label": [1, 2], "frames": 30, "verdict": "ok", "reason": ""},
        {"path": "b.mp4", "label": -1, "frames": 3, "verdict": "ok", "reason": ""},
    ]
    path = write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    videos = read_list(path, **EPIC)
    assert pairs(videos) == [("a.mp4", (1, 2)), ("b.mp4", -1)]
    with pytest.raises(UserError, match="2 labels, but data of k400 has one"):
        read_list(path, dataset="k400")
    lines[2]["label"] = [1, 2, 3]
    write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    with pytest.raises(UserError, match=r"line 3: b.mp4 has the label \(1, 2, 3\)"):
        read_list(path, **EPIC)


# --- captions -----------------------------------------------------------------------------------


def captions(videos) -> list[tuple[str, tuple[str, ...]]]:
    return [(video.path.rpartition("/")[2], video.captions) for video in videos]


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


JSFUSION = (
    "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person is connecting something\n"
    'ret1,msr9771,video9771,"a little girl, singing"\n'
)


def test_msrvtt_csv(tmp_path):
    touch(tmp_path, "v/video9770.mp4", "v/video9771.WEBM", "v/video9771.json")
    videos = read_list(write(tmp_path, JSFUSION), tmp_path / "v", "msrvtt", need_captions=True)
    assert captions(videos) == [
        ("video9770.mp4", ("a person is connecting something",)),
        ("video9771.WEBM", ("a little girl, singing",)),
    ]
    with pytest.raises(UserError, match="line 3: expected `key,vid_key,"):
        read_list(write(tmp_path, JSFUSION.replace('"', "")), tmp_path / "v")
    with pytest.raises(UserError, match=r"2 of 2 videos .*video9770\.mp4.*; set root"):
        read_list(write(tmp_path, JSFUSION))


def msrvtt(*splits: str) -> dict:
    """videos i of the splits with sentences in another order."""
    return {
        "info": {"version": "1.0"},
        "videos": [
            {"video_id": f"video{i}", "category": 9, "url": "", "split": split, "id": i}
            for i, split in enumerate(splits)
        ],
        "sentences": [
            {"caption": text.format(i), "video_id": f"video{i}", "sen_id": k}
            for k, (i, text) in enumerate(
                (i, text) for text in ("first of {}", "both", "both") for i in range(len(splits))
            )
        ],
    }


def test_msrvtt_train_list_finds_its_captions(tmp_path):
    touch(tmp_path, "v/video0.mp4", "v/video2.mp4")
    path = write(tmp_path, "video_id\nvideo2\nvideo0\n", "MSRVTT_train.9k.csv")
    with pytest.raises(UserError, match=r"put MSRVTT_data\.json beside it"):
        read_list(path, tmp_path / "v")
    write(tmp_path, json.dumps(msrvtt("train", "train", "validate")), "MSRVTT_data.json")
    videos = read_list(path, tmp_path / "v", "msrvtt", need_captions=True)
    assert captions(videos) == [
        ("video2.mp4", ("first of 2", "both", "both")),
        ("video0.mp4", ("first of 0", "both", "both")),
    ]


@pytest.mark.parametrize(
    ("splits", "asked", "expected"),
    [
        (("test", "test"), "test", [0, 1]),
        (("test", "test"), "train", [0, 1]),  # test_videodatainfo.json: there is nothing else
        (("train", "validate", "train"), "train", [0, 2]),
        (("train", "validate", "train"), "test", [1]),
        (("train", "validate", "test"), "test", [2]),
    ],
)
def test_msrvtt_json(tmp_path, splits, asked, expected):
    touch(tmp_path, "video0.mp4", "video1.mp4", "video2.mkv")
    path = write(tmp_path, json.dumps(msrvtt(*splits)), "videodatainfo.json")
    videos = read_list(path, dataset="msrvtt", split=asked, need_captions=True)
    # All 20 captions of a video are queries of the full test set, repeated ones, too.
    assert [video.captions for video in videos] == [(f"first of {i}", "both", "both")
                                                    for i in expected]  # fmt: skip
    names = ("video0.mp4", "video1.mp4", "video2.mkv")
    assert [name for name, _ in captions(videos)] == [names[i] for i in expected]
    assert len(videos.notices) == (len(set(splits)) > 1)


def test_vatex_json(tmp_path):
    touch(tmp_path, "v/--07WQ2iBlw_000001_000011.mp4", "v/G9zN5TTuGO4_000179_000189.mkv")
    entries = [
        {"videoID": "G9zN5TTuGO4_000179_000189", "enCap": ["a man", "he"], "chCap": ["一个人"]},
        {"videoID": "--07WQ2iBlw_000001_000011", "enCap": ["a rock"]},
    ]
    path = write(tmp_path, json.dumps(entries), "vatex_validation_v1.0.json")
    videos = read_list(path, tmp_path / "v", "vatex", need_captions=True)
    assert captions(videos) == [
        ("G9zN5TTuGO4_000179_000189.mkv", ("a man", "he")),
        ("--07WQ2iBlw_000001_000011.mp4", ("a rock",)),
    ]
    del entries[1]["enCap"]  # as in the private test set
    path = write(tmp_path, json.dumps(entries), "vatex_private_test_without_annotations.json")
    assert read_list(path, tmp_path / "v")[1].captions == ()
    with pytest.raises(UserError, match=r"_000011: --07WQ\S*\.mp4 has no caption"):
        read_list(path, tmp_path / "v", need_captions=True)


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


@pytest.mark.parametrize(
    "content",
    [
        *({"a": 1}, {"a": {"caption": "x"}}, {"sentences": []}, [1, 2], ["videoID"], "text", 3),
        *([{"name": "x"}], [{"videoID": "x", "enCap": "a text"}], {"videos": [], "sentences": [1]}),
    ],
)
def test_other_json_is_refused(tmp_path, content):
    with pytest.raises(UserError, match=r"is none of the json lists: .*MSR-VTT.*SSv2 .*VATEX") as e:
        read_list(write(tmp_path, json.dumps(content), "l.json"))
    assert "\n" not in str(e.value)


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


def test_manifest_with_captions(folder):
    lines = [
        {"manifest": 1, "classes": None},
        {"path": "a.mp4", "label": 1, "frames": 30, "verdict": "ok", "captions": ["x", "x", "y"]},
        {"path": "b.mp4", "label": 0, "frames": 9, "verdict": "trim:9", "captions": ["z"]},
    ]
    path = write(folder, "\n".join(map(json.dumps, lines)), "list.manifest.jsonl")
    videos = read_list(path, need_captions=True)
    assert videos[0] == Video(str(folder / "a.mp4"), 1, 30, "ok", ("x", "x", "y"))
    assert videos[1] == Video(str(folder / "b.mp4"), 0, 9, "trim:9", ("z",))


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


def test_unknown_class_suggests_the_near_name(folder):
    names = write(folder, "surfing\nabseiling\n", "names.txt")
    with pytest.raises(
        UserError, match="line 1: class 'surfin' is unknown; did you mean 'surfing'"
    ):
        read_list(write(folder, "a.mp4,surfin\n"), classes=names)
    write(folder, "surfing\nsurfing\n", "names.txt")
    with pytest.raises(UserError, match="names 'surfing' twice"):
        read_list(write(folder, "a.mp4,surfing\n"), classes=names)


def test_lines_that_are_not_utf8_are_named(folder):
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        read_list(write(folder, b"a.mp4 0\ncaf\xe9.mp4 1\n"))


def test_missing_lists(tmp_path):
    with pytest.raises(UserError, match=r"list file .*nowhere\.csv does not exist"):
        read_list(tmp_path / "nowhere.csv")
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4 is a video; give a list file"):
        read_list(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="is not JSON"):
        read_list(write(tmp_path, "{", "train.json"))


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
