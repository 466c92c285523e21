"""Preprocessing of VideoPrisms, by format."""

import json

import pytest

from tests.support.goldens import GOLDENS
from tests.support.sources.videoprism import (
    KERAS,
    PROCESSOR,
    converted,
    described,
    hf_folder,
    preset,
    written,
)
from vidjax.errors import UserError


def facts_of(source, **options):
    facts = described(source, **options)[0].preprocessing
    assert (facts.sampling, facts.temporal_views, facts.spatial_views) == ("linspace", 1, 1)
    return facts


def test_preprocessing_of_each_home(tmp_path):
    facts = facts_of(GOLDENS / "videoprism_lvt/checkpoint.npz")
    assert (facts.frames, facts.size, facts.fit, facts.resize) == (4, 24, "crop", "pil_lanczos")
    assert (facts.mean, facts.std) == ((0.0,) * 3, (1.0,) * 3)
    facts = facts_of(hf_folder(tmp_path / "lanczos"))
    assert (facts.fit, facts.resize, facts.mean) == ("stretch", "pil_lanczos", (0.0,) * 3)
    # transformers' class is bicubic, and normalises where it is asked to.
    processor = PROCESSOR | {"resample": 3, "do_normalize": True, "num_frames": 8}
    facts = facts_of(hf_folder(tmp_path / "bicubic", processor=processor))
    assert (facts.resize, facts.frames) == ("pil_bicubic", 8)
    assert facts.mean == (0.48, 0.46, 0.41)
    merged = {"processor_class": "VideoPrismProcessor", "video_processor": PROCESSOR}
    source = hf_folder(tmp_path / "merged", processor=None)
    assert facts_of(source).fit == "crop"  # nothing says otherwise
    (source / "processor_config.json").write_text(json.dumps(merged))
    assert facts_of(source).fit == "stretch"
    # Each can be had with any weights.
    assert facts_of(source, preprocessing="original").fit == "crop"
    assert facts_of(GOLDENS / "videoprism_lvt/checkpoint.npz", preprocessing="hf").resize == (
        "pil_bicubic"
    )
    facts = facts_of(source, preprocessing="keras", frames=2, size=16)
    assert (facts.fit, facts.resize) == ("crop_first", "pil_bilinear")
    assert (facts.frames, facts.size, facts.short_side) == (2, 16, 16)


def test_preprocessing_of_kerashub(tmp_path):
    source = preset(KERAS[0], tmp_path / "preset")
    facts = facts_of(source)
    assert (facts.frames, facts.size, facts.fit) == (4, 40, "crop_first")
    assert (facts.resize, facts.mean, facts.std) == ("pil_bilinear", (0.0,) * 3, (1.0,) * 3)
    file = json.loads((source / "image_converter.json").read_text())
    file["config"] |= {"scale": 1 / 127.5, "offset": -1.0, "crop_to_aspect_ratio": False}
    (source / "image_converter.json").write_text(json.dumps(file))
    facts = facts_of(source)
    assert (facts.fit, facts.mean, facts.std) == ("stretch", (0.5,) * 3, (0.5,) * 3)
    file["config"] |= {"antialias": False}
    (source / "image_converter.json").write_text(json.dumps(file))
    with pytest.raises(UserError, match="antialias False"):
        facts_of(source)
    assert facts_of(source, preprocessing="original").fit == "crop"


def test_processor_of_an_export_says_what_the_card_says(tmp_path):
    card, params = converted("videoprism_lvt")
    note = written(card, params, tmp_path / "hf", "hf")
    assert "transformers cannot prepare frames by fit 'crop' and resize 'pil_lanczos'" in note
    facts = described(tmp_path / "hf")[0].preprocessing
    assert (facts.fit, facts.resize) == ("crop", "hf_lanczos")  # the longer side is truncated
    assert (facts.frames, facts.size, facts.short_side) == (4, 24, 24)
