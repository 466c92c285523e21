"""Frames that come back, the reader that they are from, and what bad files say."""

import gc
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import vidjax
from tests.support.videos import FRAMES, number_of, numbers, picture, set_matrix, write_video
from vidjax.data.reading import decord_reader, pyav, watchdog
from vidjax.data.reading.video import read_frames, read_video
from vidjax.errors import UserError, VideoError

ANY_ORDER = [7, 33, 2, 33, 39, 0, 20]

READERS = ("pyav", "decord") if decord_reader.is_installed() else ("pyav",)
needs_decord = pytest.mark.skipif(not decord_reader.is_installed(), reason="needs decord")


def seek(path: str, indices: list[int]) -> list[np.ndarray] | None:
    return pyav.read_at(path, pyav.index_of(path), indices, lambda picture: picture)


@pytest.mark.parametrize("kind", ["good", "mkv", "vp8", "odd size", "avi", "ts", "rotated"])
@pytest.mark.parametrize("verdict", [None, "sequential"])
def test_frames_are_the_asked_ones_in_any_order(clips, kind, verdict):
    frames, n = read_frames(clips[kind], lambda n: np.array(ANY_ORDER), verdict=verdict)
    assert n == FRAMES
    assert frames.dtype == np.uint8
    assert numbers(frames) == ANY_ORDER


@pytest.mark.parametrize("kind", ["good", "mkv", "open gop", "edit list", "avi", "vp8"])
def test_seeking_is_right_for_every_single_frame(clips, kind):
    reference, count = read_frames(clips[kind], np.arange, verdict="sequential")
    assert count == len(reference) == pyav.index_of(clips[kind]).count
    for index in range(count):
        (frame,) = seek(clips[kind], [index])
        assert np.array_equal(frame, reference[index])


def test_seeking_decodes_from_the_keyframe_only(clips, monkeypatch):
    monkeypatch.setattr(pyav, "in_order", lambda *a: pytest.fail("decoded in order"))
    kept = []
    read_frames(clips["good"], lambda n: np.array([5, 30, 31]), each=lambda p: kept.append(1) or p)
    assert len(kept) == 3


@pytest.mark.parametrize(
    ("wanted", "runs"),  # keyframes are 0, 12, 24, 36
    [([7, 13], [[7, 13]]), ([2, 13], [[2], [13]]), ([7, 10, 20, 25], [[7, 10, 20, 25]])],
)
def test_seeking_goes_on_over_a_near_keyframe(tmp_path, wanted, runs, monkeypatch):
    options = {"g": "12", "bf": "2", "sc_threshold": "0"}
    path = write_video(tmp_path / "a.mp4", options=options)
    found, frames_at = [], pyav._frames_at
    times = pyav.index_of(path).times

    def spy(container, stream, keyframe, targets):
        found.append([times.index(time) for time in targets])
        return frames_at(container, stream, keyframe, targets)

    monkeypatch.setattr(pyav, "_frames_at", spy)
    assert numbers(seek(path, wanted)) == wanted
    assert found == runs


@pytest.mark.parametrize(("codec", "skipped"), [("h264", {1, 2, 4}), ("hevc", set())])
def test_only_h264_skips_frames_that_nobody_needs(codec, skipped):
    """Whether a frame is needed by others is the decoder's to know; that it is wanted is ours."""
    decoder, asked = SimpleNamespace(name=codec, skip_frame="DEFAULT"), {}

    class Packet(SimpleNamespace):
        size = 1

        def decode(self):
            asked[self.pts] = decoder.skip_frame
            return [SimpleNamespace(pts=self.pts, is_corrupt=False)] if self.pts != 2 else []

    container = SimpleNamespace(demux=lambda stream: [Packet(pts=i) for i in (1, 3, 2, 4, 5)])
    stream = SimpleNamespace(codec_context=decoder)
    assert [time for time, _ in pyav._frames_at(container, stream, 1, [3, 5])] == [3, 5]
    assert {pts for pts, skip in asked.items() if skip == "NONREF"} == skipped
    assert {pts for pts, skip in asked.items() if skip == "DEFAULT"} == set(range(1, 6)) - skipped


