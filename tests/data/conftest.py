"""Videos of every troublesome kind, encoded on the fly. Frame i is recognisable: see `number_of`."""

import os
import pathlib
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

FRAMES = 40


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth frame whose mean brightness is 20 + 5 * number, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    wave = 12 * np.sin(2 * np.pi * (x / width + number / 10)) * np.sin(2 * np.pi * y / height)
    return (20 + 5 * number + wave)[..., None].repeat(3, 2).round().astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Which frame `picture` made this."""
    return round((float(frame.mean()) - 20) / 5)


def write_video(
    path,
    frames: int = FRAMES,
    *,
    codec: str = "libx264",
    height: int = 48,
    width: int = 64,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer_options: dict[str, str] | None = None,
) -> str:
    """Encodes `frames` pictures at 10 fps; the container is by the file's name."""
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return str(path)


def cut_by_stream_copy(source: str, path, start: float) -> str:
    """What `ffmpeg -ss start -c copy` does: packets from the keyframe before, hidden by an edit."""
    with av.open(source) as reader, av.open(str(path), "w") as writer:
        old = reader.streams.video[0]
        new = writer.add_stream_from_template(old)
        shift = int(start / old.time_base)
        for packet in reader.demux(old):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, new
                writer.mux(packet)
    return str(path)


def rotate_header(source: str, path) -> str:
    """Writes a 90 degree turn into the MP4's track header."""
    data = bytearray(pathlib.Path(source).read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    turn = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = turn
    pathlib.Path(path).write_bytes(data)
    return str(path)


def write_audio(path) -> str:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for i in range(16):
            sound = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 1024 * i, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> dict[str, str]:
    """Paths by kind, made once."""
    folder = tmp_path_factory.mktemp("clips")
    gop = {"g": "12", "bf": "2"}
    made = {
        "good": write_video(folder / "good.mp4", options=gop),
        "mkv": write_video(folder / "good.mkv", options=gop),
        "vp8": write_video(folder / "vp8.webm", codec="libvpx", options={"g": "12"}),
        "one frame": write_video(folder / "one.mp4", 1),
        "odd size": write_video(folder / "odd.mp4", codec="mpeg4", height=49, width=67),
        "10 bit": write_video(folder / "ten.mp4", pix_fmt="yuv420p10le", options=gop),
        "avi": write_video(folder / "b.avi", codec="mpeg4", options={"bf": "2", "g": "12"}),
        "ts": write_video(folder / "stream.ts", options=gop),
        "open gop": write_video(
            folder / "open.mp4",
            options={"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3"},
        ),
        "audio": write_audio(folder / "audio.mp4"),
    }
    made["edit list"] = cut_by_stream_copy(made["good"], folder / "cut.mp4", 0.8)
    made["rotated"] = rotate_header(made["good"], folder / "rotated.mp4")
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
    made["text"] = str(folder / "text.mp4")
    pathlib.Path(made["text"]).write_text("not a video\n" * 50)
    made["empty"] = str(folder / "empty.mp4")
    pathlib.Path(made["empty"]).touch()
    made["missing"] = str(folder / "missing.mp4")
    assert not os.path.exists(made["missing"])
    return made
