"""Folders of pictures as videos: their order, their size, and folders that are none."""

import os

import cv2
import numpy as np
import pytest

from tests.support.videos import numbers, picture
from vidjax.data.reading import frame_folders
from vidjax.data.reading.video import read_frames, read_video
from vidjax.errors import VideoError


def write_folder(folder, names, size=(48, 64)):
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), picture(number, *size)[:, :, ::-1])
    return folder


def test_a_folder_of_pictures_is_a_video(tmp_path):
    names = [f"img_{i:05d}.png" for i in range(1, 13)]
    folder = write_folder(tmp_path / "v", names)
    cv2.imwrite(str(folder / "flow_x_00001.png"), picture(30))
    (folder / "._img_00001.png").write_bytes(b"\0")
    frames, n = read_frames(folder, lambda n: np.array([11, 0, 3]))
    assert (numbers(frames), n) == ([11, 0, 3], 12)
    assert np.array_equal(frames[1], picture(0))  # red stays red
    assert numbers(read_video(folder, None, 4)) == [0, 4, 8]


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "2.jpg", "10.jpg"],
        ["frame-1.JPG", "frame-2.JPG", "frame-10.JPG"],
        ["000001.jpeg", "000002.jpeg", "000010.jpeg"],
        ["my clip 3 1.bmp", "my clip 3 2.bmp", "my clip 3 10.bmp"],
    ],
)
def test_pictures_are_in_the_order_of_their_numbers(tmp_path, names):
    folder = write_folder(tmp_path / "v", names)
    assert [os.path.basename(path) for path in frame_folders.frames_of(folder)] == names
    assert numbers(read_frames(folder, np.arange)[0]) == [0, 1, 2]


def test_pictures_of_another_size_are_scaled_to_the_first(tmp_path):
    folder = write_folder(tmp_path / "v", ["1.png", "2.png"])
    cv2.imwrite(str(folder / "3.png"), picture(2, 96, 128)[:, :, ::-1])
    frames, _ = read_frames(folder, lambda n: np.array([2]))
    assert frames.shape[1:] == (48, 64, 3) and numbers(frames) == [2]


def test_folders_that_are_no_videos_say_so(tmp_path):
    with pytest.raises(VideoError, match=r"a folder without numbered pictures such as img_0"):
        read_frames(tmp_path, np.arange)
    folder = write_folder(tmp_path / "v", ["1.png", "2.png"])
    (folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"2\.png cannot be read as a picture"):
        read_frames(folder, np.arange)