def test_frames_in_order_and_once_are_not_copied_again(clips, monkeypatch):
    made, stack = [], np.stack
    monkeypatch.setattr(np, "stack", lambda *a: made.append(stack(*a)) or made[-1])
    frames, _ = read_frames(clips["good"], lambda n: np.array([3, 5, 9]))
    assert frames.base is None and all(frames is one for one in made)
    assert numbers(frames) == [3, 5, 9]
    repeated, _ = read_frames(clips["good"], lambda n: np.array([3, 3, 9]))
    assert numbers(repeated) == [3, 3, 9]
    turned, _ = read_frames(clips["good"], lambda n: np.array([9, 5, 3]))
    assert numbers(turned) == [9, 5, 3]


def test_what_is_kept_of_a_picture_may_be_small(clips):
    frames, n = read_frames(clips["good"], lambda n: np.array([9, 3, 9]), each=number_of)
    assert (frames.tolist(), n) == ([9, 3, 9], FRAMES)


def test_an_edit_list_hides_frames(clips):
    frames, n = read_frames(clips["edit list"], np.arange)
    assert n == FRAMES - 8
    assert numbers(frames) == list(range(8, FRAMES))


def with_packet(source, path, place: int, make) -> str:
    """A copy of a file with another packet before the one at `place`."""
    import av

    with av.open(source) as reader, av.open(str(path), "w") as writer:
        old = reader.streams.video[0]
        new = writer.add_stream_from_template(old)
        for number, packet in enumerate(p for p in reader.demux(old) if p.size):
            if number == place:
                more = av.Packet(make(bytes(packet)))
                more.pts, more.dts, more.time_base = packet.pts - 3, packet.dts - 3, old.time_base
                more.is_keyframe, more.stream = packet.is_keyframe, new
                writer.mux(more)
            packet.stream = new
            writer.mux(packet)
    return str(path)


def test_packets_without_a_frame_are_not_counted(clips, tmp_path):
    # VP8: a keyframe that is decoded and not shown, before the same one. Two-pass encoders hide
    # frames so, which others are predicted from.
    vp8 = with_packet(
        clips["vp8"], tmp_path / "a.webm", 12, lambda p: bytes([p[0] & ~0x10]) + p[1:]
    )
    # MPEG-4: a picture that is "not coded", as encoders leave frames out.
    skipped = b"\x00\x00\x01\xb6" + bytes([0b01010101, 0b10011111])
    mpeg4 = write_video(tmp_path / "b.mp4", codec="mpeg4", options={"b": "2000000"})
    mpeg4 = with_packet(mpeg4, tmp_path / "c.mp4", 20, lambda p: skipped)
    for path in (vp8, mpeg4):
        for verdict in (None, "sequential"):
            frames, n = read_frames(path, lambda n: np.arange(5, n, 5), verdict=verdict)
            assert (numbers(frames), n) == (list(range(5, FRAMES, 5)), FRAMES)
    assert (pyav.index_of(vp8).count, pyav.index_of(mpeg4).count) == (FRAMES, FRAMES + 1)


def test_what_only_begins_to_refresh_the_picture_is_no_keyframe(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}
    path = write_video(tmp_path / "a.mp4", options=options)
    assert len(pyav.index_of(path).keyframes) > 2
    reference, _ = read_frames(path, np.arange, verdict="sequential")
    for index in range(FRAMES):
        frames, _ = read_frames(path, lambda n, i=index: np.array([i]))
        assert np.array_equal(frames[0], reference[index])


# --- decord -------------------------------------------------------------------------------------


