"""VideoMAE in Hugging Face's format: round trips byte by byte, and what folders may say."""

import dataclasses
import json

import numpy as np
import pytest

from converters import formats, videomae
from converters.convert import convert
from tests.support.converting import assert_comes_back, command, same_params, same_tensors
from tests.support.sources.videomae import (
    DEPTH,
    HEADS,
    HF_CONFIG,
    PROCESSOR,
    D,
    hf_config,
    hf_folder,
    hf_tensors,
)
from vidjax import checksums, pretrained
from vidjax.card import read_card
from vidjax.errors import UserError


@pytest.mark.parametrize(
    ("head", "mean_pooling", "bias"),
    [
        (None, True, "q_bias"),
        (None, False, "q_bias"),
        ("classify", True, "q_bias"),
        ("classify", False, "query.bias"),
        ("reconstruct", False, "q_bias"),
        ("reconstruct", True, "query.bias"),
    ],
)
def test_hf_round_trip(tmp_path, head, mean_pooling, bias):
    tensors = hf_tensors(head, mean_pooling, bias)
    source = hf_folder(tmp_path / "hf", tensors, hf_config(mean_pooling))
    assert_comes_back(source, tmp_path)
    card = read_card(tmp_path / "v")
    fields = card.model
    assert (fields["head"], fields["num_heads"], fields["eps"]) == (head, HEADS, 1e-12)
    if head == "classify":
        assert card.classes == ("jump", "run", "swim")
        assert fields["pool"] == ("mean" if mean_pooling else "first")
        assert not mean_pooling or fields["fc_norm_eps"] == 1e-5
    else:
        assert fields["final_norm"] is not mean_pooling
    if head == "reconstruct":
        assert (fields["decoder_num_heads"], fields["decoder_norm_eps"]) == (3, 1e-5)
    facts = card.preprocessing
    assert (facts.frames, facts.size, facts.short_side) == (4, 8, 10)
    assert (facts.mean, facts.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert facts.resize == "pil_bilinear"
    digest = checksums.sha256(tmp_path / "hf" / "model.safetensors")
    assert card.provenance["files"] == {"model.safetensors": digest}


@pytest.mark.parametrize("name", ["video_preprocessor_config.json", "processor_config.json"])
def test_newer_processor_files_are_read_and_given_back(tmp_path, name):
    fields = PROCESSOR | {"video_processor_type": "VideoMAEVideoProcessor", "image_mean": 0.1}
    content = fields if name.startswith("video") else {"video_processor": fields}
    source = hf_folder(tmp_path / "hf", hf_tensors("classify", True), HF_CONFIG, content)
    (tmp_path / "hf/preprocessor_config.json").rename(tmp_path / "hf" / name)
    assert_comes_back(source, tmp_path)
    assert read_card(tmp_path / "v").preprocessing.mean == (0.1, 0.1, 0.1)


def test_both_spellings_of_the_biases_give_the_same_model(tmp_path):
    for bias in ("q_bias", "query.bias"):
        source = hf_folder(tmp_path / f"hf {bias}", hf_tensors("classify", True, bias), HF_CONFIG)
        command(source, tmp_path / bias)
    same_params(tmp_path / "q_bias", tmp_path / "query.bias")


@pytest.mark.parametrize("zero", [True, False])
def test_key_biases_are_left_out_and_explained(tmp_path, zero):
    tensors = hf_tensors("classify", True, "query.bias")
    keys = {
        f"videomae.encoder.layer.{i}.attention.attention.key.bias": np.full(D, 1.0 - zero, "f4")
        for i in range(DEPTH)
    }
    report = command(hf_folder(tmp_path / "hf", tensors | keys, HF_CONFIG), tmp_path / "v")
    assert "left out 2 tensors" in report
    assert "softmax removes" in report
    command(tmp_path / "v", tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out" / "model.safetensors"), tensors)


def test_pytorch_bin_and_shards(tmp_path):
    tensors = hf_tensors("classify")
    whole = hf_folder(tmp_path / "whole", tensors, HF_CONFIG)
    command(whole, tmp_path / "v")

    (tmp_path / "bin").mkdir()
    formats.write_torch(tmp_path / "bin" / "pytorch_model.bin", tensors)
    (tmp_path / "bin" / "config.json").write_text(json.dumps(HF_CONFIG))
    command(tmp_path / "bin", tmp_path / "v_bin")
    same_params(tmp_path / "v_bin", tmp_path / "v")

    names = sorted(tensors)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "config.json").write_text(json.dumps(HF_CONFIG))
    places = {}
    for k, part in enumerate((names[:7], names[7:])):
        file = f"model-{k + 1:05}-of-00002.safetensors"
        formats.write_safetensors(tmp_path / "shards" / file, {n: tensors[n] for n in part})
        places |= dict.fromkeys(part, file)
    index = tmp_path / "shards" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    command(tmp_path / "shards", tmp_path / "v_shards")
    same_params(tmp_path / "v_shards", tmp_path / "v")
    assert len(read_card(tmp_path / "v_shards").provenance["files"]) == 2

    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"names model-00002-of-00002\.safetensors, which"):
        command(tmp_path / "shards", tmp_path / "x")


