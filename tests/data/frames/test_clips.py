"""Clips of frames against the original code's goldens; the order of crops, flip and RandAugment."""

import os
import pathlib

import numpy as np
import pytest

from tests.support.frames import config, noise, smooth
from vidjax.data.frames import clips, crops, randaugment, scenic_randaugment
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

GOLDEN = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_videomae"
VIVIT = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_vivit" / "golden.npz"
VIDEOPRISM = GOLDEN.parent / "preprocess_videoprism" / "golden.npz"
XCLIP = GOLDEN.parent / "preprocess_xclip" / "golden.npz"
CLIPS = os.environ.get("VIDJAX_CLIPS")
RANDAUG = "rand-m7-n4-mstd0.5-inc1"


def normalise(video):
    return (video / 255 - np.array(Preprocessing.mean)) / np.array(Preprocessing.std)


@pytest.mark.parametrize(
    ("case", "short_side", "size"), [("synthetic0", 40, 32), ("synthetic1", 48, 40)]
)
def test_evaluation_transform_is_videomaes(case, short_side, size):
    frames = np.load(GOLDEN / "inputs.npz")[f"{case}/frames"]
    want = np.load(GOLDEN / "outputs.npz")[f"{case}/output_CTHW"].transpose(1, 2, 3, 0)
    facts = Preprocessing(short_side=short_side, size=size)
    assert np.abs(normalise(clips.eval_views(frames, facts)[0]) - want).max() < 1e-6
    # The other convention must be far off, or the golden says nothing about antialiasing.
    facts = Preprocessing(short_side=short_side, size=size, resize="pil_bilinear")
    assert np.abs(normalise(clips.eval_views(frames, facts)[0]) - want).max() > 0.1


@pytest.mark.skipif(not CLIPS, reason="set VIDJAX_CLIPS to a folder with mmaction2_demo.mp4")
def test_evaluation_of_a_real_clip_is_videomaes():
    from vidjax.data.reading.video import read_frames

    golden = np.load(GOLDEN / "outputs.npz")
    path = os.path.join(CLIPS, "mmaction2_demo.mp4")

    def check(case, video):
        video = normalise(video)
        assert np.abs(video.mean((1, 2)) - golden[f"{case}/frame_mean"]).max() < 1e-6
        rows = video[golden[f"{case}/exact_rows_frames"]][:, golden[f"{case}/exact_rows_index"]]
        assert np.abs(rows - golden[f"{case}/exact_rows"]).max() < 1e-6

    case = "validation_256_224"
    frames, _ = read_frames(path, lambda n: golden[f"{case}/frame_indices"])
    check(case, clips.eval_views(frames, Preprocessing(short_side=256))[0])
    views = clips.prepare(path, Preprocessing(frames=8), (2, 3))
    check("test_view_t0_s0", views[0])
    check("test_view_t1_s2", views[5])


@pytest.mark.parametrize(("case", "size"), [("square", 40), ("wide", 36)])
def test_evaluation_transform_is_videoprisms(case, size):
    golden = np.load(VIDEOPRISM)
    frames, want = golden[f"{case}/frames"], golden[f"{case}/output"].astype(int)
    facts = Preprocessing(short_side=size, size=size, resize="pil_lanczos")
    assert np.array_equal(clips.eval_views(frames, facts)[0], want)
    for other in ("pil_bicubic", "pil_bilinear", "cv2_linear"):
        facts = Preprocessing(short_side=size, size=size, resize=other)
        assert np.abs(clips.eval_views(frames, facts)[0] - want).max() >= 8


@pytest.mark.skipif(not CLIPS, reason="set VIDJAX_CLIPS to a folder with mmaction2_demo.mp4")
def test_evaluation_of_a_real_clip_is_videoprisms():
    golden = np.load(VIDEOPRISM)
    facts = Preprocessing(
        short_side=180, size=180, frames=16, sampling="linspace", resize="pil_lanczos"
    )
    (clip,) = clips.prepare(os.path.join(CLIPS, "mmaction2_demo.mp4"), facts)
    assert np.abs(clip.mean((1, 2)) / 255 - golden["clip/frame_mean"]).max() < 1e-7
    rows = clip[golden["clip/rows_frames"]][:, golden["clip/rows_index"]]
    assert np.array_equal(rows, golden["clip/rows"])


