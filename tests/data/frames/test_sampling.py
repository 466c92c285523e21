"""Frame indices against the references' rules, on figures worked out by hand, and their goldens."""

import pathlib

import numpy as np
import pytest

from vidjax.data.frames import sampling
from vidjax.errors import UserError

DRAWS = 3000
GOLDEN = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_vivit" / "golden.npz"


def draws(function, *args):
    rng = np.random.default_rng(0)
    return np.stack([function(*args, rng) for _ in range(DRAWS)])


def test_random_dense_has_the_exact_stride_and_every_start():
    clips = draws(sampling.random_dense, 100, 16, 4)
    assert (np.diff(clips) == 4).all()
    # [0, n - 16 * 4] with both ends: one frame more than the clip needs is left at the end.
    assert set(clips[:, 0]) == set(range(100 - 64 + 1))


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (30, [0, 4, 8, 12, 16, 20, 24, 28] + [28] * 8),
        (10, [0, 4, 8] + [8] * 13),
        (9, [0, 4] + [4] * 14),  # 8 is the last frame: the reference does not step onto it
        (1, [0] * 16),
    ],
)
def test_random_dense_stops_advancing_at_the_end(num_frames, expected):
    rng = np.random.default_rng(0)
    assert sampling.random_dense(num_frames, 16, 4, rng).tolist() == expected


def test_random_dense_linspace_spreads_16_points_over_64_frames():
    clips = draws(sampling.random_dense_linspace, 100, 16, 4)
    assert set(clips[:, 0]) == set(range(100 - 64))  # the end is drawn from [64, n)
    assert (clips[:, -1] - clips[:, 0] == 63).all()
    first = clips[0] - clips[0, 0]
    assert first.tolist() == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (64, [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]),
        (20, [0, 5, 10, 15, 19] + [19] * 11),
        (3, [2] * 16),
    ],
)
def test_random_dense_linspace_pads_short_videos(num_frames, expected):
    rng = np.random.default_rng(0)
    assert sampling.random_dense_linspace(num_frames, 16, 4, rng).tolist() == expected


def test_random_segments_draws_one_frame_from_each():
    clips = draws(sampling.random_segments, 167, 16)
    offsets = clips - np.arange(16) * 10  # segments of 167 // 16 frames
    assert [set(offsets[:, segment]) for segment in range(16)] == [set(range(10))] * 16
    assert len({tuple(row) for row in offsets}) > DRAWS // 2  # drawn for each segment anew


def test_random_segments_of_short_videos_are_spread():
    rng = np.random.default_rng(0)
    assert sampling.random_segments(16, 16, rng).tolist() == list(range(16))
    assert sampling.random_segments(3, 5, rng).tolist() == [0, 1, 1, 2, 2]
    # mmaction2's SampleFrames(clip_len=1, num_clips=8) has a last 0 here.
    assert sampling.random_segments(7, 8, rng).tolist() == [0, 1, 2, 3, 4, 4, 5, 6]


def test_random_dense_cycle_starts_wherever_the_last_frame_still_fits():
    clips = draws(sampling.random_dense_cycle, 100, 32, 2)
    assert (np.diff(clips) == 2).all()
    assert set(clips[:, 0]) == set(range(100 - 31 * 2))  # a start of 37 ends at frame 99
    assert clips.max() == 99


@pytest.mark.parametrize(("num_frames", "starts"), [(1, 1), (5, 1), (62, 1), (63, 1), (64, 2)])
def test_random_dense_cycle_plays_short_videos_again(num_frames, starts):
    clips = draws(sampling.random_dense_cycle, num_frames, 32, 2)
    assert set(clips[:, 0]) == set(range(starts))
    video = list(range(num_frames)) * 64  # DMVR tiles the video, and gathers from that
    assert clips[0].tolist() == video[clips[0, 0] : clips[0, 0] + 64 : 2]


def test_dense_cycle_views_are_dmvrs():
    golden = np.load(GOLDEN)
    cases = [name for name in golden.files if name.startswith("views/")]
    for name in cases:
        num_frames, stride, views = map(int, name.split("/")[1:])
        found = sampling.dense_cycle_views(num_frames, 32, stride, views)
        assert np.array_equal(found, golden[name]), name
    assert len(cases) == 88


