"""Processor files of Hugging Face folders without transformers; see tests/parity for the pixels."""

import json

import numpy as np
import pytest

from converters import processors, videomae, videoprism, vivit, xclip
from vidjax.data.frames.clips import eval_views
from vidjax.errors import UserError
from vidjax.preprocessing import Preprocessing

IMAGE, VIDEO, WHOLE = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
FAMILIES = {
    "videomae": videomae.published.PROCESSORS,
    "vivit": vivit.published.PROCESSORS,
    "xclip": xclip.published.PROCESSORS,
    "clip": xclip.published.CLIP_PROCESSORS,
    "videoprism": videoprism.published.PROCESSORS,
}
SIZES = {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}
FIELDS = SIZES | {"image_processor_type": "VideoMAEImageProcessor"}


def read(fields, family="videomae", file=IMAGE, frames=None, notes=None):
    files = fields if file is None else {file: fields}
    return processors.read(files, FAMILIES[family], frames, [] if notes is None else notes)


def back(originals, facts, family="videomae"):
    """Returns the files that an export writes, and its notes."""
    notes = []
    content = {name: json.dumps(fields, indent=7).encode() for name, fields in originals.items()}
    return content, processors.export(content, facts, FAMILIES[family], notes), notes


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"fit": "crop", "short_side": 56, "size": 48, "stretch_to": None}),
        ({"size": 64}, {"fit": "crop", "short_side": 64}),
        ({"size": 64, "default_to_square": True}, {"fit": "stretch", "stretch_to": (64, 64)}),
        ({"size": [64, 72]}, {"fit": "stretch", "stretch_to": (64, 72), "spatial_views": 1}),
        ({"size": [48, 48], "do_center_crop": False}, {"fit": "stretch", "stretch_to": None}),
        ({"do_resize": False}, {"fit": "no_resize", "size": 48, "spatial_views": 1}),
        ({"do_resize": None}, {"fit": "no_resize"}),
        ({"crop_size": 32}, {"size": 32}),
        ({"resample": 1}, {"resize": "hf_lanczos"}),
        ({"resample": 1, "size": [56, 56]}, {"resize": "pil_lanczos"}),
        ({"resample": 3}, {"resize": "pil_bicubic"}),
        ({"image_mean": 0.25, "image_std": 1}, {"mean": (0.25,) * 3, "std": (1.0,) * 3}),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"do_rescale": False}, {"mean": (round(0.5 / 255, 12),) * 3}),
        ({"rescale_factor": 1 / 127.5}, {"mean": (0.25,) * 3, "std": (0.25,) * 3}),
        ({"a_field_of_another_version": None, "do_convert_rgb": False}, {"size": 48}),
    ],
)
def test_fields(changes, wanted):
    fields = FIELDS | changes
    found = read(fields)
    assert {key: found[key] for key in wanted} == wanted
    originals, files, notes = back({IMAGE: fields}, Preprocessing(**found))
    assert (files, notes) == (originals, [])
    # What an export without original says is the same.
    _, files, notes = back({}, Preprocessing(**found))
    again = read(json.loads(files[IMAGE]))
    assert processors._same(again, found)
    assert not notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"longest_edge": 48}}, "has size {'longest_edge': 48}; expected height and"),
        ({"size": None}, "has size None; expected height and width, or shortest_edge"),
        ({"size": -16}, "has size -16; expected height"),
        ({"crop_size": {"height": 48, "width": 40}}, "equal height and width, as models here take"),
        ({"crop_size": {"shortest_edge": 48}}, "expected height and width in whole pixels"),
        (
            {"crop_size": 64},
            "has crop_size 64; expected at most its size {'shortest_edge': 56}, as",
        ),
        ({"size": 200, "crop_size": None}, "has crop_size None"),
        ({"do_center_crop": False}, "has do_center_crop False; expected true, or size with height"),
        ({"do_center_crop": False, "do_resize": False}, "has do_center_crop False"),
        ({"size": [40, 64], "do_center_crop": False}, "equal height and width"),
        ({"do_resize": "false"}, "has do_resize 'false'; expected true or false. Correct or rem"),
        ({"resample": 0}, r"expected 1 \(LANCZOS\), 2 \(bilinear\) or 3 \(bicubic\)"),
        ({"rescale_factor": 0}, "has rescale_factor 0; expected a positive number"),
        ({"image_mean": [0.5] * 2}, "expected three numbers, or one for all channels"),
        ({"image_mean": float("nan")}, "has image_mean nan; expected three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "expected three positive numbers"),
        ({"do_pad": True}, "has do_pad True; expected false, as models here take frames of one"),
        ({"antialias": False}, "has antialias False, a field that transformers' VideoMAEImagePro"),
        ({"input_data_format": "channels_first"}, "has input_data_format 'channels_first'"),
        ({"image_processor_type": "ViTImageProcessor"}, "has image_processor_type 'ViTImagePro"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=f"^{IMAGE} .*{message}"):
        read(FIELDS | changes)


def test_a_default_that_does_not_fit_is_said_to_be_one():
    with pytest.raises(UserError, match=r"has no crop_size, so \{'height': 224, 'width': 224\}"):
        read({"size": 48})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("content", [[], "text", {"video_processor": [1]}])
def test_not_fields(family, content):
    file = WHOLE if isinstance(content, dict) else IMAGE
    with pytest.raises(UserError, match="expected the fields of a processor"):
        read(content, family, file)


def test_sampling():
    fields = SIZES | {"do_sample_frames": True, "num_frames": 7}
    found = read(fields, file=VIDEO)
    assert (found["sampling"], found["frames"], found["temporal_views"]) == ("linspace_exact", 7, 1)
    assert read(fields | {"num_frames": 8}, file=VIDEO)["sampling"] == "linspace"  # it is exact
    assert "sampling" not in read(fields | {"do_sample_frames": False, "fps": 2}, file=VIDEO)
    for changes, message in (
        ({"num_frames": None}, "has do_sample_frames True; expected num_frames alone"),
        ({"fps": 2}, "has fps 2; expected num_frames alone, as models here take a fixed number"),
        ({"num_frames": 2.5}, "has num_frames 2.5; expected a positive whole number"),
    ):
        with pytest.raises(UserError, match=message):
            read(fields | changes, file=VIDEO)
    with pytest.raises(UserError, match="has num_frames 7; expected 16, which the model takes"):
        read(fields, file=VIDEO, frames=16)


def test_offset_of_vivit():
    assert read(SIZES, "vivit")["mean"] == (0.75,) * 3
    assert read(SIZES | {"offset": False}, "vivit")["mean"] == (0.25,) * 3
    assert read(SIZES, "vivit", VIDEO)["mean"] == (0.75,) * 3
    assert read(SIZES | {"do_rescale": False}, "vivit", VIDEO)["std"] == (round(0.5 / 255, 12),) * 3
    with pytest.raises(UserError, match="VivitVideoProcessor always subtracts 1"):
        read(SIZES | {"offset": False}, "vivit", VIDEO)
    with pytest.raises(UserError, match="has no offset, so True; expected false, as VivitImagePro"):
        read(SIZES | {"do_rescale": False}, "vivit")
    # Null is the default of this class alone.
    assert read(SIZES | {"size": None}, "vivit")["short_side"] == 256


def test_classes_of_videoprism():
    """The later one is LLaVA-OneVision's, which normalises as CLIP does."""
    found = read({"num_frames": 8}, "videoprism", VIDEO)
    assert (found["size"], found["frames"], found["mean"][0]) == (384, 8, 0.48145466)
    found = read({"video_processor_type": "VideoPrismVideoProcessor"}, "videoprism", VIDEO)
    assert (found["size"], found["resize"], found["mean"][0]) == (288, "pil_bicubic", 0.0)


def test_class_that_a_file_does_not_name():
    assert read(SIZES, "clip")["resize"] == "pil_bicubic"
    assert read(SIZES, "videomae")["resize"] == "pil_bilinear"
    with pytest.raises(UserError, match="names no image_processor_type, and leaves out fields"):
        read(SIZES, "xclip")
    told = {"resample": 2, "image_mean": [0.4] * 3, "image_std": [0.2] * 3}
    assert read(SIZES | told, "xclip")["mean"] == (0.4,) * 3
    assert read(FIELDS, "xclip")["resize"] == "pil_bilinear"


@pytest.mark.parametrize(
    ("family", "used", "other"), [("videomae", VIDEO, IMAGE), ("xclip", IMAGE, VIDEO)]
)
def test_two_descriptions(family, used, other):
    """transformers' class of videos has its own file, and X-CLIP's only one of images."""
    notes, typed = [], FIELDS if used == IMAGE else SIZES
    files = {used: typed | {"image_mean": 0.1}, other: SIZES | {"image_mean": 0.2}}
    found = read(files, family, None, notes=notes)
    assert found["mean"] == (0.1,) * 3
    assert notes == [f"{used} and {other} prepare frames differently: the former is used"]
    assert back(files, Preprocessing(**found), family)[1] == back(files, Preprocessing())[0]
    # What was trained otherwise shows in both.
    facts = Preprocessing(**found | {"mean": (0.3,) * 3})
    _, written, _ = back(files, facts, family)
    for name in (used, other):
        again = read(json.loads(written[name]), family, name)
        assert again["mean"] == (0.3,) * 3
    assert "video_processor_type" in json.loads(written[VIDEO])


def test_part_of_a_file_with_others():
    whole = {"processor_class": "VideoMAEProcessor", "video_processor": SIZES, "other": 1}
    found = read(whole, file=WHOLE)
    originals, files, _ = back({WHOLE: whole}, Preprocessing(**found))
    assert files == originals
    _, files, _ = back({WHOLE: whole}, Preprocessing(**found | {"mean": (0.1,) * 3}))
    again = json.loads(files[WHOLE])
    assert again["other"] == 1
    assert read(again, file=WHOLE)["mean"] == (0.1,) * 3


def test_cards_of_before_give_their_file_back():
    """Cards of VideoPrism in which sampling was called linspace, and LANCZOS was not told apart."""
    fields = SIZES | {"resample": 1, "do_sample_frames": True, "num_frames": 24}
    facts = Preprocessing(**read(fields, file=VIDEO) | {"sampling": "linspace"})
    originals, files, _ = back({VIDEO: fields}, facts)
    assert files == originals
    mean = tuple(m + 1e-12 for m in facts.mean)  # was rounded otherwise
    facts = Preprocessing(**vars(facts) | {"mean": mean, "resize": "pil_lanczos"})
    assert back({VIDEO: fields}, facts)[1] == originals


def test_what_transformers_cannot_do_is_noted():
    for changes in ({"resize": "cv2_linear"}, {"fit": "crop_first"}, {"resize": "pil_lanczos"}):
        facts = Preprocessing(**{"resize": "pil_bilinear"} | changes)
        _, files, notes = back({}, facts)
        assert read(json.loads(files[IMAGE]))["size"] == 224
        assert "transformers cannot prepare frames by fit" in notes[0]


def test_files_that_were_not_read_do_not_stop_an_export():
    """A model that was converted with --preprocessing=original."""
    _, files, _ = back({IMAGE: FIELDS | {"resample": 0}}, Preprocessing(resize="pil_bilinear"))
    assert read(json.loads(files[IMAGE]))["short_side"] == 224


def test_frames_smaller_than_the_crop():
    facts = Preprocessing(frames=1, **read(FIELDS | {"do_resize": False}))
    frames = np.arange(60 * 81 * 3, dtype=np.uint32).astype(np.uint8).reshape(1, 60, 81, 3)
    np.testing.assert_array_equal(eval_views(frames, facts)[0], frames[:, 6:54, 16:64])
    with pytest.raises(UserError, match="frames of 40x81 pixels are smaller than the crop of 48"):
        eval_views(frames[:, :40], facts)
