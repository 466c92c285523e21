"""Which frames come back, from which reader, and what bad files say."""

import os
import pathlib
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from made_videos import FRAMES, number_of, write_video

import vidjax
from vidjax.data import video
from vidjax.data.video import VideoError, read_frames, read_video
from vidjax.errors import UserError

ANY_ORDER = [7, 33, 2, 33, 39, 0, 20]

needs_decord = pytest.mark.skipif(not video.decord_installed(), reason="decord is not installed")


def numbers(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


def in_order(path: str) -> np.ndarray:
    return np.stack([video.upright_rgb(frame) for frame in video.decode_in_order(path)])


@pytest.mark.parametrize("kind", ["good", "mkv", "vp8", "odd size", "avi", "rotated"])
@pytest.mark.parametrize("verdict", [None, "sequential"])
def test_frames_are_the_asked_ones_in_any_order(clips, kind, verdict):
    frames, n = read_frames(clips[kind], lambda n: np.array(ANY_ORDER), verdict=verdict)
    assert n == FRAMES
    assert frames.dtype == np.uint8
    assert numbers(frames) == ANY_ORDER


@needs_decord
@pytest.mark.parametrize("kind", ["good", "mkv", "vp8", "rotated", "rotated, narrow"])
def test_decord_and_pyav_return_the_same_pixels(clips, kind, monkeypatch):
    def sample(n):
        return np.array(ANY_ORDER)

    with_decord, n = read_frames(clips[kind], sample, verdict="ok")
    monkeypatch.setattr(video, "decord_installed", lambda: False)
    seeking, n_seeking = read_frames(clips[kind], sample, verdict="ok")
    in_sequence, n_sequence = read_frames(clips[kind], sample, verdict="sequential")
    assert n == n_seeking == n_sequence == FRAMES
    assert np.array_equal(with_decord, seeking)
    assert np.array_equal(with_decord, in_sequence)


@needs_decord
def test_checked_files_are_read_by_decord(clips, monkeypatch):
    monkeypatch.setattr(video, "open_stream", lambda path: pytest.fail("PyAV was used"))
    frames, _ = read_frames(clips["good"], lambda n: np.arange(n), verdict="ok")
    assert numbers(frames) == list(range(FRAMES))


def test_seeking_decodes_from_the_keyframe_only(clips, monkeypatch):
    monkeypatch.setattr(video, "_read_in_order", lambda *a: pytest.fail("fell back"))
    converted, original = [], video.upright_rgb
    monkeypatch.setattr(video, "upright_rgb", lambda f: converted.append(f.pts) or original(f))
    frames, _ = video._read_pyav_seeking(clips["good"], lambda n: np.array([5, 30, 31]))
    assert numbers(frames) == [5, 30, 31]
    assert len(converted) == 3


@pytest.mark.parametrize(
    ("wanted", "runs"),  # keyframes are 0, 12, 24, 36
    [([7, 13], [[7, 13]]), ([2, 13], [[2], [13]]), ([7, 10, 20, 25], [[7, 10, 20, 25]])],
)
def test_seeking_goes_on_over_a_near_keyframe(tmp_path, wanted, runs, monkeypatch):
    options = {"g": "12", "bf": "2", "sc_threshold": "0"}
    path = write_video(tmp_path / "a.mp4", options=options)
    monkeypatch.setattr(video, "_read_in_order", lambda *a: pytest.fail("fell back"))
    found, original = [], video._decode_times

    def spy(container, stream, keyframe, targets):
        frames = original(container, stream, keyframe, targets)
        found.append([number_of(frames[moment]) for moment in targets])
        return frames

    monkeypatch.setattr(video, "_decode_times", spy)
    frames, _ = video._read_pyav_seeking(path, lambda n: np.array(wanted))
    assert numbers(frames) == wanted
    assert found == runs


@pytest.mark.parametrize("kind", ["good", "mkv", "open gop", "edit list"])
def test_seeking_is_right_for_every_single_frame(clips, kind):
    reference = in_order(clips[kind])
    for index in range(len(reference)):
        frames, n = video._read_pyav_seeking(clips[kind], lambda n, i=index: np.array([i]))
        assert n == len(reference)
        assert np.array_equal(frames[0], reference[index])


@pytest.mark.parametrize(("codec", "skipped"), [("h264", {1, 2, 4}), ("hevc", set())])
def test_only_h264_skips_frames_that_nobody_needs(codec, skipped):
    """Whether a frame is needed by others is the decoder's to know; that it is wanted is ours."""
    decoder, asked = SimpleNamespace(name=codec, skip_frame="DEFAULT"), {}

    class Packet(SimpleNamespace):
        size = 1

        def decode(self):
            asked[self.pts] = decoder.skip_frame
            return [SimpleNamespace(pts=self.pts)] if self.pts in (3, 5) else []

    container = SimpleNamespace(demux=lambda stream: [Packet(pts=i) for i in (1, 3, 2, 4, 5)])
    stream = SimpleNamespace(codec_context=decoder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "upright_rgb", lambda frame: frame.pts)
        assert video._decode_times(container, stream, 1, [3, 5]) == {3: 3, 5: 5}
    assert {pts for pts, skip in asked.items() if skip == "NONREF"} == skipped
    assert {pts for pts, skip in asked.items() if skip == "DEFAULT"} == set(range(1, 6)) - skipped


@pytest.mark.parametrize("reader", [video._read_random, video._read_pyav_seeking])
def test_frames_in_order_and_once_are_not_copied_again(clips, reader, monkeypatch):
    made, stack = [], np.stack
    monkeypatch.setattr(np, "stack", lambda *a: made.append(stack(*a)) or made[-1])
    frames, _ = reader(clips["good"], lambda n: np.array([3, 5, 9]))
    assert frames.base is None and all(frames is one for one in made)
    assert numbers(frames) == [3, 5, 9]
    repeated, _ = reader(clips["good"], lambda n: np.array([3, 3, 9]))
    assert numbers(repeated) == [3, 3, 9]
    turned, _ = reader(clips["good"], lambda n: np.array([9, 5, 3]))
    assert numbers(turned) == [9, 5, 3]


def test_an_unchecked_edit_list_does_not_fool_the_reader(clips):
    """decord counts the hidden frames and returns others than asked."""
    frames, n = read_frames(clips["edit list"], lambda n: np.arange(n))
    assert n == FRAMES - 8
    assert numbers(frames) == list(range(8, FRAMES))


def test_an_unchecked_open_gop_does_not_fool_the_reader(clips):
    """decord returns frames that are two away."""
    indices = [9, 18, 19, 29, 39]
    frames, _ = read_frames(clips["open gop"], lambda n: np.array(indices))
    assert numbers(frames) == indices
    if video.decord_installed():  # else this test proves nothing
        frames, _ = read_frames(clips["open gop"], lambda n: np.array(indices), verdict="ok")
        assert numbers(frames) != indices


def test_rotation_turns_the_picture(clips):
    frames, _ = read_frames(clips["rotated"], lambda n: np.array([0]))
    stored, _ = read_frames(clips["good"], lambda n: np.array([0]))
    assert stored.shape[1:3] == (48, 64)
    assert frames.shape[1:3] == (96, 64)


@needs_decord
def test_what_decord_cannot_open_is_read_by_pyav(clips):
    assert video.decord_reader(clips["av1"]) is None
    frames, n = read_frames(clips["av1"], lambda n: np.array([11, 3]), verdict="ok")
    assert n == 12
    assert numbers(frames) == [11, 3]


def test_trim_hides_the_end(clips):
    frames, n = read_frames(clips["good"], lambda n: np.array([n - 1]), verdict="trim:25")
    assert n == 25
    assert numbers(frames) == [24]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "empty file"),
        ("text", "unknown container"),
        ("audio", "no video stream"),
        ("truncated", "cannot be decoded"),
        ("truncated, index first", "cannot be decoded"),
        ("damaged", "cannot be decoded"),
        ("ts", "MPEG-TS container is not read unchecked"),
        ("ts as mp4", "MPEG-TS container is not read unchecked"),
    ],
)
def test_bad_files_give_a_one_line_reason(clips, kind, reason):
    with pytest.raises(VideoError, match=reason) as caught:
        read_frames(clips[kind], lambda n: np.arange(n))
    assert "\n" not in str(caught.value)
    assert clips[kind] not in str(caught.value)