def test_hugging_face_without_query_biases(tmp_path):
    tensors = {n: t for n, t in hf_tensors("classify").items() if "_bias" not in n}
    source = hf_folder(tmp_path / "hf", tensors, hf_config(qkv_bias=False))
    with pytest.raises(UserError, match=r"^the file's VideoMAE has no biases of query[^\n]*$"):
        command(source, tmp_path / "v")


@pytest.mark.parametrize("image_size", [12, [12, 12]])
def test_image_size_is_the_models(tmp_path, image_size):
    """Frames are made as the processor says, though transformers' model refuses them."""
    config = hf_config(image_size=image_size, patch_size=[4, 4])
    source = hf_folder(tmp_path / "hf", hf_tensors("classify"), config)
    report = assert_comes_back(source, tmp_path)
    assert (
        "makes frames of 8 pixels, which are followed, and config.json has image_size 12" in report
    )
    card = read_card(tmp_path / "v")
    assert (card.preprocessing.size, card.preprocessing.short_side) == (8, 10)
    # A run that starts from it is a model for its own frames.
    run = dataclasses.replace(card, provenance={"kept": card.provenance["kept"]})
    made = json.loads(videomae.export(run, "hf", {}).files["config.json"])
    assert (made["image_size"], made["norm_pix_loss"]) == (8, True)
    run.provenance["objective"] = {"name": "masked_autoencoding", "norm_pix": False}
    assert not json.loads(videomae.export(run, "hf", {}).files["config.json"])["norm_pix_loss"]


def test_frames_that_are_not_square(tmp_path):
    config = hf_config(image_size=[8, 32])
    source = hf_folder(tmp_path / "hf", hf_tensors("classify"), config)
    with pytest.raises(UserError, match=r"image_size \[8, 32\]; only square .* as --size="):
        command(source, tmp_path / "v")
    command(source, tmp_path / "v", size=16)
    assert read_card(tmp_path / "v").preprocessing.size == 16


def test_a_rest_beside_the_patches_is_cut_off(tmp_path):
    config = hf_config(image_size=10, num_frames=5)
    source = hf_folder(tmp_path / "hf", hf_tensors("classify"), config)
    report = command(source, tmp_path / "v")
    assert "5 frames leave a rest of 1 beside patches of 2" in report
    assert "10 pixels leave a rest of 2 beside patches of 4" in report
    loaded = pretrained.load_model(tmp_path / "v")
    rng = np.random.default_rng(0)
    video = rng.standard_normal((1, 5, 10, 10, 3), np.float32)
    found, expected = (
        loaded.model.apply({"params": loaded.params}, x) for x in (video, video[:, :4, :8, :8])
    )
    np.testing.assert_array_equal(found, expected)


