"""Crops against Scenic's goldens and rules worked out by hand."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.support.frames import columns, config, linear_resize, noise
from vidjax.data.frames import clips, crops
from vidjax.data.frames.resize import resize, resize_short_side
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

VIVIT = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_vivit" / "golden.npz"


@pytest.mark.parametrize("name", ["wide", "tall", "square"])
def test_tf_bilinear_crops_are_scenics_and_dmvrs(name):
    golden = np.load(VIVIT)
    frames = golden[f"crops/{name}/frames"]
    facts = Preprocessing(size=6, short_side=11, resize="tf_bilinear")
    three = clips.eval_views(frames, facts, 3)
    assert np.array_equal(three[:, 0], golden[f"crops/{name}/three"])
    assert np.array_equal(clips.eval_views(frames, facts)[0], golden[f"crops/{name}/centre"])
    # An odd margin: the middle one of three crops is not the centre crop.
    assert not np.array_equal(three[1], clips.eval_views(frames, facts)[0])
    assert not np.array_equal(three, crops.spatial_crops(frames, 6))


@pytest.mark.parametrize(
    ("margin", "cv2_start", "pil_start"), [(1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (7, 4, 3)]
)
def test_centre_crop_rounds_as_the_convention(margin, cv2_start, pil_start):
    frames = columns(8, 8 + margin)
    assert crops.center_crop(frames, 8, "cv2_linear")[0, 0, 0, 1] == cv2_start
    assert crops.center_crop(frames, 8, "pil_bilinear")[0, 0, 0, 1] == pil_start
    assert crops.center_crop(frames, 8, "tf_bilinear")[0, 0, 0, 1] == pil_start
    assert crops.center_crop(frames, 8, "mmcv_linear")[0, 0, 0, 1] == pil_start


@pytest.mark.parametrize("shape", [(1, 40, 61, 3), (1, 61, 40, 3)])
@pytest.mark.parametrize("convention", ["pil_bicubic", "cv2_linear"])
def test_frames_become_square(shape, convention):
    frames = noise(*shape)
    wide = shape[2] > shape[1]
    square = frames[:, :, 10:50] if wide else frames[:, 10:50]  # an odd margin, cut off
    want = {
        "crop": crops.center_crop(resize_short_side(frames, 32, convention), 24, convention),
        "stretch": resize(frames, 24, 24, convention),
        "crop_first": resize(square, 24, 24, convention),
        "no_resize": crops.center_crop(frames, 24, convention),
    }
    for fit, clip in want.items():
        facts = Preprocessing(size=24, short_side=32, resize=convention, fit=fit)
        assert np.array_equal(clips.eval_views(frames, facts)[0], clip), fit
        # So does training without random crops.
        cfg = config(size=24, short_side=32, resize=convention, fit=fit)
        trained = clips.train_clip(frames, np.random.default_rng(0), cfg)
        assert np.array_equal(trained, clip), fit
        for augment in ("random_resized_crop", "multi_scale_crop"):
            trained = [
                clips.train_clip(frames, np.random.default_rng(0), config(augment=augment, fit=f))
                for f in ("crop", fit)
            ]
            assert np.array_equal(*trained), (augment, fit)


def test_frames_stretched_to_more_than_the_crop():
    frames = noise(1, 40, 61, 3)
    facts = Preprocessing(size=24, resize="pil_bilinear", fit="stretch", stretch_to=[31, 26])
    want = resize(frames, 31, 26, "pil_bilinear")[:, 3:27, 1:25]
    assert np.array_equal(clips.eval_views(frames, facts)[0], want)
    with pytest.raises(
        UserError, match=r"size 24 does not fit frames stretched to \(31, 20\); set"
    ):
        Preprocessing(size=24, fit="stretch", stretch_to=(31, 20))


def test_only_crops_have_several_spatial_views():
    for fit in ("stretch", "crop_first", "no_resize"):
        facts = Preprocessing(size=24, short_side=8, fit=fit)  # which it does not use
        with pytest.raises(UserError, match=f"fit '{fit}' makes one square of a frame, not 3"):
            clips.eval_views(noise(1, 30, 40, 3), facts, 3)


def test_spatial_crops_start_at_truncated_steps_along_the_long_side():
    wide = crops.spatial_crops(columns(8, 15), 8)
    assert wide.shape == (3, 1, 8, 8, 3)
    assert wide[:, 0, 0, 0].tolist() == [[0, 0, 0], [0, 3, 0], [0, 7, 0]]  # steps of 3.5
    tall = crops.spatial_crops(columns(15, 8), 8)
    assert tall[:, 0, 0, 0].tolist() == [[0, 0, 0], [3, 0, 0], [7, 0, 0]]
    assert crops.spatial_crops(columns(10, 13), 8)[:, 0, 0, 0, 0].tolist() == [1, 1, 1]


def test_mmactions_crops_have_a_truncated_step():
    wide = crops.spatial_crops(columns(8, 15), 8, 3, "mmcv_linear")
    assert wide[:, 0, 0, 0].tolist() == [[0, 0, 0], [0, 3, 0], [0, 6, 0]]  # VideoMAE's ends at 7
    tall = crops.spatial_crops(columns(15, 9), 8, 3, "mmcv_linear")
    assert tall[:, 0, 0, 0].tolist() == [[0, 0, 0], [3, 0, 0], [6, 0, 0]]
    five = crops.spatial_crops(columns(8, 19), 8, 5, "mmcv_linear")
    assert five[:, 0, 0, 0, 1].tolist() == [0, 2, 4, 6, 8]  # of 11 // 4


def test_several_views_may_have_a_shorter_side_of_their_own():
    frames = noise(2, 60, 91, 3)
    facts = Preprocessing(size=24, short_side=32, views_short_side=26, resize="mmcv_linear")
    whole = {side: resize_short_side(frames, side, "mmcv_linear") for side in (26, 32)}
    one = crops.center_crop(whole[32], 24, "mmcv_linear")
    assert np.array_equal(clips.eval_views(frames, facts)[0], one)
    three = crops.spatial_crops(whole[26], 24, 3, "mmcv_linear")
    assert np.array_equal(clips.eval_views(frames, facts, 3), three)
    facts = Preprocessing(size=24, short_side=32, resize="mmcv_linear")
    three = crops.spatial_crops(whole[32], 24, 3, "mmcv_linear")
    assert np.array_equal(clips.eval_views(frames, facts, 3), three)


def test_multi_scale_crop_has_4_scales_and_13_places():
    rng = np.random.default_rng(0)
    boxes = {crops.multi_scale_crop(200, 300, 64, rng) for _ in range(20_000)}
    sides = {1: 200, 2: 175, 3: 150, 4: 132}  # int(200 * .66)
    shapes = {(sides[i], sides[j]) for i in sides for j in sides if abs(i - j) <= 1}
    assert {box[2:] for box in boxes} == shapes
    places = {(top, left) for top, left, height, width in boxes if (height, width) == (150, 175)}
    tops, lefts = 12, 31  # (200 - 150) // 4, (300 - 175) // 4
    even = {(row * tops, column * lefts) for row in (0, 2, 4) for column in (0, 2, 4)}
    assert places == even | {(row * tops, column * lefts) for row in (1, 3) for column in (1, 3)}


def test_corner_crop_has_5_places():
    rng = np.random.default_rng(0)
    boxes = [crops.multi_scale_crop(256, 341, 224, rng, crops._CORNERS) for _ in range(5000)]
    sides = (256, 224, 192, 168)
    shapes = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    assert {box[2:] for box in boxes} == set(shapes)
    # Quarters are cut to whole pixels: (341 - 192) // 4 = 37 and (256 - 224) // 4 = 8.
    places = [box[:2] for box in boxes if box[2:] == (224, 192)]
    assert set(places) == {(0, 0), (0, 148), (32, 0), (32, 148), (16, 74)}
    assert abs(places.count((16, 74)) / len(places) - 1 / 5) < 0.08


def test_multi_scale_crop_snaps_to_the_size_within_2_pixels():
    rng = np.random.default_rng(0)
    for base, snapped in ((226, 224), (227, 227), (223, 223)):  # 224 does not fit into 223
        heights = {crops.multi_scale_crop(base, 400, 224, rng)[2] for _ in range(300)}
        assert max(heights) == snapped


def test_corner_crop_resizes_twice(monkeypatch):
    frames, seen = noise(2, 60, 91, 3), []

    def crop(height, width, size, rng, places):
        seen.append((height, width, size, len(places)))
        return 4, 6, 27, 24

    monkeypatch.setattr(crops, "multi_scale_crop", crop)
    cfg = config(augment="corner_crop", short_side=36, resize="mmcv_linear")
    clip = clips.train_clip(frames, np.random.default_rng(0), cfg)
    assert seen == [(36, 55, 32, 5)]  # 54.6 rounded
    box = resize_short_side(frames, 36, "mmcv_linear")[:, 4:31, 6:30]
    assert np.array_equal(clip, resize(box, 32, 32, "mmcv_linear"))
    once = resize(frames[:, 7:52, 10:50], 32, 32, "mmcv_linear")
    assert np.abs(clip.astype(int) - once).mean() > 10  # another picture: noise shows the blur


def test_random_resized_crop_covers_its_ranges():
    rng = np.random.default_rng(0)
    boxes = np.array([crops.random_resized_crop(240, 320, rng) for _ in range(5000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 240).all() and (left + width <= 320).all()
    share, ratio = height * width / (240 * 320), width / height
    assert 0.075 < share.min() < 0.1 and share.max() > 0.95
    assert 0.73 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.36
    small = share < 0.4  # all of these fit: half are upright in log-uniform, 43% in uniform
    assert abs((ratio[small] < 1).mean() - 0.5) < 0.03


def test_random_resized_crop_falls_back_to_the_centre():
    rng = np.random.default_rng(0)
    assert crops.random_resized_crop(10, 1000, rng) == (0, 493, 10, 13)
    assert crops.random_resized_crop(1000, 10, rng) == (493, 0, 13, 10)


def test_scale_jitter_stretches_height_and_width_each_for_itself():
    rng = np.random.default_rng(0)
    draws = [crops.scale_jitter(100, 201, 256, 224, rng) for _ in range(5000)]
    height, width, top, left = np.array(draws).T
    for side, base in ((height, 256), (width, 514)):  # 256 * 201 // 100
        assert side.min() >= int(0.9 * base) and side.max() <= int(1.33 * base)
        factor = (side + 0.5) / base
        assert factor.min() < 0.91 and factor.max() > 1.32
        assert abs(factor.mean() - 1.115) < 0.01 and abs(factor.std() - 0.43 / 12**0.5) < 0.005
    assert abs(np.corrcoef(height, width)[0, 1]) < 0.05
    for start, side in ((top, height), (left, width)):
        share = start / (side - 224)
        assert share.min() == 0 and share.max() == 1 and abs(share.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.05


def test_scale_jitter_is_a_crop_of_one_resize(monkeypatch):
    monkeypatch.setattr(crops, "scale_jitter", lambda *_: (41, 57, 5, 11))
    frames = noise(2, 30, 50, 3)
    cfg = config(augment="scale_jitter", short_side=40, resize="tf_bilinear")
    clip = clips.train_clip(frames, np.random.default_rng(0), cfg)
    whole = resize(frames, 41, 57, "tf_bilinear")
    assert np.array_equal(clip, whole[:, 5:37, 11:43])


def test_scale_jitter_needs_room():
    with pytest.raises(UserError, match="to at least 36"):
        clips.check_training(config(augment="scale_jitter", short_side=35))
    clips.check_training(config(augment="scale_jitter", short_side=36))


def test_training_crops_resize_as_the_reference_does(monkeypatch):
    frames = noise(1, 100, 120, 3)
    box = (10, 20, 80, 60)
    monkeypatch.setattr(crops, "multi_scale_crop", lambda *_: box)
    monkeypatch.setattr(crops, "random_resized_crop", lambda *_: box)
    crop = frames[0, 10:90, 20:80]

    def clip(augment):
        return clips.train_clip(frames, np.random.default_rng(0), config(augment=augment))[0]

    pillow = Image.fromarray(crop).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(clip("multi_scale_crop"), np.asarray(pillow))  # antialiased
    linear = np.apply_along_axis(linear_resize, 0, crop.astype(float), 32)
    linear = np.apply_along_axis(linear_resize, 1, linear, 32)
    assert np.abs(clip("random_resized_crop") - linear).max() <= 1.0  # not antialiased