@needs_decord
@pytest.mark.parametrize("kind", ["good", "mkv", "rotated"])
def test_decord_returns_the_same_pixels(clips, kind, monkeypatch):
    expected, n = read_frames(clips[kind], lambda n: np.array(ANY_ORDER))
    monkeypatch.setattr(pyav, "read_at", lambda *a: pytest.fail("PyAV was used"))
    found, n_found = read_frames(clips[kind], lambda n: np.array(ANY_ORDER), reader="decord")
    assert n == n_found == FRAMES
    assert np.array_equal(found, expected)


@needs_decord
@pytest.mark.parametrize(
    "kind",
    ["open gop", "edit list", "av1", "vp8", "ts", "avi", "mirrored", "10 bit", "rotated, narrow"],
)
@pytest.mark.parametrize("verdict", [None, "ok"])
def test_decord_is_not_trusted_with_what_it_gets_wrong(clips, kind, verdict):
    expected, n = read_frames(clips[kind], lambda n: np.arange(n)[::-3])
    found, n_found = read_frames(
        clips[kind], lambda n: np.arange(n)[::-3], verdict=verdict, reader="decord"
    )
    assert n == n_found
    assert np.array_equal(found, expected)


def test_a_reader_that_is_not_installed_is_said_so(clips, monkeypatch):
    monkeypatch.setattr(decord_reader, "is_installed", lambda: False)
    with pytest.raises(UserError, match="reader=decord is not installed; pip install decord"):
        read_frames(clips["good"], np.arange, reader="decord")


# --- the picture --------------------------------------------------------------------------------

C = 0.5**0.5  # of 45 degrees


@pytest.mark.parametrize(
    ("matrix", "shown"),  # x' = ax + cy, y' = bx + dy, of a picture of rows top to bottom
    [
        ((1, 0, 0, 1), lambda p: p),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
        ((0.1, 0.99, -0.99, 0.1), lambda p: np.rot90(p, -1)),  # 84 degrees
        ((0.97, -0.26, 0.26, 0.97), lambda p: p),  # 15 degrees
        ((-0.94, 0.34, 0.34, 0.94), lambda p: p[:, ::-1]),  # mirrored, and turned by 20 degrees
        ((C, C, -C, C), lambda p: p),
        ((0, 0, 0, 0), lambda p: p),
        ((2, 0, 0, 2), lambda p: p),
    ],
)
def test_pictures_are_turned_and_mirrored_as_the_file_says(clips, tmp_path, matrix, shown):
    stored, _ = read_frames(clips["good"], lambda n: np.array([4, 20]))
    path = set_matrix(clips["good"], tmp_path / "turned.mp4", *matrix)
    for verdict in (None, "sequential"):
        frames, _ = read_frames(path, lambda n: np.array([4, 20]), verdict=verdict)
        assert np.array_equal(frames, np.stack([shown(picture) for picture in stored]))


def test_a_picture_is_cropped_where_the_stream_says(clips, tmp_path):
    import av
    from av.bitstream import BitStreamFilterContext

    path = str(tmp_path / "cropped.mp4")
    with av.open(clips["good"]) as reader, av.open(path, "w") as writer:
        old = reader.streams.video[0]
        new = writer.add_stream_from_template(old)
        box = "h264_metadata=crop_left=6:crop_right=8:crop_top=4"
        crop = BitStreamFilterContext(box, old, new)
        for packet in reader.demux(old):
            for cropped in crop.filter(packet if packet.size else None):
                cropped.stream = new
                writer.mux(cropped)
    whole, _ = read_frames(clips["good"], np.arange)
    for verdict in (None, "sequential"):
        frames, _ = read_frames(path, np.arange, verdict=verdict)
        assert frames.shape == (FRAMES, 44, 50, 3)
        # Where chroma begins elsewhere, colours at its edge are interpolated from others.
        assert np.abs(frames.astype(int) - whole[:, 4:, 6:-8]).mean() < 1


