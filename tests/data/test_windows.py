"""Windows of long videos: which frames, at which times, and that memory does not grow with them."""

import itertools
import os
import threading

import numpy as np
import pytest

from tests.support.videos import FRAMES, number_of, write_video
from vidjax.data import windows
from vidjax.data.datasets import Video
from vidjax.data.frames.clips import prepare
from vidjax.data.reading import pyav, watchdog
from vidjax.data.reading.watchdog import HANG
from vidjax.data.windows import Windows
from vidjax.errors import UserError, VideoError
from vidjax.preprocessing import Preprocessing

# The made videos are 48 pixels high, 64 wide, 10 frames a second.
DENSE = Preprocessing(frames=4, stride=2, size=48, short_side=48)
WHOLE = Preprocessing(frames=4, sampling="linspace", size=48, short_side=48)


def numbers(clip):
    return [number_of(frame) for frame in clip]


def read(path, *args, **video):
    *clips, spans = windows.read(Video(path, **video), Windows(*args))
    return [numbers(clip) for clip in clips], spans


def test_dense_windows_follow_each_other_and_the_last_ends_with_the_video(tmp_path):
    clips, spans = read(write_video(tmp_path / "v.mp4", 20), DENSE)
    assert clips == [[0, 2, 4, 6], [8, 10, 12, 14], [12, 14, 16, 18]]
    assert spans == [(0, 8, 0, pytest.approx(0.8)), (8, 16, pytest.approx(0.8), pytest.approx(1.6)),
                     (12, 20, pytest.approx(1.2), pytest.approx(2.0))]  # fmt: skip


def test_stride_is_in_seconds(clips):
    found, spans = read(clips["good"], DENSE, None, 0.4)
    assert [start for start, *_ in spans] == [*range(0, 33, 4)]
    assert found[3] == [12, 14, 16, 18]
    _, spans = read(clips["good"], DENSE, None, 2.0)  # gaps between
    assert [span[:2] for span in spans] == [(0, 8), (20, 28), (32, 40)]


def test_other_samplings_take_the_whole_video_or_windows_of_seconds(clips):
    found, spans = read(clips["good"], WHOLE)
    assert found == [[0, 10, 20, 30]]
    assert spans == [(0, FRAMES, 0.0, pytest.approx(4.0))]
    found, _ = read(clips["good"], WHOLE, 1.2, 1.0)
    assert found == [[0, 3, 6, 9], [10, 13, 16, 19], [20, 23, 26, 29], [28, 31, 34, 37]]


@pytest.mark.parametrize("sampling", ["dense", "dense_cycle"])
def test_short_videos_are_one_window_as_the_sampling_pads_them(sampling, tmp_path):
    path = write_video(tmp_path / "v.mp4", 5)
    facts = Preprocessing(frames=4, stride=2, size=48, short_side=48, sampling=sampling)
    found, spans = read(path, facts)
    assert found == [[0, 2, 4, 4] if sampling == "dense" else [0, 2, 4, 1]]
    assert [span[:2] for span in spans] == [(0, 5)]


def test_clips_are_those_of_evaluation(clips):
    facts = Preprocessing(frames=4, stride=10, size=32, short_side=40)  # one window: all frames
    (clip, _) = windows.read(Video(clips["good"]), Windows(facts))
    np.testing.assert_array_equal(clip, prepare(clips["good"], facts)[0])
    facts = Preprocessing(frames=4, stride=5, size=32, short_side=40)
    first, *_ = windows.read(Video(clips["good"]), Windows(facts))
    whole, _ = windows.read(Video(clips["good"]), Windows(
        Preprocessing(frames=8, stride=5, size=32, short_side=40)))  # fmt: skip
    np.testing.assert_array_equal(first, whole[:4])  # in order and at random: the same frames


@pytest.mark.parametrize(
    "kind", ["mkv", "vp8", "open gop", "avi", "ts", "av1", "edit list", "rotated", "mid-gop"]
)
def test_every_container_is_read(kind, clips):
    found, spans = read(clips[kind], DENSE)
    assert len(found) == len(spans) > 1
    assert [clip[0] - found[0][0] for clip in found] == [start for start, *_ in spans]
    *_, (_, end, _, finish) = spans
    assert finish == pytest.approx(end / 10, abs=0.02)


@pytest.mark.parametrize("kind", ["truncated", "audio", "text", "empty", "missing"])
def test_files_that_cannot_be_read_say_why(kind, clips):
    for facts in (DENSE, WHOLE):
        with pytest.raises(VideoError):
            list(windows.read(Video(clips[kind]), Windows(facts)))


def test_what_the_check_found_counts(clips):
    found, spans = read(clips["good"], DENSE, verdict="trim:17", num_frames=17)
    assert [span[:2] for span in spans] == [(0, 8), (8, 16), (9, 17)] and found[2][-1] == 15
    with pytest.raises(VideoError, match="changed since the check, from 39 to 40"):
        read(clips["good"], DENSE, verdict="ok", num_frames=39)


