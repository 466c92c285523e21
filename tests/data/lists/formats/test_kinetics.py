"""The official csv of Kinetics."""

import os

import pytest

from tests.support.lists import read, touch, write
from vidjax.data.lists import read_list


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