XCLIP_FACTS = dict(sampling="segment", resize="mmcv_linear", short_side=256, views_short_side=224)


@pytest.mark.parametrize(("case", "views"), [("synthetic0", 1), ("synthetic1", 3)])
def test_evaluation_transform_is_xclips(case, views):
    golden = np.load(XCLIP)
    frames, want = golden[f"{case}/frames"], golden[f"{case}/output"]
    if views == 3:  # all frames of the first crop, then of the last, then of the middle one
        want = want.reshape(3, len(frames), 32, 32, 3)[[0, 2, 1]]
    facts = XCLIP_FACTS | dict(size=32, short_side=36, views_short_side=32)
    ours = clips.eval_views(frames, Preprocessing(**facts), views)
    assert np.abs(normalise(ours) - want).max() < 1e-6
    for wrong in (dict(resize="pil_bilinear"), dict(short_side=37, views_short_side=33)):
        ours = clips.eval_views(frames, Preprocessing(**facts | wrong), views)
        assert np.abs(normalise(ours) - want).max() > 0.1


@pytest.mark.skipif(not CLIPS, reason="set VIDJAX_CLIPS to a folder with mmaction2_demo.mp4")
def test_evaluation_of_a_real_clip_is_xclips():
    from vidjax.data.reading.video import read_frames

    golden, path = np.load(XCLIP), os.path.join(CLIPS, "mmaction2_demo.mp4")
    facts = Preprocessing(**XCLIP_FACTS, frames=8)

    def check(case, video):
        video = normalise(video)
        assert np.abs(video.mean((1, 2)) - golden[f"{case}/frame_mean"]).max() < 1e-6
        rows = video[golden[f"{case}/exact_rows_frames"]][:, golden[f"{case}/exact_rows_index"]]
        assert np.abs(rows - golden[f"{case}/exact_rows"]).max() < 1e-6

    check("one", clips.prepare(path, facts)[0])
    # Its views in time are drawn at random: these are the 32 frames that it drew.
    drawn, place = np.unique(golden["three/frame_indices"], return_inverse=True)
    frames, _ = read_frames(path, lambda n: drawn)
    crops = clips.eval_views(frames, facts, 3)[[0, 2, 1]][:, place]
    kept = golden["three/frame_mean_frames"]  # every fourth
    check("three", crops.reshape(-1, 224, 224, 3)[kept])


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(2, 300, 401, 3), (2, 333, 240, 3), (1, 100, 90, 3)])
def test_pil_bilinear_is_the_hugging_face_processor(shape):
    transformers = pytest.importorskip("transformers")
    frames = noise(*shape)
    processor = transformers.VideoMAEImageProcessorPil(do_rescale=False, do_normalize=False)
    want = np.asarray(processor(list(frames), return_tensors="np")["pixel_values"][0])
    ours = clips.eval_views(frames, Preprocessing(resize="pil_bilinear"))[0]
    assert np.array_equal(ours, want.transpose(0, 2, 3, 1))


def test_prepare_orders_views_and_decodes_arrays_as_told():
    video = np.zeros((40, 8, 12, 3), np.uint8)
    video[..., 0] = np.arange(40)[:, None, None]  # the frame's number
    video[..., 1] = np.arange(12)  # the column
    facts = Preprocessing(frames=4, stride=2, size=8, short_side=8)
    made = clips.prepare(video, facts, (3, 3))
    assert made.shape == (9, 4, 8, 8, 3) and made.dtype == np.uint8
    assert made[:, 0, 0, 0, 0].tolist() == [0, 0, 0, 16, 16, 16, 32, 32, 32]
    assert made[:, 0, 0, 0, 1].tolist() == [0, 2, 4] * 3
    assert (np.diff(made[:, :, 0, 0, 0].astype(int)) == 2).all()
    one = clips.prepare(video, facts)
    assert one.shape == (1, 4, 8, 8, 3)
    assert np.array_equal(one[0], made[4])  # the middle clip, the centre crop
    short = clips.prepare(video[:5], facts)
    assert short[0, :, 0, 0, 0].tolist() == [0, 2, 4, 4]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((3, 4, 8, 8), np.uint8),
    ],
)
def test_prepare_refuses_other_arrays(array):
    with pytest.raises(UserError, match=r"integers from 0 to 255 as \[frames, height, width, 3\]"):
        clips.prepare(array, Preprocessing())