def test_a_lost_last_frame_is_the_one_before(clips, monkeypatch):
    decode = pyav.decode
    monkeypatch.setattr(pyav, "decode", lambda path: itertools.islice(decode(path), 38))
    found, _ = read(clips["good"], DENSE, None, 0.1)
    assert found[-1] == [32, 34, 36, 37] and len(found) == 33
    monkeypatch.setattr(pyav, "decode", lambda path: itertools.islice(decode(path), 19))
    with pytest.raises(VideoError, match="21 of 40"):
        read(clips["good"], DENSE)


def test_frames_are_decoded_when_they_are_needed_and_kept_no_longer(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", 400, height=16, width=16)
    decoded, decode = [0], pyav.decode

    def counted(path):
        for frame in decode(path):
            decoded[0] += 1
            yield frame

    monkeypatch.setattr(pyav, "decode", counted)
    facts = Preprocessing(frames=4, stride=2, size=16, short_side=16)
    most = 0
    reading = windows.read(Video(path), Windows(facts, None, 0.2))
    for place, clip in enumerate(reading):
        if isinstance(clip, np.ndarray):
            assert decoded[0] == 2 * place + 7
            pieces = reading.gi_frame.f_locals["pieces"]
            most = max(most, len(pieces.gi_frame.f_locals["held"]))
    assert place == 197 and most <= 4


def test_all_videos_are_read_whatever_is_wrong_with_some(clips, monkeypatch):
    kinds = ["good", "text", "mkv", "truncated", "vp8"]
    crop, wrong = windows.eval_views, Windows(DENSE)
    ended, seen = {}, dict.fromkeys((clips[kind] for kind in kinds), 0)
    for path, answer in windows.read_all([Video(clips[kind]) for kind in kinds], wrong, ahead=2):
        if isinstance(answer, np.ndarray):
            assert path not in ended
            seen[path] += 1
        else:
            ended[path] = answer
    assert ended.keys() == seen.keys()
    for kind in ("good", "mkv", "vp8"):
        assert seen[clips[kind]] == len(ended[clips[kind]]) == 5
    assert ended[clips["text"]] == "it is text, not a video"
    # Not even a mistake of ours ends the others.
    monkeypatch.setattr(
        windows, "eval_views", lambda frames, facts: crop(frames, facts) if seen.pop("x", 0) else 1
    )
    (answer,) = windows.read_all([Video(clips["good"])], wrong, ahead=2)
    assert answer[1].startswith("TypeError")


def test_hanging_videos_are_given_up_wherever_they_hang(clips, monkeypatch):
    slow = {"index_of": clips["mkv"], "decode": clips["vp8"]}

    def hanging(then, stuck):
        return lambda path: threading.Event().wait() if path == stuck else then(path)

    for name, stuck in slow.items():
        monkeypatch.setattr(pyav, name, hanging(getattr(pyav, name), stuck))
    monkeypatch.setattr(watchdog, "PATIENCE", 1.0)
    videos = [Video(path) for path in (*slow.values(), clips["good"])]
    ended = dict(windows.read_all(videos, Windows(DENSE), ahead=9))
    assert [ended[path] for path in slow.values()] == [f"{HANG} 1 s"] * 2
    assert len(ended[clips["good"]]) == 5


@pytest.mark.parametrize("verdict", [None, "sequential"])
def test_a_window_that_takes_long_does_not_hang(clips, monkeypatch, verdict):
    decode = pyav.decode

    def slowly(path):
        for frame in decode(path):
            threading.Event().wait(0.05)
            yield frame

    monkeypatch.setattr(pyav, "decode", slowly)
    monkeypatch.setattr(watchdog, "PATIENCE", 1.5)
    found, _ = read(clips["avi"], WHOLE, verdict=verdict)  # takes two seconds
    assert found == [[0, 10, 20, 30]]


def test_threads_end_when_the_reader_is_closed(clips):
    before = threading.active_count()
    reading = windows.read_all([Video(clips["good"])] * 9, Windows(DENSE, None, 0.1), ahead=1)
    next(reading)
    reading.close()
    for thread in threading.enumerate():
        if thread.name == "vidjax reader":
            thread.join(10)
    assert threading.active_count() <= before and os.path.exists(clips["good"])


def test_wrong_windows_are_answered():
    with pytest.raises(UserError, match="window_stride=0 must be above 0"):
        Windows(DENSE, None, 0)
    with pytest.raises(UserError, match="4 frames 2 apart"):
        Windows(DENSE, 1.0)
    with pytest.raises(UserError, match="set --window_seconds"):
        Windows(WHOLE, None, 1.0)
