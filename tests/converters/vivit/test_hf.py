"""ViViT in Hugging Face's format: round trips byte by byte, and what folders may say."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest

from converters import formats, vivit
from tests.support.converting import assert_comes_back, command, same_params, same_tensors
from tests.support.goldens import GOLDENS
from tests.support.sources.vivit import (
    CLASSES,
    HEADS,
    HF_CONFIG,
    PROCESSOR,
    D,
    described,
    hf_config,
    hf_folder,
    hf_tensors,
    image_vit,
    written,
)
from vidjax.card import read_card
from vidjax.errors import UserError


def check_hf_card(card, head, pooler):
    fields = card.model
    assert (fields["head"], fields["num_heads"], fields["eps"]) == (head, HEADS, 1e-6)
    assert (fields["factorisation"], fields["pool"]) == ("joint", "token")
    assert (fields["pos_grid"], fields["patch_size"]) == ([2, 2, 2], [2, 4, 4])
    assert fields["representation_size"] == (D if pooler and not head else None)
    assert card.classes == (("jump", "run", "swim") if head else None)
    facts = card.preprocessing
    assert (facts.frames, facts.stride, facts.size, facts.short_side) == (4, 2, 8, 10)
    assert (facts.temporal_views, facts.spatial_views, facts.view_average) == (4, 3, "logits")


def test_hf_round_trip_by_the_command(tmp_path):
    source = hf_folder(tmp_path / "hf", hf_tensors("classify"), HF_CONFIG)
    assert_comes_back(source, tmp_path)
    check_hf_card(read_card(tmp_path / "v"), "classify", True)


@pytest.mark.parametrize("layers", ["encoder.layer", "layers"])
@pytest.mark.parametrize(("head", "pooler"), [(None, True), (None, False), ("classify", True)])
def test_hf_round_trip(tmp_path, head, pooler, layers):
    tensors = hf_tensors(head, layers, pooler)
    source = hf_folder(tmp_path / "hf", tensors, HF_CONFIG)
    card, params, _ = described(source)
    check_hf_card(card, head, pooler)
    written(card, params, tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out" / "model.safetensors"), tensors)


def test_both_spellings_give_the_same_model(tmp_path):
    found = []
    for place in ("encoder.layer", "layers"):
        source = hf_folder(tmp_path / place, hf_tensors("classify", place), HF_CONFIG)
        found.append(described(source)[1])
    same_params(*found)


@pytest.mark.parametrize("head", [None, "classify"])
def test_hf_to_scenic_and_back(tmp_path, head):
    source = hf_folder(tmp_path / "hf", hf_tensors(head), HF_CONFIG)
    if head:
        command(source, tmp_path / "a")
        report = command(tmp_path / "a", tmp_path / "scenic", "original")
        assert "all bytes reproduced" in report
    else:
        card, params, _ = described(source)
        written(card, params, tmp_path / "scenic", "original")
    tensors = formats.read(tmp_path / "scenic" / "checkpoint")
    assert "params/Transformer/encoderblock_1/MlpBlock_0/Dense_1/bias" in tensors
    card, again, _ = described(tmp_path / "scenic", size=8)
    same_params(tmp_path / "a" if head else params, again)
    # And Scenic's model as transformers' own.
    written(card, again, tmp_path / "again", "hf")
    same_tensors(formats.read(tmp_path / "again" / "model.safetensors"), hf_tensors(head))
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    wanted = HF_CONFIG | {"qkv_bias": True, "num_channels": 3}
    del wanted["video_size"]
    if not head:
        wanted["architectures"] = ["VivitModel"]
        del wanted["id2label"]
    else:
        wanted["id2label"] = {str(k): f"LABEL_{k}" for k in range(CLASSES)}
        wanted["label2id"] = {f"LABEL_{k}": k for k in range(CLASSES)}
    assert config == wanted
    processor = json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())
    assert (processor["do_normalize"], processor["offset"]) == (False, True)  # [-1, 1]


@pytest.mark.parametrize("act", ["gelu_fast", "gelu_new", "gelu_pytorch_tanh"])
def test_spellings_of_the_tanh_gelu(tmp_path, act):
    source = hf_folder(tmp_path / "hf", hf_tensors(None), hf_config(hidden_act=act))
    card, params, _ = described(source)
    originals = {"config.json": (source / "config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert (tmp_path / "out/config.json").read_bytes() == (source / "config.json").read_bytes()


def test_another_activation_of_the_pooler_is_refused(tmp_path):
    source = hf_folder(tmp_path / "hf", hf_tensors(None), hf_config(pooler_act="relu"))
    with pytest.raises(UserError, match="pooler_act 'relu'"):
        described(source)


def test_activation_is_that_of_config(tmp_path):
    for name, act in (("gelu", "gelu"), ("gelu_python", "gelu"), ("gelu_new", "gelu_tanh")):
        source = hf_folder(tmp_path / name, hf_tensors(None), hf_config(hidden_act=name))
        card, params, _ = described(source)
        assert card.model["act"] == act
        note = written(card, params, tmp_path / f"{name}_original", "original")
        assert ("the activation is gelu here" in note) == (act == "gelu")
        new = vivit.export(dataclasses.replace(card, provenance={}), "hf", {})
        assert (
            json.loads(new.files["config.json"])["hidden_act"]
            == {
                "gelu": "gelu",
                "gelu_tanh": "gelu_fast",
            }[act]
        )


def test_classifier_without_classes(tmp_path):
    config = hf_config(id2label={}, label2id={})
    tensors = {k: v for k, v in hf_tensors("classify").items() if not k.startswith("classifier")}
    source = hf_folder(tmp_path / "hf", tensors, config)
    card, params, _ = described(source)
    assert (card.model["head"], card.model["num_classes"]) == ("classify", 0)
    originals = {"config.json": (tmp_path / "hf/config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), tensors)


def test_epsilon_is_that_of_config(tmp_path):
    source = hf_folder(tmp_path / "hf", hf_tensors(None), hf_config(layer_norm_eps=1e-5))
    card, params, _ = described(source)
    assert card.model["eps"] == 1e-5
    assert "epsilon is 1e-05 here" in written(card, params, tmp_path / "out", "original")


def test_weights_without_config(tmp_path):
    source = hf_folder(tmp_path / "hf", hf_tensors(None), None, None)
    card, _, notes = described(source, heads=4, frames=4, size=8)
    assert "no config.json beside the weights" in notes
    assert card.preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="no model of width 16 was published"):
        described(source, frames=4, size=8)


@pytest.mark.parametrize(
    ("changes", "input_range", "mean", "std", "note"),
    [
        ({}, None, 0.75, 0.25, r"range \[-3, 1\], the net effect.*WARNING.*--input_range=-1,1"),
        ({}, (-1.0, 1.0), 0.5, 0.5, r"range \[-1, 1\], by --input_range, instead of \[-3, 1\]"),
        ({"do_normalize": False}, None, 0.5, 0.5, r"range \[-1, 1\], the net effect"),
        ({"offset": False, "rescale_factor": 1 / 255}, None, 0.5, 0.5, r"range \[-1, 1\]"),
        ({"do_rescale": False, "offset": False}, None, 0.5 / 255, 0.5 / 255, r"\[-1, 509\]"),
        ({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}, None, 0.5, 0.5, r"range \[-1, 1\]"),
        (None, None, 0.5, 0.5, r"range \[-1, 1\], as Scenic trained.*no preprocessor_config"),
    ],
)
def test_input_range(tmp_path, changes, input_range, mean, std, note):
    processor = None if changes is None else PROCESSOR | changes
    source = hf_folder(tmp_path / "hf", hf_tensors(None), HF_CONFIG, processor)
    card, params, notes = described(source, input_range=input_range)
    np.testing.assert_allclose(card.preprocessing.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(card.preprocessing.std, std, rtol=0, atol=1e-11)
    assert re.search(note, notes)
    # What an export says has the same effect.
    originals = {name: (source / name).read_bytes() for name in os.listdir(source)}
    written(card, params, tmp_path / "out", "hf", originals)
    again = described(tmp_path / "out")[0].preprocessing
    np.testing.assert_allclose(again.mean, card.preprocessing.mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(again.std, card.preprocessing.std, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("vivit_factorised_encoder", "no ViViT with factorisation 'encoder', only the joint"),
        ("vivit_factorised_self_attention", "'self_attention' and pool 'mean'"),
        ("vivit_factorised_dot_product", "export by --format=original"),
    ],
)
def test_what_transformers_cannot_express(folders, tmp_path, case, message):
    with pytest.raises(UserError, match=message):
        command(folders / case, tmp_path / "out", "hf")


def test_pre_logits_below_a_classifier_are_not_in_transformers(tmp_path):
    formats.write_npz(tmp_path / "a.npz", image_vit())
    card, params, _ = described(tmp_path / "a.npz")
    with pytest.raises(UserError, match="pre-logits below a classifier"):
        written(card, params, tmp_path / "out", "hf")


def test_videomae_has_no_npz(tmp_path):
    source = GOLDENS / "videomae_finetune_meanpool/checkpoint-0.pth"
    command(source, tmp_path / "v", heads=4)
    with pytest.raises(UserError, match="--format=npz does not exist for videomae; there are hf"):
        command(tmp_path / "v", tmp_path / "out", "npz")
