"""The `clips` fixture: one video of every troublesome kind."""

import os
import pathlib

import pytest

from tests.support.videos import (
    cut_by_stream_copy,
    rotate_header,
    set_matrix,
    write_audio,
    write_video,
)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> dict[str, str]:
    """Paths by kind, made once."""
    folder = tmp_path_factory.mktemp("clips")
    gop = {"g": "12", "bf": "2"}
    rate = {"b": "2000000"}  # the default is too low to tell frames apart
    made = {
        "good": write_video(folder / "good.mp4", options=gop),
        "mkv": write_video(folder / "good.mkv", options=gop),
        "vp8": write_video(folder / "vp8.webm", codec="libvpx", options={"g": "12"}),
        "one frame": write_video(folder / "one.mp4", 1),
        "av1": write_video(folder / "av1.mp4", 12, codec="libsvtav1", options={"preset": "12"}),
        "odd size": write_video(
            folder / "odd.mp4", codec="mpeg4", height=49, width=67, options=rate
        ),
        "10 bit": write_video(folder / "ten.mp4", pix_fmt="yuv420p10le", options=gop),
        "avi": write_video(folder / "b.avi", codec="mpeg4", options=rate | gop),
        "ts": write_video(folder / "stream.ts", options=gop),
        "open gop": write_video(
            folder / "open.mp4",
            options={"x264-params": "open-gop=1:keyint=10:scenecut=0:bframes=3:b-adapt=0"},
        ),
        "audio": write_audio(folder / "audio.mp4"),
    }
    made["edit list"] = cut_by_stream_copy(made["good"], folder / "cut.mp4", 0.8)
    wide = write_video(folder / "wide.mp4", width=96, height=64, options=gop)
    made["rotated"] = rotate_header(wide, folder / "rotated.mp4")
    # decord fails on rotated pictures whose rows are not a multiple of its alignment.
    made["rotated, narrow"] = rotate_header(made["good"], folder / "narrow.mp4")
    made["mirrored"] = set_matrix(made["good"], folder / "mirrored.mp4", -1, 0, 0, 1)
    made["ts as mp4"] = str(folder / "stream.mp4")
    pathlib.Path(made["ts as mp4"]).write_bytes(pathlib.Path(made["ts"]).read_bytes())
    front = write_video(folder / "front.mp4", muxer_options={"movflags": "faststart"})
    for name, source in (("truncated", made["good"]), ("truncated, index first", front)):
        made[name] = str(folder / f"{name}.mp4")
        data = pathlib.Path(source).read_bytes()
        pathlib.Path(made[name]).write_bytes(data[: len(data) * 2 // 3])
    damaged = bytearray(pathlib.Path(front).read_bytes())
    middle = len(damaged) * 3 // 4
    damaged[middle : middle + 300] = b"\xff" * 300
    made["damaged"] = str(folder / "damaged.mp4")
    pathlib.Path(made["damaged"]).write_bytes(damaged)
    large = pathlib.Path(write_video(folder / "large.ts", width=96, height=64))
    made["size changes"] = str(folder / "changes.ts")
    parts = pathlib.Path(made["ts"]).read_bytes() + large.read_bytes()
    pathlib.Path(made["size changes"]).write_bytes(parts)
    # A broadcast from the middle on: the first 12 pictures of it have no keyframe before them.
    made["mid-gop"] = str(folder / "middle.ts")
    stream = pathlib.Path(made["ts"]).read_bytes()
    pathlib.Path(made["mid-gop"]).write_bytes(stream[len(stream) * 35 // 100 // 188 * 188 :])
    made["text"] = str(folder / "text.mp4")
    pathlib.Path(made["text"]).write_text("not a video\n" * 50)
    made["empty"] = str(folder / "empty.mp4")
    pathlib.Path(made["empty"]).touch()
    made["no frames"] = write_video(
        folder / "none.mp4", 0, muxer_options={"movflags": "empty_moov"}
    )
    made["missing"] = str(folder / "missing.mp4")
    assert not os.path.exists(made["missing"])
    return made
