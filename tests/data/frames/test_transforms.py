"""Host transforms against the original code's goldens, Pillow, and rules worked out by hand."""

import os
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vidjax.data.frames import transforms
from vidjax.errors import UserError
from vidjax.preprocessing import RESIZES, Preprocessing

GOLDEN = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_videomae"
VIVIT = pathlib.Path(__file__).parents[2] / "goldens" / "preprocess_vivit" / "golden.npz"
VIDEOPRISM = GOLDEN.parent / "preprocess_videoprism" / "golden.npz"
XCLIP = GOLDEN.parent / "preprocess_xclip" / "golden.npz"
CLIPS = os.environ.get("VIDJAX_CLIPS")
RANDAUG = "rand-m7-n4-mstd0.5-inc1"


def config(**changes):
    fields = dict(
        augment="center_crop",
        rand_augment="",
        flip=0.0,
        size=32,
        short_side=32,
        resize="cv2_linear",
    )
    return SimpleNamespace(**(fields | changes))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(num_frames=2, height=60, width=80):
    coarse = noise(num_frames, 6, 8, 3) // 2 + 40  # a contrast that can grow
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
            for frame in coarse
        ]
    )


def columns(height, width):
    """One frame whose pixels are (row, column, 0)."""
    frame = np.zeros((1, height, width, 3), np.uint8)
    frame[..., 0] = np.arange(height)[:, None]
    frame[..., 1] = np.arange(width)
    return frame


def normalise(video):
    return (video / 255 - np.array(Preprocessing.mean)) / np.array(Preprocessing.std)


# --- goldens ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "short_side", "size"), [("synthetic0", 40, 32), ("synthetic1", 48, 40)]
)
def test_evaluation_transform_is_videomaes(case, short_side, size):
    frames = np.load(GOLDEN / "inputs.npz")[f"{case}/frames"]
    want = np.load(GOLDEN / "outputs.npz")[f"{case}/output_CTHW"].transpose(1, 2, 3, 0)
    facts = Preprocessing(short_side=short_side, size=size)
    assert np.abs(normalise(transforms.eval_views(frames, facts)[0]) - want).max() < 1e-6
    # The other convention must be far off, or the golden says nothing about antialiasing.
    facts = Preprocessing(short_side=short_side, size=size, resize="pil_bilinear")
    assert np.abs(normalise(transforms.eval_views(frames, facts)[0]) - want).max() > 0.1


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
    check(case, transforms.eval_views(frames, Preprocessing(short_side=256))[0])
    views = transforms.prepare(path, Preprocessing(frames=8), (2, 3))
    check("test_view_t0_s0", views[0])
    check("test_view_t1_s2", views[5])


@pytest.mark.parametrize(("case", "size"), [("square", 40), ("wide", 36)])
def test_evaluation_transform_is_videoprisms(case, size):
    golden = np.load(VIDEOPRISM)
    frames, want = golden[f"{case}/frames"], golden[f"{case}/output"].astype(int)
    facts = Preprocessing(short_side=size, size=size, resize="pil_lanczos")
    assert np.array_equal(transforms.eval_views(frames, facts)[0], want)
    for other in ("pil_bicubic", "pil_bilinear", "cv2_linear"):
        facts = Preprocessing(short_side=size, size=size, resize=other)
        assert np.abs(transforms.eval_views(frames, facts)[0] - want).max() >= 8


@pytest.mark.skipif(not CLIPS, reason="set VIDJAX_CLIPS to a folder with mmaction2_demo.mp4")
def test_evaluation_of_a_real_clip_is_videoprisms():
    golden = np.load(VIDEOPRISM)
    facts = Preprocessing(
        short_side=180, size=180, frames=16, sampling="linspace", resize="pil_lanczos"
    )
    (clip,) = transforms.prepare(os.path.join(CLIPS, "mmaction2_demo.mp4"), facts)
    assert np.abs(clip.mean((1, 2)) / 255 - golden["clip/frame_mean"]).max() < 1e-7
    rows = clip[golden["clip/rows_frames"]][:, golden["clip/rows_index"]]
    assert np.array_equal(rows, golden["clip/rows"])


# What X-CLIP does at 224 pixels: shorter side 256 for one crop, 224 for three.
XCLIP_FACTS = dict(sampling="segment", resize="mmcv_linear", short_side=256, views_short_side=224)