@pytest.mark.parametrize("wanted", [[0, 50], [50, 70], [79]])
def test_a_picture_that_changes_its_size_is_scaled_to_the_first(clips, wanted):
    frames, n = read_frames(clips["size changes"], lambda n: np.array(wanted))
    assert (n, frames.shape[1:]) == (2 * FRAMES, (48, 64, 3))
    assert numbers(frames) == [number % FRAMES for number in wanted]


def test_the_default_track_is_read_else_the_largest(clips, tmp_path):
    import av
    from av.stream import Disposition

    def write(name, *tracks):
        with av.open(str(tmp_path / name), "w") as container:
            streams = []
            for side, disposition in tracks:
                stream = container.add_stream("libx264", rate=10)
                stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
                stream.disposition = disposition
                streams.append(stream)
            for stream, (side, _) in zip(streams, tracks, strict=True):
                for number in range(3):
                    frame = av.VideoFrame.from_ndarray(picture(number, side, side), format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        return read_video(str(tmp_path / name)).shape[1]

    none = Disposition(0)
    assert write("a.mkv", (32, none), (64, none)) == 64
    assert write("b.mkv", (32, Disposition.default), (64, none)) == 32


# --- what is no video ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "empty file"),
        ("text", "it is text, not a video"),
        ("audio", "no video stream"),
        ("truncated", "cannot be decoded"),
        ("no frames", "it holds no frames"),
    ],
)
def test_bad_files_give_a_one_line_reason(clips, kind, reason):
    for reader in READERS:
        with pytest.raises(VideoError, match=reason) as caught:
            read_frames(clips[kind], lambda n: np.arange(n), reader=reader)
        assert "\n" not in str(caught.value)
        assert clips[kind] not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("a.mp4", b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "it is HTML"),
        ("a.mp4", b"  <html>", "it is HTML"),
        ("a.webm", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "it is XML"),
        ("a.mp4", b'{"error": "quota"}', "it is JSON"),
        ("a.txt", b"one\ntwo\n", "it is text"),
        ("a.nfo", "a film \u2592".encode("cp437"), "it is text"),
        ("a.txt", "one two".encode("utf-16"), "it is text"),
        ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "it is a playlist"),
        ("a.mp4", b"ffconcat version 1.0\nfile b.mp4\n", "it is text"),
        ("a.jpg", cv2.imencode(".jpg", picture(3))[1].tobytes(), "it is a still picture"),
        ("a.mp4", cv2.imencode(".jpg", picture(3))[1].tobytes(), "it is a still picture"),
        ("a.mp4", cv2.imencode(".png", picture(3))[1].tobytes(), "it is a still picture"),
        ("a.webp", cv2.imencode(".webp", picture(3))[1].tobytes(), "it is a still picture"),
        ("a.mp4", b"\x00\x01\x02" * 99, "cannot be decoded"),
    ],
)
def test_what_is_no_video_is_said_to_be_that(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        read_frames(tmp_path / name, np.arange)


def test_a_song_with_a_cover_picture_is_no_video(tmp_path):
    import av
    from av.stream import Disposition

    path = str(tmp_path / "song.mp4")
    with av.open(path, "w") as container:
        song = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
        container.mux(cover.encode(image))
        container.mux(cover.encode())
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(song.encode(sound))
        container.mux(song.encode())
    with pytest.raises(VideoError, match="no video stream, only a cover picture"):
        read_frames(path, np.arange)


@pytest.mark.parametrize("name", ["12:30:05.mp4", "file:a.mp4", "-a.mp4", "a%03d.mp4", "ü ?.mp4"])
def test_names_are_no_protocols_and_no_patterns(clips, tmp_path, monkeypatch, name):
    shutil.copy(clips["good"], tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for reader in READERS:
        assert numbers(read_frames(name, lambda n: np.array([5]), reader=reader)[0]) == [5]


def test_a_name_of_numpy_is_one(clips):
    assert numbers(read_frames(np.str_(clips["good"]), lambda n: np.array([5]))[0]) == [5]


# --- damage -------------------------------------------------------------------------------------


def test_a_file_that_is_cut_off_gives_the_frames_that_decode(clips):
    frames, n = read_frames(clips["truncated, index first"], np.arange)
    assert 10 < n < FRAMES - 5
    assert numbers(frames)[: n - 3] == list(range(n - 3))  # the last is cut
    again, _ = read_frames(clips["truncated, index first"], lambda n: np.array([n - 4]))
    assert np.array_equal(again[0], frames[-4])


def test_a_file_may_be_cut_off_between_two_packets(tmp_path):
    import av

    front = {"muxer_options": {"movflags": "faststart"}, "options": {"g": "12", "bf": "0"}}
    path = write_video(tmp_path / "a.mp4", **front)
    with av.open(path) as container:
        places = [entry.pos for entry in container.streams.video[0].index_entries]
    os.truncate(path, places[25])
    assert pyav.index_of(path).problem == pyav.CUT_OFF
    frames, n = read_frames(path, np.arange)
    assert (numbers(frames), n) == (list(range(25)), 25)


def test_a_frame_that_cannot_be_decoded_is_the_one_before(clips, monkeypatch):
    decode = pyav.decode

    def damaged(path):  # packets 7 to 9 of 40
        return (frame for i, frame in enumerate(decode(path)) if i not in (7, 8, 9))

    monkeypatch.setattr(pyav, "decode", damaged)
    monkeypatch.setattr(pyav, "read_at", lambda *a: None)  # as it does when a frame is not there
    frames, n = read_frames(clips["good"], np.arange)
    assert n == FRAMES
    assert numbers(frames) == [*range(7), 6, 6, 6, *range(10, FRAMES)]
    monkeypatch.setattr(pyav, "decode", lambda path: list(decode(path))[20:])
    assert numbers(read_frames(clips["good"], lambda n: np.array([0, 30]))[0]) == [20, 30]
    monkeypatch.setattr(pyav, "decode", lambda path: list(decode(path))[21:])
    with pytest.raises(VideoError, match="21 of 40 frames cannot be decoded"):
        read_frames(clips["good"], np.arange)


def test_trim_hides_the_end(clips):
    frames, n = read_frames(clips["good"], lambda n: np.array([n - 1]), verdict="trim:25")
    assert n == 25
    assert numbers(frames) == [24]
    with pytest.raises(VideoError, match="1 of 41 frames cannot be decoded"):
        read_frames(clips["good"], lambda n: np.array([n - 1]), verdict="trim:41")


def test_checked_verdicts_are_obeyed(clips):
    with pytest.raises(VideoError, match="rejected"):
        read_frames(clips["good"], lambda n: np.arange(n), verdict="reject")
    frames, _ = read_frames(clips["ts"], lambda n: np.array([31, 4]), verdict="sequential")
    assert numbers(frames) == [31, 4]
    with pytest.raises(ValueError, match="trim:x"):
        read_frames(clips["good"], lambda n: np.arange(n), verdict="trim:x")


def test_samples_out_of_range_are_bugs_not_bad_videos(clips):
    with pytest.raises(ValueError, match=r"indices \[T\] in \[0, 40\)"):
        read_frames(clips["good"], lambda n: np.array([n]))


@pytest.mark.parametrize("verdict", [None, "ok", "sequential"])
def test_another_number_of_frames_than_checked_is_refused(clips, verdict):
    def sample(n):
        return np.array([0])

    read_frames(clips["good"], sample, verdict=verdict, num_frames=FRAMES)
    with pytest.raises(VideoError, match="changed since the check, from 300 to 40 frames"):
        read_frames(clips["good"], sample, verdict=verdict, num_frames=300)


# --- read_video ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_frames": 8, "stride": 4}, list(range(5, 34, 4))),
        ({"num_frames": 4, "stride": None}, [5, 15, 25, 35]),
        ({"num_frames": None, "stride": 15}, [0, 15, 30]),
        ({"num_frames": 6, "stride": 10}, [0, 10, 20, 30, 39, 39]),
    ],
)
def test_read_video_samples_as_documented(clips, arguments, expected):
    assert numbers(read_video(clips["good"], **arguments)) == expected


