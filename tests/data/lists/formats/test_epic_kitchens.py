"""EPIC-Kitchens' csv."""

import pytest

from tests.support.lists import EPIC, EPIC_HEADER, EPIC_ROWS, pairs, read, touch, write
from vidjax.data.lists import read_list
from vidjax.errors import UserError


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


def test_epic_kitchens_with_floats(made):
    text = "narration_id,participant_id,verb_class,noun_class\nP01_1,P01,3.0,4.0\nP01_2,P01,,\n"
    path = made(("P01/P01_1.mp4", "P01/P01_2.webm"), "train.csv", text)
    videos = [("P01/P01_1.mp4", (4, 3)), ("P01/P01_2.webm", -1)]
    assert read(path, dataset="epic_kitchens") == (videos, None, [])