@pytest.mark.parametrize(("case", "views"), [("synthetic0", 1), ("synthetic1", 3)])
def test_evaluation_transform_is_xclips(case, views):
    golden = np.load(XCLIP)
    frames, want = golden[f"{case}/frames"], golden[f"{case}/output"]
    if views == 3:  # all frames of the first crop, then of the last, then of the middle one
        want = want.reshape(3, len(frames), 32, 32, 3)[[0, 2, 1]]
    facts = XCLIP_FACTS | dict(size=32, short_side=36, views_short_side=32)
    ours = transforms.eval_views(frames, Preprocessing(**facts), views)
    assert np.abs(normalise(ours) - want).max() < 1e-6
    for wrong in (dict(resize="pil_bilinear"), dict(short_side=37, views_short_side=33)):
        ours = transforms.eval_views(frames, Preprocessing(**facts | wrong), views)
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

    check("one", transforms.prepare(path, facts)[0])
    # Its views in time are drawn at random: these are the 32 frames that it drew.
    drawn, place = np.unique(golden["three/frame_indices"], return_inverse=True)
    frames, _ = read_frames(path, lambda n: drawn)
    crops = transforms.eval_views(frames, facts, 3)[[0, 2, 1]][:, place]
    kept = golden["three/frame_mean_frames"]  # every fourth
    check("three", crops.reshape(-1, 224, 224, 3)[kept])


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(2, 300, 401, 3), (2, 333, 240, 3), (1, 100, 90, 3)])
def test_pil_bilinear_is_the_hugging_face_processor(shape):
    transformers = pytest.importorskip("transformers")
    frames = noise(*shape)
    processor = transformers.VideoMAEImageProcessorPil(do_rescale=False, do_normalize=False)
    want = np.asarray(processor(list(frames), return_tensors="np")["pixel_values"][0])
    ours = transforms.eval_views(frames, Preprocessing(resize="pil_bilinear"))[0]
    assert np.array_equal(ours, want.transpose(0, 2, 3, 1))


# --- resize and evaluation crops ----------------------------------------------------------------


def triangle_resize(row, size):
    """Antialiased linear resize of float [width], the rule that Pillow rounds."""
    scale = len(row) / size
    support = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(len(row)) + 0.5 - centres[:, None]) / support)
    return (weights / weights.sum(1, keepdims=True)) @ row


def linear_resize(row, size):
    """Linear interpolation between pixel centres, without antialias."""
    centres = (np.arange(size) + 0.5) * len(row) / size - 0.5
    return np.interp(centres, np.arange(len(row)), row)


def test_the_two_conventions_differ_by_antialiasing():
    frames = noise(1, 1, 90, 3)
    ours = transforms.resize(frames, 1, 37, "pil_bilinear")[0, 0, :, 0]
    assert np.abs(ours - triangle_resize(frames[0, 0, :, 0].astype(float), 37)).max() <= 0.51
    ours = transforms.resize(frames, 1, 37, "cv2_linear")[0, 0, :, 0]
    assert np.abs(ours - linear_resize(frames[0, 0, :, 0].astype(float), 37)).max() <= 1.0


def truncated(exact):
    """What tf.cast makes of floats that may be some 1e-4 below an integer that they should be."""
    return np.floor(exact + 1e-3)


def test_tf_bilinear_cuts_fractions_off():
    frames = noise(1, 1, 97, 3)
    ours = transforms.resize(frames, 1, 41, "tf_bilinear")[0, 0, :, 0]
    exact = linear_resize(frames[0, 0, :, 0].astype(float), 41)
    assert np.array_equal(ours, truncated(exact))
    assert (ours != exact.round()).mean() > 0.3  # rounding is something else, and what cv2 does


@pytest.mark.parametrize("size", [(7, 9), (29, 31), (40, 11), (224, 298)])
def test_tf_bilinear_keeps_flat_regions(size):
    levels = np.arange(256, dtype=np.uint8)[:, None, None, None]
    flat = np.broadcast_to(levels, (256, 13, 17, 3))
    assert (transforms.resize(flat, *size, "tf_bilinear") == levels).all()