@pytest.mark.parametrize(
    ("augment", "policy"),
    [
        *(("multi_scale_crop", RANDAUG), ("random_resized_crop", RANDAUG)),
        *(("center_crop", RANDAUG), ("scale_jitter", RANDAUG), ("corner_crop", "")),
    ],
)
def test_one_box_for_all_frames(augment, policy):
    frames = np.repeat(smooth(1), 5, axis=0)
    cfg = config(augment=augment, rand_augment=policy, flip=0.5, short_side=36)
    for seed in range(10):
        clip = clips.train_clip(frames, np.random.default_rng(seed), cfg)
        assert clip.shape == (5, 32, 32, 3) and clip.dtype == np.uint8 and clip.flags.c_contiguous
        assert (clip == clip[:1]).all()
        again = clips.train_clip(frames, np.random.default_rng(seed), cfg)
        assert np.array_equal(clip, again)


def test_flip_has_its_probability_and_mirrors_columns():
    frames, rng = smooth(1, 32, 32), np.random.default_rng(0)

    def flipped(flip):
        drawn = [clips.train_clip(frames, rng, config(flip=flip)) for _ in range(400)]
        assert all(
            np.array_equal(c, frames) or np.array_equal(c, frames[:, :, ::-1]) for c in drawn
        )
        return np.mean([not np.array_equal(clip, frames) for clip in drawn])

    assert flipped(0.0) == 0
    assert flipped(1.0) == 1
    assert abs(flipped(0.5) - 0.5) < 0.1


def test_randaugment_sees_whole_frames_before_the_crop(monkeypatch):
    seen = []
    monkeypatch.setattr(
        randaugment, "rand_augment", lambda frames, *_: (seen.append(frames.shape), frames)[1]
    )
    cfg = config(augment="random_resized_crop", rand_augment=RANDAUG)
    clips.train_clip(noise(2, 50, 70, 3), np.random.default_rng(0), cfg)
    assert seen == [(2, 50, 70, 3)]


def test_scenics_randaugment_sees_the_flipped_crop(monkeypatch):
    seen = []

    def record(clip, rng, policy):
        seen.append((clip.copy(), policy))
        return clip + 1

    monkeypatch.setattr(scenic_randaugment, "rand_augment", record)
    frames = noise(2, 32, 50, 3)
    cfg = config(rand_augment="scenic-n2-m15", flip=1.0)
    clip = clips.train_clip(frames, np.random.default_rng(0), cfg)
    crop = crops.center_crop(frames, 32, "cv2_linear")[:, :, ::-1]
    assert np.array_equal(seen[0][0], crop) and seen[0][1] == "scenic-n2-m15"
    assert np.array_equal(clip, crop + 1)
    clips.train_clip(frames, np.random.default_rng(0), config(rand_augment=RANDAUG))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "policy",
    [
        "scenic-n2",
        "scenic-n2-m31",
        "scenic-m2-n2",
        "m7-n4",
        "rand-m7-n4-mstd0.5",
        "rand-m7-n4-inc0",
        "augmix",
    ],
)
def test_wrong_policies_and_crops_are_named(policy):
    with pytest.raises(UserError, match=policy):
        clips.check_training(config(rand_augment=policy))
    with pytest.raises(UserError, match="augment is 'crop'"):
        clips.check_training(config(augment="crop"))
    clips.check_training(config(rand_augment=RANDAUG))
    clips.check_training(config(rand_augment="scenic-n2-m20"))