def test_dense_cycle_views_spread_over_frames_and_one_is_the_middle():
    # A clip takes up 64 frames, of which it reaches over 63.
    starts = sampling.dense_cycle_views(300, 32, 2, 4)[:, 0]
    assert starts.tolist() == [0, 78, 157, 236]  # int(236 / 3 * view)
    assert sampling.dense_cycle_views(101, 32, 2).tolist() == [list(range(18, 82, 2))]


def test_short_videos_may_train_where_they_are_played_again():
    assert sampling.fewest_frames("dense_cycle", 32) == 1
    for name in ("dense", "dense_linspace", "segment", "linspace"):
        assert sampling.fewest_frames(name, 32) == 32


def test_dense_views_take_every_4th_frame_of_the_whole_video():
    views = sampling.dense_views(300, 16, 4, 5)
    assert views[:, 0].tolist() == [0, 14 * 4, 29 * 4, 44 * 4, 59 * 4]  # int(k * 59 / 4)
    assert (np.diff(views) == 4).all()
    assert views[-1, -1] == 296
    assert sampling.dense_views(280, 8, 4, 2)[:, 0].tolist() == [0, 62 * 4]


def test_one_dense_view_is_the_middle_clip():
    view = sampling.dense_views(300, 16, 4)
    assert view.shape == (1, 16)
    assert view[0, 0] == 29 * 4


def test_dense_views_pad_short_videos():
    assert sampling.dense_views(10, 4, 4, 2).tolist() == [[0, 4, 8, 8]] * 2
    assert sampling.dense_views(1, 3, 4, 5).tolist() == [[0, 0, 0]] * 5


def test_two_segment_views_are_videomaes():
    tick = 100 / 16
    merged = sorted(
        [int(tick * x) for x in range(16)] + [int(tick / 2 + tick * x) for x in range(16)]
    )
    views = sampling.segment_views(100, 16, 2)
    assert views.tolist() == [merged[0::2], merged[1::2]]
    assert views[:, :3].tolist() == [[0, 6, 12], [3, 9, 15]]


def test_segment_views_of_any_number_and_of_one():
    assert sampling.segment_views(40, 4, 5)[:, 0].tolist() == [0, 2, 4, 6, 8]  # j * tick / 5
    assert sampling.segment_views(40, 4).tolist() == [[5, 15, 25, 35]]  # the centres
    assert sampling.segment_views(2, 4, 1).tolist() == [[0, 0, 1, 1]]


def sample_frames(num_frames, frames, rng=None):
    """X-CLIP's SampleFrames: of a whole video in one clip, at random with a generator."""
    if rng is None:
        length = num_frames / frames
        return (np.arange(frames) * length + length / 2).astype(int) % num_frames
    length = num_frames // frames
    return np.arange(frames) * length + rng.integers(0, length, frames)


def test_segments_are_xclips():
    view = sampling.view_indices("segment", 300, 8, 1)
    assert view.tolist() == [[18, 56, 93, 131, 168, 206, 243, 281]]
    # Of the original's golden for a video of 280 frames.
    view = sampling.view_indices("segment", 280, 8, 1)
    assert view.tolist() == [[17, 52, 87, 122, 157, 192, 227, 262]]
    for frames in (8, 16, 32):
        for num_frames in range(1, 400):  # short ones, too
            found = sampling.segment_views(num_frames, frames)
            assert np.array_equal(found[0], sample_frames(num_frames, frames))
    found, want = (
        np.stack([draw(167, 16, np.random.default_rng(seed)) for seed in range(50)])
        for draw in (sampling.random_segments, sample_frames)
    )
    assert np.array_equal(found, want)


def test_random_linspace_draws_a_point_of_each_equal_part():
    clips = draws(sampling.random_linspace, 10, 4)  # parts of 2.5 frames
    assert [sorted(set(clips[:, part])) for part in range(4)] == [
        *([0, 1, 2], [2, 3, 4], [5, 6, 7], [7, 8, 9])
    ]
    share = (clips[:, 0] == 2).mean()
    assert abs(share - 0.2) < 0.03  # the half frame counts half
    assert abs(np.corrcoef(clips[:, 0], clips[:, 1])[0, 1]) < 0.06
    short = draws(sampling.random_linspace, 2, 4)
    assert (short == [0, 0, 1, 1]).all()