def test_tf_bilinear_is_tensorflows():
    golden = np.load(VIVIT)
    frames = golden["resize/frames"]
    for side in (16, 50):
        ours = transforms.resize_short_side(frames, side, "tf_bilinear")
        error = np.abs(ours.astype(int) - golden[f"resize/smallest{side}"])
        # TensorFlow's own float32 positions put a few values to the other side of an integer.
        assert error.max() <= 1 and (error > 0).mean() < 2e-3
    ours = transforms.resize(frames, 28, 33, "tf_bilinear")
    assert (ours != golden["resize/28x33"]).mean() < 2e-3
    assert (transforms.resize(frames, 28, 33, "cv2_linear") != golden["resize/28x33"]).mean() > 0.2


@pytest.mark.parametrize("name", ["wide", "tall", "square"])
def test_tf_bilinear_crops_are_scenics_and_dmvrs(name):
    golden = np.load(VIVIT)
    frames = golden[f"crops/{name}/frames"]
    facts = Preprocessing(size=6, short_side=11, resize="tf_bilinear")
    three = transforms.eval_views(frames, facts, 3)
    assert np.array_equal(three[:, 0], golden[f"crops/{name}/three"])
    assert np.array_equal(transforms.eval_views(frames, facts)[0], golden[f"crops/{name}/centre"])
    # An odd margin: the middle one of three crops is not the centre crop.
    assert not np.array_equal(three[1], transforms.eval_views(frames, facts)[0])
    assert not np.array_equal(three, transforms.spatial_crops(frames, 6))


@pytest.mark.parametrize("convention", RESIZES)
def test_long_side_is_truncated_but_rounded_by_mediapy_and_mmcv(convention):
    long = 54 if convention in ("pil_lanczos", "mmcv_linear") else 53  # of 53.9
    frames = noise(1, 72, 97, 3)
    assert transforms.resize_short_side(frames, 40, convention).shape == (1, 40, long, 3)
    frames = frames.swapaxes(1, 2)
    assert transforms.resize_short_side(frames, 40, convention).shape == (1, long, 40, 3)
    assert transforms.resize_short_side(frames, 72, convention) is frames


def test_mmcv_rounds_halves_up():
    for width, long in ((340, 298), (348, 305), (341, 298)):  # of 297.5, 304.5 and 298.4
        frames = np.zeros((1, 256, width, 3), np.uint8)
        found = transforms.resize_short_side(frames, 224, "mmcv_linear")
        assert found.shape == (1, 224, long, 3)