def test_checked_verdicts_are_obeyed(clips):
    with pytest.raises(VideoError, match="rejected"):
        read_frames(clips["good"], lambda n: np.arange(n), verdict="reject")
    frames, _ = read_frames(clips["ts"], lambda n: np.array([31, 4]), verdict="sequential")
    assert numbers(frames) == [31, 4]
    with pytest.raises(ValueError, match="trim:x"):
        read_frames(clips["good"], lambda n: np.arange(n), verdict="trim:x")


def test_a_change_of_size_is_a_bad_video(clips):
    with pytest.raises(VideoError, match="size changes"):
        read_frames(clips["size changes"], lambda n: np.arange(n), verdict="sequential")


def test_too_many_missing_frames_are_an_error_and_few_are_filled(clips):
    frames, _ = read_frames(clips["good"], lambda n: np.array([n - 1]), verdict="trim:41")
    assert numbers(frames) == [FRAMES - 1]
    with pytest.raises(VideoError, match="only 40 of 60 frames"):
        read_frames(clips["good"], lambda n: np.array([n - 1]), verdict="trim:60")


def test_samples_out_of_range_are_bugs_not_bad_videos(clips):
    with pytest.raises(ValueError, match=r"indices \[T\] in \[0, 40\)"):
        read_frames(clips["good"], lambda n: np.array([n]))


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
def test_read_video_is_exact_where_random_access_is_not(clips, kind):
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
from vidjax.data import video

def work(path):
    video.read_frames(path, lambda n: [0], verdict="ok")

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],))
    child.start()
    child.join()
"""


def test_a_reader_is_left_behind_when_it_hangs():
    start = time.monotonic()
    with pytest.raises(VideoError, match=r"^no answer in 0\.2 s$"):
        video.in_time(lambda: time.sleep(3600), 0.2)
    assert time.monotonic() - start < 5


def test_a_reader_in_time_answers_or_raises_as_itself(clips):
    frames, n = video.in_time(lambda: read_frames(clips["good"], lambda n: np.arange(3)), 30)
    assert (numbers(frames), n) == ([0, 1, 2], FRAMES)
    with pytest.raises(VideoError, match="no such file"):
        video.in_time(lambda: read_frames(clips["missing"], lambda n: np.arange(3)), 30)

    def timeout():  # of a network file system, say
        raise TimeoutError("network")

    with pytest.raises(TimeoutError, match="network"):
        video.in_time(timeout, 30)


@pytest.mark.parametrize("verdict", [None, "ok", "sequential"])
def test_another_number_of_frames_than_checked_is_refused(clips, verdict):
    def sample(n):
        return np.array([0])

    read_frames(clips["good"], sample, verdict=verdict, num_frames=FRAMES)
    with pytest.raises(VideoError, match="changed since the check, from 300 to 40 frames"):
        read_frames(clips["good"], sample, verdict=verdict, num_frames=300)


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
