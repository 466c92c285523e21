"""Videos of every troublesome kind, encoded on the fly; `number_of` tells which frame one is."""

import pathlib
import struct
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

FRAMES = 40


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth frame whose mean brightness is 20 + 5 * number, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    wave = 12 * np.sin(2 * np.pi * (x / width + number / 10)) * np.sin(2 * np.pi * y / height)
    tint = np.stack([10 * (x / width - 0.5), 10 * (y / height - 0.5), -wave], -1)
    return (20 + 5 * number + wave[..., None] + tint).round().astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Returns the number of the frame that `picture` made."""
    return round((float(frame.mean()) - 20) / 5)


def numbers(frames: np.ndarray) -> list[int]:
    """Returns the numbers of frames that `picture` made."""
    return [number_of(frame) for frame in frames]


def write_video(path, frames: int = FRAMES, **how) -> str:
    """Encodes `frames` pictures; see write_pictures."""
    return write_pictures(path, range(frames), **how)


def write_pictures(
    path,
    numbers: Iterable[int],
    *,
    codec: str = "libx264",
    height: int = 48,
    width: int = 64,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer_options: dict[str, str] | None = None,
    muxer: str | None = None,
    rate: int = 10,
) -> str:
    """Encodes the pictures of these numbers; without `muxer` the container is by the name."""
    with av.open(str(path), "w", options=muxer_options or {}, format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        container.start_encoding()
        for number in numbers:
            image = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return str(path)


def cut_by_stream_copy(source: str, path, start: float) -> str:
    """Cuts as `ffmpeg -ss start -c copy`: packets from the keyframe before, hidden by an edit."""
    with av.open(source) as reader, av.open(str(path), "w") as writer:
        old = reader.streams.video[0]
        new = writer.add_stream_from_template(old)
        shift = int(start / old.time_base)
        for packet in reader.demux(old):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, new
                writer.mux(packet)
    return str(path)


def set_matrix(source: str, path, *numbers: float) -> str:
    """Writes the display matrix (a, b, c, d) into an MP4: x' = ax + cy, y' = bx + dy."""
    data = bytearray(pathlib.Path(source).read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(number * (1 << 16)) for number in numbers)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    pathlib.Path(path).write_bytes(data)
    return str(path)


def rotate_header(source: str, path) -> str:
    """Writes a 90 degree turn into the MP4's track header."""
    return set_matrix(source, path, 0, 1, -1, 0)


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