@pytest.mark.parametrize(
    ("margin", "cv2_start", "pil_start"), [(1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (7, 4, 3)]
)
def test_centre_crop_rounds_as_the_convention(margin, cv2_start, pil_start):
    frames = columns(8, 8 + margin)
    assert transforms.center_crop(frames, 8, "cv2_linear")[0, 0, 0, 1] == cv2_start
    assert transforms.center_crop(frames, 8, "pil_bilinear")[0, 0, 0, 1] == pil_start
    assert transforms.center_crop(frames, 8, "tf_bilinear")[0, 0, 0, 1] == pil_start
    assert transforms.center_crop(frames, 8, "mmcv_linear")[0, 0, 0, 1] == pil_start


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_pillows_filters_go_by_their_names(name):
    frames = noise(2, 40, 51, 3)
    filter = Image.Resampling[name.upper()]
    want = np.stack([np.asarray(Image.fromarray(f).resize((30, 20), filter)) for f in frames])
    assert np.array_equal(transforms.resize(frames, 20, 30, f"pil_{name}"), want)


@pytest.mark.parametrize("shape", [(1, 40, 61, 3), (1, 61, 40, 3)])
@pytest.mark.parametrize("resize", ["pil_bicubic", "cv2_linear"])
def test_frames_become_square(shape, resize):
    frames = noise(*shape)
    wide = shape[2] > shape[1]
    square = frames[:, :, 10:50] if wide else frames[:, 10:50]  # an odd margin, cut off
    want = {
        "crop": transforms.center_crop(
            transforms.resize_short_side(frames, 32, resize), 24, resize
        ),
        "stretch": transforms.resize(frames, 24, 24, resize),
        "crop_first": transforms.resize(square, 24, 24, resize),
        "no_resize": transforms.center_crop(frames, 24, resize),
    }
    for fit, clip in want.items():
        facts = Preprocessing(size=24, short_side=32, resize=resize, fit=fit)
        assert np.array_equal(transforms.eval_views(frames, facts)[0], clip), fit
        # So does training without random crops.
        cfg = config(size=24, short_side=32, resize=resize, fit=fit)
        trained = transforms.train_clip(frames, np.random.default_rng(0), cfg)
        assert np.array_equal(trained, clip), fit
        for augment in ("random_resized_crop", "multi_scale_crop"):
            clips = [
                transforms.train_clip(
                    frames, np.random.default_rng(0), config(augment=augment, fit=f)
                )
                for f in ("crop", fit)
            ]
            assert np.array_equal(*clips), (augment, fit)


def test_frames_stretched_to_more_than_the_crop():
    frames = noise(1, 40, 61, 3)
    facts = Preprocessing(size=24, resize="pil_bilinear", fit="stretch", stretch_to=[31, 26])
    want = transforms.resize(frames, 31, 26, "pil_bilinear")[:, 3:27, 1:25]
    assert np.array_equal(transforms.eval_views(frames, facts)[0], want)
    with pytest.raises(
        UserError, match=r"size 24 does not fit frames stretched to \(31, 20\); set"
    ):
        Preprocessing(size=24, fit="stretch", stretch_to=(31, 20))


def test_longer_side_of_lanczos():
    frames = noise(1, 64, 101, 3)  # in proportion 50.5 wide, and 33.5 where 21 high
    assert transforms.resize_short_side(frames, 32, "hf_lanczos").shape[2] == 50
    assert transforms.resize_short_side(noise(1, 40, 64, 3), 21, "hf_lanczos").shape[2] == 33
    assert transforms.resize_short_side(noise(1, 40, 64, 3), 21, "pil_lanczos").shape[2] == 34
    one, other = (transforms.resize(frames, 20, 30, f"{home}_lanczos") for home in ("hf", "pil"))
    assert np.array_equal(one, other)


def test_only_crops_have_several_spatial_views():
    for fit in ("stretch", "crop_first", "no_resize"):
        facts = Preprocessing(size=24, short_side=8, fit=fit)  # which it does not use
        with pytest.raises(UserError, match=f"fit '{fit}' makes one square of a frame, not 3"):
            transforms.eval_views(noise(1, 30, 40, 3), facts, 3)


def test_spatial_crops_start_at_truncated_steps_along_the_long_side():
    wide = transforms.spatial_crops(columns(8, 15), 8)
    assert wide.shape == (3, 1, 8, 8, 3)
    assert wide[:, 0, 0, 0].tolist() == [[0, 0, 0], [0, 3, 0], [0, 7, 0]]  # steps of 3.5
    tall = transforms.spatial_crops(columns(15, 8), 8)
    assert tall[:, 0, 0, 0].tolist() == [[0, 0, 0], [3, 0, 0], [7, 0, 0]]
    assert transforms.spatial_crops(columns(10, 13), 8)[:, 0, 0, 0, 0].tolist() == [1, 1, 1]


def test_mmactions_crops_have_a_truncated_step():
    wide = transforms.spatial_crops(columns(8, 15), 8, 3, "mmcv_linear")
    assert wide[:, 0, 0, 0].tolist() == [[0, 0, 0], [0, 3, 0], [0, 6, 0]]  # VideoMAE's ends at 7
    tall = transforms.spatial_crops(columns(15, 9), 8, 3, "mmcv_linear")
    assert tall[:, 0, 0, 0].tolist() == [[0, 0, 0], [3, 0, 0], [6, 0, 0]]
    five = transforms.spatial_crops(columns(8, 19), 8, 5, "mmcv_linear")
    assert five[:, 0, 0, 0, 1].tolist() == [0, 2, 4, 6, 8]  # of 11 // 4


def test_several_views_may_have_a_shorter_side_of_their_own():
    frames = noise(2, 60, 91, 3)
    facts = Preprocessing(size=24, short_side=32, views_short_side=26, resize="mmcv_linear")
    whole = {side: transforms.resize_short_side(frames, side, "mmcv_linear") for side in (26, 32)}
    one = transforms.center_crop(whole[32], 24, "mmcv_linear")
    assert np.array_equal(transforms.eval_views(frames, facts)[0], one)
    three = transforms.spatial_crops(whole[26], 24, 3, "mmcv_linear")
    assert np.array_equal(transforms.eval_views(frames, facts, 3), three)
    facts = Preprocessing(size=24, short_side=32, resize="mmcv_linear")
    three = transforms.spatial_crops(whole[32], 24, 3, "mmcv_linear")
    assert np.array_equal(transforms.eval_views(frames, facts, 3), three)


def test_prepare_orders_views_and_decodes_arrays_as_told():
    video = np.zeros((40, 8, 12, 3), np.uint8)
    video[..., 0] = np.arange(40)[:, None, None]  # the frame's number
    video[..., 1] = np.arange(12)  # the column
    facts = Preprocessing(frames=4, stride=2, size=8, short_side=8)
    clips = transforms.prepare(video, facts, (3, 3))
    assert clips.shape == (9, 4, 8, 8, 3) and clips.dtype == np.uint8
    assert clips[:, 0, 0, 0, 0].tolist() == [0, 0, 0, 16, 16, 16, 32, 32, 32]
    assert clips[:, 0, 0, 0, 1].tolist() == [0, 2, 4] * 3
    assert (np.diff(clips[:, :, 0, 0, 0].astype(int)) == 2).all()
    one = transforms.prepare(video, facts)
    assert one.shape == (1, 4, 8, 8, 3)
    assert np.array_equal(one[0], clips[4])  # the middle clip, the centre crop
    short = transforms.prepare(video[:5], facts)
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
        transforms.prepare(array, Preprocessing())


def test_preprocessing_reads_configs_and_refuses_nonsense():
    cfg = SimpleNamespace(frames=8, mean=[0.5, 0.5, 0.5], batch_size=4, size=112)
    facts = Preprocessing.from_config(cfg)
    assert facts == Preprocessing(frames=8, mean=(0.5, 0.5, 0.5), size=112)
    for wrong in (
        dict(resize="bicubic"),
        dict(sampling="uniform"),
        dict(fit="pad"),
        dict(view_average="max"),
        dict(size=256),
        dict(views_short_side=223),
    ):
        with pytest.raises(UserError):
            Preprocessing(**wrong)


# --- training crops and flip --------------------------------------------------------------------


def test_multi_scale_crop_has_4_scales_and_13_places():
    rng = np.random.default_rng(0)
    boxes = {transforms.multi_scale_crop(200, 300, 64, rng) for _ in range(20_000)}
    sides = {1: 200, 2: 175, 3: 150, 4: 132}  # int(200 * .66)
    shapes = {(sides[i], sides[j]) for i in sides for j in sides if abs(i - j) <= 1}
    assert {box[2:] for box in boxes} == shapes
    places = {(top, left) for top, left, height, width in boxes if (height, width) == (150, 175)}
    tops, lefts = 12, 31  # (200 - 150) // 4, (300 - 175) // 4
    even = {(row * tops, column * lefts) for row in (0, 2, 4) for column in (0, 2, 4)}
    assert places == even | {(row * tops, column * lefts) for row in (1, 3) for column in (1, 3)}


def test_corner_crop_has_5_places():
    rng = np.random.default_rng(0)
    boxes = [transforms.multi_scale_crop(256, 341, 224, rng, transforms._CORNERS)
             for _ in range(5000)]  # fmt: skip
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
        heights = {transforms.multi_scale_crop(base, 400, 224, rng)[2] for _ in range(300)}
        assert max(heights) == snapped


def test_corner_crop_resizes_twice(monkeypatch):
    frames, seen = noise(2, 60, 91, 3), []

    def crop(height, width, size, rng, places):
        seen.append((height, width, size, len(places)))
        return 4, 6, 27, 24

    monkeypatch.setattr(transforms, "multi_scale_crop", crop)
    cfg = config(augment="corner_crop", short_side=36, resize="mmcv_linear")
    clip = transforms.train_clip(frames, np.random.default_rng(0), cfg)
    assert seen == [(36, 55, 32, 5)]  # 54.6 rounded
    box = transforms.resize_short_side(frames, 36, "mmcv_linear")[:, 4:31, 6:30]
    assert np.array_equal(clip, transforms.resize(box, 32, 32, "mmcv_linear"))
    once = transforms.resize(frames[:, 7:52, 10:50], 32, 32, "mmcv_linear")
    assert np.abs(clip.astype(int) - once).mean() > 10  # another picture: noise shows the blur


def test_random_resized_crop_covers_its_ranges():
    rng = np.random.default_rng(0)
    boxes = np.array([transforms.random_resized_crop(240, 320, rng) for _ in range(5000)])
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
    assert transforms.random_resized_crop(10, 1000, rng) == (0, 493, 10, 13)
    assert transforms.random_resized_crop(1000, 10, rng) == (493, 0, 13, 10)


def test_scale_jitter_stretches_height_and_width_each_for_itself():
    rng = np.random.default_rng(0)
    draws = [transforms.scale_jitter(100, 201, 256, 224, rng) for _ in range(5000)]
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
    monkeypatch.setattr(transforms, "scale_jitter", lambda *_: (41, 57, 5, 11))
    frames = noise(2, 30, 50, 3)
    cfg = config(augment="scale_jitter", short_side=40, resize="tf_bilinear")
    clip = transforms.train_clip(frames, np.random.default_rng(0), cfg)
    whole = transforms.resize(frames, 41, 57, "tf_bilinear")
    assert np.array_equal(clip, whole[:, 5:37, 11:43])


def test_scale_jitter_needs_room():
    with pytest.raises(UserError, match="to at least 36"):
        transforms.check_training(config(augment="scale_jitter", short_side=35))
    transforms.check_training(config(augment="scale_jitter", short_side=36))


def test_training_crops_resize_as_the_reference_does(monkeypatch):
    frames = noise(1, 100, 120, 3)
    box = (10, 20, 80, 60)
    monkeypatch.setattr(transforms, "multi_scale_crop", lambda *_: box)
    monkeypatch.setattr(transforms, "random_resized_crop", lambda *_: box)
    crop = frames[0, 10:90, 20:80]

    def clip(augment):
        return transforms.train_clip(frames, np.random.default_rng(0), config(augment=augment))[0]

    pillow = Image.fromarray(crop).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(clip("multi_scale_crop"), np.asarray(pillow))  # antialiased
    linear = np.apply_along_axis(linear_resize, 0, crop.astype(float), 32)
    linear = np.apply_along_axis(linear_resize, 1, linear, 32)
    assert np.abs(clip("random_resized_crop") - linear).max() <= 1.0  # not antialiased


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
        clip = transforms.train_clip(frames, np.random.default_rng(seed), cfg)
        assert clip.shape == (5, 32, 32, 3) and clip.dtype == np.uint8 and clip.flags.c_contiguous
        assert (clip == clip[:1]).all()
        again = transforms.train_clip(frames, np.random.default_rng(seed), cfg)
        assert np.array_equal(clip, again)


def test_flip_has_its_probability_and_mirrors_columns():
    frames, rng = smooth(1, 32, 32), np.random.default_rng(0)

    def flipped(flip):
        clips = [transforms.train_clip(frames, rng, config(flip=flip)) for _ in range(400)]
        assert all(
            np.array_equal(c, frames) or np.array_equal(c, frames[:, :, ::-1]) for c in clips
        )
        return np.mean([not np.array_equal(clip, frames) for clip in clips])

    assert flipped(0.0) == 0
    assert flipped(1.0) == 1
    assert abs(flipped(0.5) - 0.5) < 0.1


# --- RandAugment --------------------------------------------------------------------------------


def pillow_op(name, image, level, sign):
    """timm's definition of an operation, in Pillow alone."""
    signed = sign * level

    def affine(*matrix):
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrix,
            resample=Image.Resampling.BICUBIC,
            fillcolor=(128, 128, 128),
        )

    match name:
        case "AutoContrast" | "Equalize" | "Invert":
            return getattr(ImageOps, name.lower())(image)
        case "Posterize":
            return ImageOps.posterize(image, 4 - int(level * 4))
        case "Solarize":
            return ImageOps.solarize(image, 256 - int(level * 256))
        case "SolarizeAdd":
            table = [min(255, v + int(level * 110)) if v < 128 else v for v in range(256)]
            return image.point(table * 3)
        case "Rotate":
            bicubic = Image.Resampling.BICUBIC
            return image.rotate(30 * signed, resample=bicubic, fillcolor=(128, 128, 128))
        case "ShearX":
            return affine(1, 0.3 * signed, 0, 0, 1, 0)
        case "ShearY":
            return affine(1, 0, 0, 0.3 * signed, 1, 0)
        case "TranslateX":
            return affine(1, 0, 0.45 * signed * image.width, 0, 1, 0)
        case "TranslateY":
            return affine(1, 0, 0, 0, 1, 0.45 * signed * image.height)
    return getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * signed)