def test_first_token_of_a_classifier_without_classes(tmp_path):
    tensors = hf_tensors("classify", mean_pooling=False)
    tensors = {n: t for n, t in tensors.items() if not n.startswith("classifier")}
    config = hf_config(False, id2label={}, label2id={})
    source = hf_folder(tmp_path / "hf", tensors, config)
    command(source, tmp_path / "v")
    loaded = pretrained.load_model(tmp_path / "v")
    video = loaded.preprocess(np.zeros((4, 10, 10, 3), np.uint8))
    assert loaded.model.apply({"params": loaded.params}, video).shape == (1, D)
    command(tmp_path / "v", tmp_path / "out", "hf")
    assert json.loads((tmp_path / "out/config.json").read_text()) == config


def test_wrong_tensors_are_all_named_at_once(tmp_path):
    tensors = hf_tensors("classify")
    tensors["classifier.extra"] = tensors["fc_norm.bias"]
    del tensors["fc_norm.bias"]
    tensors["classifier.bias"] = np.zeros(7, np.float32)
    source = hf_folder(tmp_path / "hf", tensors, HF_CONFIG)
    with pytest.raises(UserError) as caught:
        command(source, tmp_path / "v")
    text = str(caught.value)
    assert "missing from the file: fc_norm.bias" in text
    assert "no rule reads it: classifier.extra" in text
    assert "shape: classifier.bias is (7,), but this model needs (3,)" in text


def small(heads):
    """The shapes of VideoMAE-small, one layer deep."""
    tensors = hf_tensors(None)
    wide = {n: np.zeros([384 if s == D else s for s in t.shape], "f4") for n, t in tensors.items()}
    return wide, hf_config(hidden_size=384, num_attention_heads=heads)


def test_small_with_16_heads_is_followed_with_a_warning_or_overridden(tmp_path):
    tensors, config = small(16)
    source = hf_folder(tmp_path / "hf", tensors, config)
    report = command(source, tmp_path / "v16")
    assert "trained with 6" in report
    assert "--heads=6" in report
    assert read_card(tmp_path / "v16").model["num_heads"] == 16
    report = command(source, tmp_path / "v6", heads=6)
    assert "trained with 6" not in report
    assert read_card(tmp_path / "v6").model["num_heads"] == 6
    # The exported config.json says what the weights now are used with, and is otherwise the same.
    command(tmp_path / "v6", tmp_path / "out", "hf")
    exported = json.loads((tmp_path / "out" / "config.json").read_text())
    assert exported == config | {"num_attention_heads": 6}


def test_number_of_heads_by_width_or_asked_for(tmp_path):
    tensors, _ = small(6)
    formats.write_safetensors(tmp_path / "a.safetensors", tensors)
    command(tmp_path / "a.safetensors", tmp_path / "v")
    assert read_card(tmp_path / "v").model["num_heads"] == 6
    formats.write_safetensors(tmp_path / "b.safetensors", hf_tensors(None))
    with pytest.raises(UserError, match=r"no model of width 16 was published; give it as --heads"):
        command(tmp_path / "b.safetensors", tmp_path / "w")


def test_sampling_follows_the_data_set(tmp_path, monkeypatch):
    tensors = hf_tensors("classify")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.zeros((174, *tensors[name].shape[1:]), np.float32)
    labels = {str(k): f"LABEL_{k}" for k in range(174)}
    source = hf_folder(tmp_path / "hf", tensors, hf_config(id2label=labels))
    report = command(source, tmp_path / "v")
    card = read_card(tmp_path / "v")
    assert card.preprocessing.sampling == "segment"
    assert card.preprocessing.temporal_views == 2
    assert card.classes is None
    assert "sampling=segment" in report


def test_cls_token_is_not_videomae(tmp_path):
    tensors = hf_tensors(None) | {"embeddings.cls_token": np.zeros((1, 1, D), np.float32)}
    source = hf_folder(tmp_path / "hf", tensors, HF_CONFIG)
    with pytest.raises(UserError, match="holds no weights of videomae"):
        convert(str(source), tmp_path / "v", model="videomae")