def test_linspace_views_start_the_parts():
    # VideoPrism's own, for its two demonstration videos of 100 and 280 frames.
    assert sampling.linspace_views(100, 16)[0, :6].tolist() == [0, 6, 12, 18, 25, 31]
    assert sampling.linspace_views(280, 16)[0, :6].tolist() == [0, 17, 35, 52, 70, 87]
    assert sampling.linspace_views(300, 8).tolist() == [[0, 37, 75, 112, 150, 187, 225, 262]]
    assert sampling.linspace_views(3, 6).tolist() == [[0, 0, 1, 1, 2, 2]]
    for num_frames in range(1, 400):
        want = np.linspace(0, num_frames, 24, endpoint=False, dtype=np.int32)
        assert np.array_equal(sampling.linspace_views(num_frames, 24)[0], want)
    assert sampling.linspace_views(100, 4, 2).tolist() == [[0, 25, 50, 75], [12, 37, 62, 87]]


def test_names_choose_the_function():
    def train(name):
        return sampling.train_indices(name, 100, 16, 4, np.random.default_rng(1))

    rng = np.random.default_rng
    assert np.array_equal(train("dense"), sampling.random_dense(100, 16, 4, rng(1)))
    assert np.array_equal(
        train("dense_linspace"), sampling.random_dense_linspace(100, 16, 4, rng(1))
    )
    assert np.array_equal(train("segment"), sampling.random_segments(100, 16, rng(1)))
    dense = sampling.dense_views(100, 16, 4, 5)
    assert np.array_equal(train("dense_cycle"), sampling.random_dense_cycle(100, 16, 4, rng(1)))
    cyclic = sampling.dense_cycle_views(101, 16, 4, 5)
    assert not np.array_equal(cyclic, sampling.dense_views(101, 16, 4, 5))
    assert np.array_equal(sampling.view_indices("dense_cycle", 101, 16, 4, 5), cyclic)
    for name in ("dense", "dense_linspace"):
        assert np.array_equal(sampling.view_indices(name, 100, 16, 4, 5), dense)
    assert np.array_equal(train("linspace"), sampling.random_linspace(100, 16, rng(1)))
    parts = sampling.linspace_views(100, 16, 2)
    assert np.array_equal(sampling.view_indices("linspace", 100, 16, 4, 2), parts)
    assert np.array_equal(train("linspace_exact"), train("linspace"))
    exact = sampling.linspace_exact_views(100, 16, 2)
    assert np.array_equal(sampling.view_indices("linspace_exact", 100, 16, 4, 2), exact)
    segments = sampling.segment_views(100, 16, 2)
    assert np.array_equal(sampling.view_indices("segment", 100, 16, 4, 2), segments)
    for function, last in ((sampling.train_indices, rng(0)), (sampling.view_indices, 1)):
        with pytest.raises(UserError, match="'uniform'; choose 'dense'"):
            function("uniform", 100, 16, 4, last)


def test_parts_in_integers_and_in_floats():
    """They differ at some lengths, though never where the number of frames is a power of two."""
    for frames in (1, 2, 4, 8, 16, 64):
        for n in range(frames, 1500):
            (exact,) = sampling.linspace_exact_views(n, frames)
            assert np.array_equal(exact, np.arange(frames) * n // frames)
            assert np.array_equal(exact, sampling.linspace_views(n, frames)[0])
    differ = [
        n
        for n in range(24, 3000)
        if not np.array_equal(sampling.linspace_exact_views(n, 24), sampling.linspace_views(n, 24))
    ]
    assert len(differ) == 7
    first, second = sampling.linspace_exact_views(100, 8, 2)
    assert (first <= second).all() and (second[:-1] <= first[1:]).all()


@pytest.mark.parametrize("num_frames", [1, 2, 7, 15, 16, 17, 63, 64, 65, 66, 1000])
def test_indices_always_lie_in_the_video(num_frames):
    rng = np.random.default_rng(0)
    for name in ("dense", "dense_linspace", "segment", "dense_cycle", "linspace", "linspace_exact"):
        clips = [sampling.train_indices(name, num_frames, 16, 4, rng) for _ in range(50)]
        clips += list(sampling.view_indices(name, num_frames, 16, 4, 3))
        for clip in clips:
            assert clip.shape == (16,) and clip.dtype == np.int64
            assert clip.min() >= 0 and clip.max() < num_frames
            assert (np.diff(clip) >= 0).all() or name == "dense_cycle"