@pytest.mark.parametrize("name", transforms._RANDAUGMENT_OPS)
@pytest.mark.parametrize(("level", "sign"), [(0.72, 1), (0.35, -1)])
def test_randaugment_operations_are_timms(name, level, sign):
    frames = smooth(2)
    ours = transforms.randaugment_op(name, frames, level, sign).astype(int)
    want = np.stack([np.asarray(pillow_op(name, Image.fromarray(f), level, sign)) for f in frames])
    error = np.abs(ours - want)
    if name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"):
        # Same geometry and fill; OpenCV's bicubic kernel is a little sharper, and blends the rim.
        assert np.quantile(error, 0.95) <= 3
        other = transforms.randaugment_op(name, frames, level, -sign).astype(int)
        assert np.quantile(np.abs(other - want), 0.5) > 3
        assert ((ours == 128).all(-1) & (want == 128).all(-1)).mean() > 0.01
    else:
        assert error.max() == 0
        assert np.abs(want - frames).max() > 10


def test_posterize_keeps_no_bits_at_the_top():
    # Pillow refuses 0 bits; the reference's Pillow gave black.
    assert transforms.randaugment_op("Posterize", noise(1, 8, 8, 3), 1.0, 1).max() == 0


def test_randaugment_draws_as_the_policy_says(monkeypatch):
    calls = []

    def record(name, frames, level, sign):
        calls.append((name, level, sign))
        return frames

    monkeypatch.setattr(transforms, "randaugment_op", record)
    frames, rng = noise(1, 4, 4, 3), np.random.default_rng(0)
    for _ in range(4000):
        transforms.rand_augment(frames, rng, RANDAUG)
    names, levels, signs = map(np.array, zip(*calls, strict=True))
    assert len(set(names)) == 15
    assert abs(len(calls) / 4000 - 2) < 0.1  # 4 draws, each applied with probability 1/2
    counts = np.unique(names, return_counts=True)[1]
    assert counts.min() > 0.8 * len(calls) / 15
    assert abs(levels.mean() - 0.7) < 0.005 and abs(levels.std() - 0.05) < 0.005
    assert set(signs) == {-1, 1} and abs(signs.mean()) < 0.1
    calls.clear()
    for _ in range(200):
        transforms.rand_augment(frames, rng, "rand-m10-n2-mstd1-inc1")
    assert max(level for _, level, _ in calls) == 1.0  # clipped


