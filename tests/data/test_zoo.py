"""One file has one answer: a zoo of encodings, through everything that reads videos.

That is the check and the loader with its manifest, the loader without one, `read_video`, prediction
(`prepare`), embedding (`windows`) and packing. `KINDS` are as many as PyAV can encode.
"""

import pathlib
import shutil

import cv2
import numpy as np
import pytest

from tests.support.videos import FRAMES, number_of, picture, set_matrix, write_video
from vidjax import data
from vidjax.data import check, lists, pack, windows
from vidjax.data.datasets import Video
from vidjax.data.frames.clips import prepare
from vidjax.data.reading import decord_reader, video
from vidjax.preprocessing import Preprocessing

GOP = {"g": "12", "bf": "2"}
RATE = {"b": "3000000"}  # the default is too low to tell frames apart
X265 = {"x265-params": "keyint=12:log-level=none"}
VP9 = {"g": "12", "cpu-used": "8"} | RATE
AV1 = {"preset": "11", "g": "12", "crf": "20"}

KINDS = {
    "h264.mp4": {"options": GOP},
    "h264 faststart.mp4": {"options": GOP, "muxer_options": {"movflags": "faststart"}},
    "h264 fragments.mp4": {
        "options": GOP,
        "muxer_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264 444.mp4": {"pix_fmt": "yuv444p", "options": GOP},
    "h264 422 10 bit.mp4": {"pix_fmt": "yuv422p10le", "options": GOP},
    "h264 rgb.mp4": {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": GOP},
    "h264 full range.mp4": {"pix_fmt": "yuvj420p", "options": GOP},
    "h264 open gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=10:bframes=3:b-adapt=0"}},
    "h264 refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}},
    "h264 pyramid.mkv": {"options": {"x264-params": "keyint=24:bframes=5:b-pyramid=normal:ref=4"}},
    "h264 interlaced.mp4": {"height": 64, "options": {"x264-params": "interlaced=1:keyint=12"}},
    "h264 odd.mp4": {"pix_fmt": "yuv444p", "height": 49, "width": 67, "options": GOP},
    "h264 latency.mp4": {"options": {"tune": "zerolatency", "g": "12"}},
    "h264.avi": {"options": GOP},
    "h264.ts": {"options": GOP},
    "h264.m2ts": {"options": GOP},
    "h264.flv": {"options": GOP},
    "h264.nut": {"options": GOP},
    "h264.h264": {"options": GOP},
    "hevc.mp4": {"codec": "libx265", "height": 64, "options": X265},
    "hevc 10 bit.mkv": {
        "codec": "libx265",
        "height": 64,
        "pix_fmt": "yuv420p10le",
        "options": X265,
    },
    "hevc.ts": {"codec": "libx265", "height": 64, "options": X265},
    "hevc.hevc": {"codec": "libx265", "height": 64, "options": X265},
    "av1.mp4": {"codec": "libsvtav1", "height": 64, "options": AV1},
    "av1.webm": {"codec": "libsvtav1", "height": 64, "options": AV1},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12"} | RATE},
    "vp8 hidden frames.webm": {
        "codec": "libvpx",
        "options": {"g": "24", "auto-alt-ref": "1", "lag-in-frames": "10", "arnr-maxframes": "5"},
    },
    "vp8.ivf": {"codec": "libvpx", "options": {"g": "12"} | RATE},
    "vp8.ogv": {"codec": "libvpx", "muxer": "ogg", "options": {"g": "12"} | RATE},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "vp9 odd.webm": {"codec": "libvpx-vp9", "height": 49, "width": 67, "options": VP9},
    "vp9 alpha.webm": {
        "codec": "libvpx-vp9",
        "pix_fmt": "yuva420p",
        "options": VP9 | {"auto-alt-ref": "0"},
    },
    "vp9.mp4": {"codec": "libvpx-vp9", "options": VP9},
    "mpeg4.mp4": {"codec": "mpeg4", "options": GOP | RATE},
    "mpeg4.3gp": {"codec": "mpeg4", "options": RATE},
    "mpeg4.avi": {"codec": "mpeg4", "options": RATE},
    "mpeg4 b frames.avi": {"codec": "mpeg4", "options": GOP | RATE},
    "msmpeg4.avi": {"codec": "msmpeg4", "options": RATE},
    "h263.3gp": {"codec": "h263", "height": 144, "width": 176, "options": RATE},
    "mpeg1.mpg": {"codec": "mpeg1video", "rate": 25, "options": GOP | RATE},
    "mpeg2.mpg": {"codec": "mpeg2video", "rate": 25, "options": GOP | RATE},
    "mpeg2.vob": {"codec": "mpeg2video", "rate": 25, "options": GOP | RATE},
    "mpeg2.ts": {"codec": "mpeg2video", "rate": 25, "options": GOP | RATE},
    "mpeg2.mkv": {"codec": "mpeg2video", "rate": 25, "options": GOP | RATE},
    "mpeg2.mxf": {"codec": "mpeg2video", "rate": 25, "options": GOP | RATE},
    "sorenson.flv": {"codec": "flv", "options": RATE},
    "flashsv.flv": {"codec": "flashsv", "pix_fmt": "bgr24"},
    "wmv1.asf": {"codec": "wmv1", "options": RATE},
    "wmv2.wmv": {"codec": "wmv2", "options": RATE},
    "rv20.rm": {"codec": "rv20", "height": 96, "width": 128, "options": RATE},
    "svq1.mov": {"codec": "svq1", "pix_fmt": "yuv410p", "options": RATE},
    "snow.avi": {"codec": "snow", "options": RATE | {"strict": "-2"}},
    "colours.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "grey.gif": {"codec": "gif", "pix_fmt": "gray"},
    "apng.apng": {"codec": "apng", "pix_fmt": "rgb24"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": RATE},
    "mjpeg 422.mov": {"codec": "mjpeg", "pix_fmt": "yuvj422p", "options": RATE},
    "mjpeg 444.mkv": {"codec": "mjpeg", "pix_fmt": "yuvj444p", "options": RATE},
    "mjpeg.mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": RATE},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "prores 4444.mov": {
        "codec": "prores_ks",
        "pix_fmt": "yuva444p10le",
        "options": {"profile": "4444"},
    },
    "cfhd.mov": {"codec": "cfhd", "pix_fmt": "yuv422p10le", "height": 64, "width": 96},
    "dnxhr.mov": {
        "codec": "dnxhd",
        "pix_fmt": "yuv422p",
        "height": 256,
        "width": 448,
        "options": {"profile": "dnxhr_sq"},
    },
    "dv.avi": {"codec": "dvvideo", "height": 576, "width": 720, "rate": 25},
    "png.mov": {"codec": "png", "pix_fmt": "rgb24"},
    "qtrle.mov": {"codec": "qtrle", "pix_fmt": "rgb24"},
    "huffyuv.avi": {"codec": "huffyuv", "pix_fmt": "yuv422p"},
    "utvideo.avi": {"codec": "utvideo", "pix_fmt": "gbrp"},
    "magicyuv.avi": {"codec": "magicyuv", "pix_fmt": "gbrp"},
    "cinepak.avi": {"codec": "cinepak", "pix_fmt": "rgb24"},
    "zmbv.avi": {"codec": "zmbv", "pix_fmt": "bgr0"},
    "raw.avi": {"codec": "rawvideo", "pix_fmt": "bgr24"},
    "raw.mkv": {"codec": "rawvideo"},
    "raw.y4m": {"codec": "wrapped_avframe"},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
}
# Seeking is not right in these, or there is nothing to seek by.
IN_ORDER = ("h264 refresh.mp4", "h264.h264", "hevc.hevc", "mpeg1.mpg", "mpeg2.mpg", "mpeg2.vob")


