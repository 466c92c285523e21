"""Preprocessing of X-CLIPs and CLIPs, by format."""

import json

import numpy as np
import pytest

from tests.support.hugging_face import nested
from tests.support.sources.xclip import (
    CHECKPOINT,
    CLIP_PROCESSOR,
    HF_CONFIG,
    PROCESSOR,
    clip_folder,
    converted,
    described,
    hf_folder,
    hf_tensors,
    original,
    written,
)
from vidjax.card import Card
from vidjax.errors import UserError


def facts_of(source, **options):
    facts = described(source, **options)[0].preprocessing
    assert (facts.sampling, facts.stride, facts.fit) == ("segment", 1, "crop")
    return facts


def test_preprocessing_of_each_home(tmp_path):
    facts = facts_of(CHECKPOINT)
    assert (facts.frames, facts.size, facts.resize) == (5, 32, "mmcv_linear")
    assert (facts.short_side, facts.views_short_side) == (36, 32)
    assert (facts.temporal_views, facts.spatial_views) == (4, 3)
    assert facts.mean == (0.485, 0.456, 0.406)  # not CLIP's
    source = hf_folder(tmp_path / "hf")
    facts = facts_of(source)
    assert (facts.short_side, facts.views_short_side) == (32, None)
    assert (facts.resize, facts.size) == ("pil_bilinear", 32)
    assert (facts.mean, facts.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    # Each can be had with any weights.
    assert facts_of(source, preprocessing="original") == facts_of(CHECKPOINT)
    wanted = {"preprocessing": "hf", "frames": 3, "size": 48}
    facts, notes = (described(CHECKPOINT, **wanted)[k] for k in (0, 2))
    facts = facts.preprocessing
    assert "positions are for 5 frames: for 3 they are resampled" in notes
    assert "positions are for 32 pixels: for 48 they are resampled" in notes
    assert (facts.frames, facts.size, facts.short_side) == (3, 48, 48)
    assert facts.resize == "pil_bilinear"
    with pytest.raises(UserError, match="--preprocessing=keras is not known of X-CLIP"):
        described(source, preprocessing="keras")
    notes = described(hf_folder(tmp_path / "no", processor=None))[2]
    assert "no preprocessor_config.json beside the weights: the original's is assumed" in notes
    facts = facts_of(clip_folder(tmp_path / "clip"))
    assert (facts.resize, facts.short_side, facts.spatial_views) == ("pil_bicubic", 32, 1)
    assert facts.mean == (0.48145466, 0.4578275, 0.40821073)


def test_processor_that_crops_for_another_model(tmp_path):
    """The published 336-pixel model's processor resizes to 336 and crops to its class's 224."""
    processor = {k: v for k, v in PROCESSOR.items() if k != "crop_size"} | {"size": 336}
    tensors = hf_tensors(original())
    name = "vision_model.embeddings.position_embedding.weight"
    tensors[name] = np.resize(tensors[name], (42 * 42 + 1, 64))
    config = nested(HF_CONFIG, "vision_config", image_size=336)
    source = hf_folder(tmp_path / "hf", tensors, config, processor)
    card, params, notes = described(source)
    assert (card.preprocessing.size, card.preprocessing.short_side) == (336, 336)
    assert "its processor makes frames of 224 pixels, and the model wants 336" in notes
    facts = facts_of(source, preprocessing="original")
    assert (facts.size, facts.short_side, facts.views_short_side) == (336, 384, 336)
    originals = {"preprocessor_config.json": json.dumps(processor).encode()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert facts_of(tmp_path / "out") == card.preprocessing


def test_processor_in_one_file_with_others(tmp_path):
    source = clip_folder(tmp_path / "hf")
    merged = {"processor_class": "CLIPProcessor", "image_processor": CLIP_PROCESSOR}
    (source / "preprocessor_config.json").unlink()
    (source / "processor_config.json").write_text(json.dumps(merged))
    card, params, _ = described(source)
    assert card.preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)
    originals = {"processor_config.json": (source / "processor_config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert not (tmp_path / "out/preprocessor_config.json").exists()
    same = (tmp_path / "out/processor_config.json").read_bytes()
    assert same == originals["processor_config.json"]
    facts = card.preprocessing.__class__(**vars(card.preprocessing) | {"mean": (0.5,) * 3})
    card = Card(card.model, facts, None, card.provenance)
    written(card, params, tmp_path / "new", "hf", originals)
    assert described(tmp_path / "new")[0].preprocessing.mean == (0.5,) * 3


def test_processor_of_an_export_says_what_the_card_says(tmp_path):
    written(*converted(), tmp_path / "hf", "hf")
    facts = facts_of(tmp_path / "hf")
    assert (facts.size, facts.short_side, facts.resize) == (32, 36, "pil_bilinear")
