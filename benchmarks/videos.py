"""Video files that benchmarks read: made here, or a folder of the user's."""

import math
import pathlib

import av
import cv2
import numpy as np

from vidjax.data import check
from vidjax.errors import UserError, VideoError

_SPAN = 64  # frames that a clip of 16, 4 apart, reaches over
Files = list[tuple[str, int]]  # path and number of frames


def make_videos(
    folder: pathlib.Path, keyframes: int, *, count: int, frames: int, height: int, width: int
) -> Files:
    """Makes H.264 files like those of Kinetics, with a keyframe every so many frames."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        sheet = rng.integers(0, 256, (height + 64, width + frames, 3), np.uint8)
        sheet = cv2.normalize(cv2.GaussianBlur(sheet, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
        path = folder / f"{keyframes}_{number}.mp4"
        with av.open(str(path), "w") as container:
            options = {"g": str(keyframes), "crf": "23", "threads": "1"}
            stream = container.add_stream("libx264", rate=30, options=options)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for time in range(frames):
                top = round(32 + 30 * math.sin(time / 20))
                picture = sheet[top : top + height, time : time + width].copy()
                centre = (width // 2 + round(width / 3 * math.sin(time / 9)), height // 2)
                cv2.circle(picture, centre, height // 6, (250, 40, 40), -1)
                noise = rng.integers(-4, 5, picture.shape, np.int16)
                picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
                image = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
        made.append((str(path), frames))
    return made


def find_videos(folder: str) -> Files:
    """Returns the files of a folder that pass the check and are long enough for a clip.

    Raises:
        UserError: there is none.
    """
    paths = sorted(str(path) for path in pathlib.Path(folder).iterdir() if path.is_file())
    found = []
    for index, verdict in check.killable_map(check.inspect, paths, 2, 60.0):
        usable = not isinstance(verdict, VideoError) and verdict["verdict"] == "ok"
        if usable and verdict["frames"] > _SPAN:
            found.append((paths[index], verdict["frames"]))
    if not found:
        raise UserError(f"--peer=clips={folder} holds no video that passes the check")
    return sorted(found)