def test_randaugment_sees_whole_frames_before_the_crop(monkeypatch):
    seen = []
    monkeypatch.setattr(
        transforms, "rand_augment", lambda frames, *_: (seen.append(frames.shape), frames)[1]
    )
    cfg = config(augment="random_resized_crop", rand_augment=RANDAUG)
    transforms.train_clip(noise(2, 50, 70, 3), np.random.default_rng(0), cfg)
    assert seen == [(2, 50, 70, 3)]


def test_scenics_randaugment_sees_the_flipped_crop(monkeypatch):
    seen = []

    def record(clip, rng, policy):
        seen.append((clip.copy(), policy))
        return clip + 1

    monkeypatch.setattr(transforms.scenic_randaugment, "rand_augment", record)
    frames = noise(2, 32, 50, 3)
    cfg = config(rand_augment="scenic-n2-m15", flip=1.0)
    clip = transforms.train_clip(frames, np.random.default_rng(0), cfg)
    crop = transforms.center_crop(frames, 32, "cv2_linear")[:, :, ::-1]
    assert np.array_equal(seen[0][0], crop) and seen[0][1] == "scenic-n2-m15"
    assert np.array_equal(clip, crop + 1)
    transforms.train_clip(frames, np.random.default_rng(0), config(rand_augment=RANDAUG))
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
        transforms.check_training(config(rand_augment=policy))
    with pytest.raises(UserError, match="augment is 'crop'"):
        transforms.check_training(config(augment="crop"))
    transforms.check_training(config(rand_augment=RANDAUG))
    transforms.check_training(config(rand_augment="scenic-n2-m20"))