@pytest.mark.parametrize("kind", ["open gop", "ts", "avi"])
def test_read_video_is_exact_in_any_container(clips, kind):
    frames = vidjax.read_video(clips[kind], num_frames=None, stride=3)
    assert numbers(frames) == list(range(0, FRAMES, 3))


def test_read_video_explains_errors_to_its_user(clips):
    with pytest.raises(UserError, match=r"missing\.mp4 cannot be read as video: no such file"):
        read_video(clips["missing"])
    with pytest.raises(UserError, match="stride=0"):
        read_video(clips["good"], stride=0)
    with pytest.raises(UserError, match="num_frames or stride"):
        read_video(clips["good"], num_frames=None, stride=None)


WORKER = """
import multiprocessing, sys
from vidjax.data.reading import video

def work(path):
    video.read_frames(path, lambda n: [0], reader="decord")

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],))
    child.start()
    child.join()
"""


@needs_decord
def test_decoder_noise_is_kept_from_the_console_of_workers(tmp_path, clips):
    """decord's C++ code prints; Python's traceback of the same worker still comes through."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = str(pathlib.Path(vidjax.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, str(script), clips["truncated"]],
        capture_output=True,
        text=True,
        timeout=50,
        env=dict(os.environ, PYTHONPATH=root),
    )
    assert "ERROR opening" not in result.stderr
    assert "VideoError: cannot be decoded" in result.stderr


def test_reading_may_take_long_but_not_stand_still(clips, monkeypatch):
    decode = pyav.decode

    def slowly(path):
        for frame in decode(path):
            time.sleep(0.05)
            yield frame

    monkeypatch.setattr(watchdog, "PATIENCE", 2.0)
    monkeypatch.setattr(pyav, "decode", slowly)
    start = time.monotonic()
    assert numbers(read_video(clips["ts"], None, 30)) == [0, 30]  # counted, then read
    assert time.monotonic() - start > 2
    monkeypatch.setattr(pyav, "decode", lambda path: threading.Event().wait())
    with pytest.raises(UserError, match=r"stream\.ts cannot be read as video: no answer in 2 s"):
        read_video(clips["ts"])


@pytest.mark.parametrize("verdict", ["ok", "sequential"])
def test_frames_are_freed_when_they_have_been_used(clips, verdict):
    """A frame of a 4K video has 12 MB."""
    alive = []

    def count(picture):
        if len(alive) < 3 or len(alive) > 36:
            alive.append(sum(type(thing).__name__ == "VideoFrame" for thing in gc.get_objects()))
        else:
            alive.append(0)
        return 0

    gc.collect()
    gc.disable()
    try:
        read_frames(clips["rotated"], np.arange, verdict=verdict, each=count)
    finally:
        gc.enable()
    assert len(alive) == FRAMES and max(alive) <= alive[0] + 4


def test_damage_gives_one_answer(tmp_path):
    """A decoder fills lost parts by what it decoded before."""
    path = write_video(tmp_path / "a.mkv", options={"g": "12", "bf": "2", "slices": "4"})
    content = bytearray(pathlib.Path(path).read_bytes())
    for place in range(len(content) // 4, len(content) - 40, len(content) // 7):
        content[place : place + 20] = bytes(range(20))
    pathlib.Path(path).write_bytes(content)
    reference, count = read_frames(path, np.arange, verdict="sequential")
    for index in range(count):
        frames, n = read_frames(path, lambda n, i=index: np.array([i]))
        assert n == count and np.array_equal(frames[0], reference[index])