def cut_off(path, source: str, share: float) -> str:
    """The first part of a file."""
    content = pathlib.Path(source).read_bytes()
    pathlib.Path(path).write_bytes(content[: int(len(content) * share)])
    return str(path)


def remux(path, sources, *, skip: int = 0, times=None) -> str:
    """The packets of files one after the other, without the first; times by their numbers."""
    import av

    with av.open(str(path), "w") as writer:
        track, number, start = None, 0, 0
        for source in sources:
            with av.open(source) as reader:
                stream = reader.streams.video[0]
                track = track or writer.add_stream_from_template(stream)
                for packet in reader.demux(stream):
                    if packet.size and number >= skip:
                        moved = packet.pts + start if times is None else times(number)
                        packet.dts = packet.dts if packet.dts is None else packet.dts + start
                        packet.dts = moved if times is not None else packet.dts
                        packet.pts, packet.stream = moved, track
                        writer.mux(packet)
                    number += packet.size > 0
                start = number * 100
    return str(path)


def odd_files(folder: pathlib.Path) -> dict[str, tuple[str, list[int]]]:
    """Files that are not whole, or change on the way: path, and the numbers of their frames."""
    whole = list(range(FRAMES))
    gops = {"x264-params": "keyint=12:scenecut=0:bframes=2"}
    h264 = write_video(folder / "source.mp4", options=gops)
    front = write_video(folder / "front.mp4", options=gops, muxer_options={"movflags": "faststart"})
    vp8 = write_video(folder / "source.webm", codec="libvpx", options={"g": "12"} | RATE)
    large = {"codec": "libvpx", "options": {"g": "12"} | RATE, "height": 96, "width": 128}
    large = write_video(folder / "large.webm", **large)
    ts = write_video(folder / "source.ts", options=gops)
    avi = write_video(folder / "source.avi", codec="mpeg4", options=GOP | RATE)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in whole:
        cv2.imwrite(str(pictures / f"img_{number + 1:05d}.png"), picture(number)[:, :, ::-1])
    return {
        "mirrored": (set_matrix(h264, folder / "mirrored.mp4", -1, 0, 0, 1), whole),
        "turned": (set_matrix(h264, folder / "turned.mp4", 0, 1, -1, 0), whole),
        "cut off.mp4": (cut_off(folder / "cut.mp4", front, 0.6), []),
        "cut off.webm": (cut_off(folder / "cut.webm", vp8, 0.6), []),
        "cut off.ts": (cut_off(folder / "cut.ts", ts, 0.6), []),
        "cut off.avi": (cut_off(folder / "cut.avi", avi, 0.6), []),
        "repeated times.webm": (
            remux(folder / "repeated.webm", [vp8], times=lambda n: n * n // 12 * 33),
            whole,
        ),
        "without keyframe.mkv": (remux(folder / "headless.mkv", [h264], skip=5), whole[12:]),
        "size changes.webm": (remux(folder / "sizes.webm", [vp8, large]), [*whole, *whole]),
        "pictures": (str(pictures), whole),
        "12:30:05.mp4": (str(shutil.copy(h264, folder / "12:30:05.mp4")), whole),
    }


FACTS = Preprocessing(frames=4, stride=2, size=32, short_side=40)
ODD = (
    "mirrored",
    "turned",
    "cut off.mp4",
    "cut off.webm",
    "cut off.ts",
    "cut off.avi",
    "repeated times.webm",
    "without keyframe.mkv",
    "size changes.webm",
    "pictures",
    "12:30:05.mp4",
)


class Zoo:
    """The files, and what all that takes lists makes of them in one go."""

    def __init__(self, folder: pathlib.Path):
        odd = odd_files(folder)
        assert {*odd} == {*ODD}
        self.numbers = {kind: list(range(FRAMES)) for kind in KINDS}
        self.paths = {kind: write_video(folder / kind, **how) for kind, how in KINDS.items()}
        for kind, (path, numbers) in odd.items():
            self.paths[kind], self.numbers[kind] = path, numbers
        listed = folder / "list.csv"
        listed.write_text("".join(f'"{path}",0\n' for path in self.paths.values()))
        self.manifest = self._by_kind(lists.read_list(check.check(listed, workers=2)))
        self.unchecked = self._clips(lists.read_list(listed))
        self.checked = self._clips(list(self.manifest.values()))
        packed = pack.pack(listed, folder / "packed", short_side=40, workers=2, check=False)
        self.packed = dict(zip(self.paths, lists.read_list(packed), strict=True))

    def _by_kind(self, items) -> dict[str, Video]:
        kinds = {path: kind for kind, path in self.paths.items()}
        return {kinds[item.path]: item for item in items}

    def _clips(self, items) -> dict[str, np.ndarray]:
        loader = data.eval_loader(items, FACTS, batch_size=len(items), workers=0)
        (batch,) = loader
        assert batch["weight"].all()
        return dict(zip(self._by_kind(items), batch["video"], strict=True))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("kind", [*KINDS, *ODD])
def test_one_file_has_one_answer(zoo, kind):
    path, item = zoo.paths[kind], zoo.manifest[kind]
    frames, count = video.read_frames(path, np.arange)
    numbers = [number_of(frame) for frame in frames]
    # the check, and what reads by its manifest
    assert item.num_frames == count
    known = {"verdict": item.verdict, "num_frames": item.num_frames}
    assert np.array_equal(video.read_frames(path, np.arange, **known)[0], frames)
    # in any order, and each frame alone, as far as the check says that this is cheap
    for index in (count - 1, count // 2, 0, count // 3):
        alone, _ = video.read_frames(path, lambda n, i=index: np.array([i]), **known)
        unchecked, _ = video.read_frames(path, lambda n, i=index: np.array([i]))
        assert np.array_equal(alone[0], frames[index])
        assert np.array_equal(unchecked[0], frames[index])
    if decord_reader.is_installed():
        assert np.array_equal(video.read_frames(path, np.arange, reader="decord")[0], frames)
    assert np.array_equal(video.read_video(path, None, 1), frames)
    # prediction and both loaders
    clip = prepare(path, FACTS)[0]
    assert np.array_equal(zoo.unchecked[kind], clip) and np.array_equal(zoo.checked[kind], clip)
    assert np.array_equal(clip, prepare(frames, FACTS)[0])
    # embedding
    *clips, spans = windows.read(Video(path), windows.Windows(FACTS))
    *checked, spans_of_checked = windows.read(item, windows.Windows(FACTS))
    assert str(spans) == str(spans_of_checked)  # where there are no times, they are nan
    assert np.array_equal(clips, checked)
    for made, (start, end, *_) in zip(clips, spans, strict=True):
        assert np.array_equal(made, prepare(frames[start:end], FACTS)[0])
    # packing
    packed, _ = video.read_frames(zoo.packed[kind].path, np.arange)
    assert abs(packed.mean((1, 2)) - frames.mean((1, 2))).max() < 4  # a number makes 5
    # and the right one
    if zoo.numbers[kind]:
        assert numbers == zoo.numbers[kind]
    else:
        assert 5 < count < FRAMES and numbers[: count - 3] == list(range(count - 3))


def test_only_what_has_to_be_is_read_in_order(zoo):
    verdicts = {kind: zoo.manifest[kind].verdict for kind in KINDS}
    assert {kind for kind, verdict in verdicts.items() if verdict != "ok"} == {*IN_ORDER}
    assert zoo.manifest["cut off.mp4"].verdict.startswith("trim:")
    assert zoo.manifest["without keyframe.mkv"].verdict == f"trim:{FRAMES - 12}"
