"""X-CLIPs and CLIPs in Hugging Face's format: towers, heads, numerics, ends of texts."""

import dataclasses
import json

import numpy as np
import pytest
from flax import traverse_util

from converters import formats, xclip
from tests.support.converting import assert_comes_back, same_params, same_tensors
from tests.support.sources.xclip import (
    CLIP_CONFIG,
    CLIP_PROCESSOR,
    HF_CONFIG,
    MIT_CONFIG,
    TEXT_CONFIG,
    VISION_CONFIG,
    clip_folder,
    clip_tensors,
    converted,
    described,
    hf_folder,
    hf_tensors,
    original,
    tower,
    written,
)
from vidjax import models
from vidjax.card import Card
from vidjax.errors import UserError

FLOAT32 = 5e-6  # of values up to 7


def test_hugging_face_folder_by_the_command(tmp_path):
    """With what files of older versions hold besides."""
    tensors = hf_tensors(original()) | {
        "text_model.embeddings.position_ids": np.arange(77)[None],
        "vision_model.embeddings.position_ids": np.arange(17)[None],
    }
    source = hf_folder(tmp_path / "hf", tensors)
    report = assert_comes_back(source, tmp_path)
    assert "left out 2 tensors (vision_model.embeddings.position_ids, ...): counts 0, 1" in report
    assert "(--preprocessing=original)" in report
    tensors["text_model.embeddings.position_ids"] = np.arange(77)[None, ::-1].copy()
    with pytest.raises(UserError, match=r"text_model.embeddings.position_ids: not 0, 1, 2"):
        described(hf_folder(tmp_path / "ids", tensors))


@pytest.mark.parametrize("head", [None, "text"], ids=str)
@pytest.mark.parametrize("old", [False, True])
def test_hugging_face_models_of_one_tower(tmp_path, head, old):
    """Versions before 5 put a prefix before the names, and buffers into the file."""
    name = "vision" if head is None else "text"
    prefix = f"{name}_model." if old else ""
    tensors = tower(name, prefix)
    if old:
        count = {"vision": 17, "text": 77}[name]
        tensors[f"{prefix}embeddings.position_ids"] = np.arange(count)[None]
    config = VISION_CONFIG | MIT_CONFIG if head is None else TEXT_CONFIG
    source = hf_folder(tmp_path / "hf", tensors, {"model_type": f"xclip_{name}_model"} | config)
    card, params, _ = described(source)
    assert card.model["head"] == head
    assert card.preprocessing.frames == (5 if head is None else 8)
    same_params(params, {name: converted()[1][name] for name in params})
    names = ("config.json", "preprocessor_config.json")
    originals = {name: (source / name).read_bytes() for name in names}
    written(card, params, tmp_path / "out", "hf", originals)
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), tensors)
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == originals[name]
    # A new file has the newer names, and a config.json that describes the same model.
    card = Card(card.model, card.preprocessing)
    written(card, params, tmp_path / "new", "hf")
    new = {n.removeprefix(prefix) for n in tensors if not n.endswith("position_ids")}
    assert set(formats.read(tmp_path / "new/model.safetensors")) == new
    again = described(tmp_path / "new")[0]
    assert again.model == card.model
    assert head == "text" or again.preprocessing == card.preprocessing
    with pytest.raises(UserError, match=f"no X-CLIP with head {head!r}; export by --format=hf"):
        written(card, params, tmp_path / "original", "original")


def test_large_hugging_face_folder_of_a_model_trained_here(tmp_path):
    """It has no source: JSON files are made anew, of sizes that are no defaults."""
    card, params, _ = described(hf_folder(tmp_path / "hf"), mit_heads=4, prompt_heads=2)
    trained = Card(card.model, card.preprocessing)
    written(trained, params, tmp_path / "anew", "hf")
    config = json.loads((tmp_path / "anew/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("xclip", ["XCLIPModel"])
    assert config["vision_config"]["mit_num_attention_heads"] == 4
    assert config["prompt_num_attention_heads"] == 2
    assert "text_config_dict" not in config
    again = described(tmp_path / "anew")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)
    # A new head count of a converted model shows in its config.json, too.
    originals = {"config.json": (tmp_path / "hf/config.json").read_bytes()}
    written(card, params, tmp_path / "changed", "hf", originals)
    assert described(tmp_path / "changed")[0].model == card.model


def test_heads_of_hugging_face_are_by_its_config(tmp_path):
    config = HF_CONFIG | {
        "prompt_num_attention_heads": 8,
        "vision_config": HF_CONFIG["vision_config"] | {"mit_num_attention_heads": 8},
    }
    source = hf_folder(tmp_path / "hf", config=config)
    card, _, notes = described(source)
    assert (card.model["mit_num_heads"], card.model["prompt_num_heads"]) == (8, 8)
    for words in (
        "WARNING: by config.json the transformer over frames 8 and the layers that make prompts 8",
        "where the original code has 1:",
        "logits then differ by about 0.1",
        "convert with --mit_heads=1 --prompt_heads=1",
    ):
        assert words in notes
    card, params, notes = described(source, mit_heads=1)
    assert (card.model["mit_num_heads"], card.model["prompt_num_heads"]) == (1, 8)
    assert "convert with --prompt_heads=1" in notes
    assert "WARNING" not in described(source, mit_heads=1, prompt_heads=1)[2]
    note = written(card, params, tmp_path / "original", "original")
    assert "does not tell that prompt_num_heads is 8 here: the original code computes oth" in note
    with pytest.raises(UserError, match=r"--mit_heads=5 does not divide the width 64"):
        described(source, mit_heads=5)
    with pytest.raises(UserError, match=r"--mit_heads and --prompt_heads are about parts that onl"):
        described(clip_folder(tmp_path / "clip"), mit_heads=1)


def test_numerics_are_those_of_the_config(tmp_path):
    numerics = {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    changes = {part: CLIP_CONFIG[part] | numerics for part in ("text_config", "vision_config")}
    card, params, _ = described(clip_folder(tmp_path / "hf", **changes))
    assert (card.model["act"], card.model["eps"]) == ("gelu", 1e-6)
    note = written(card, params, tmp_path / "original", "original")
    assert "does not tell that eps is 1e-06 and act is gelu here" in note
    wrong = {part: CLIP_CONFIG[part] | {"hidden_act": "silu"} for part in changes}
    with pytest.raises(
        UserError, match=r"hidden_act 'silu', and X-CLIP here computes gelu, .*only"
    ):
        described(clip_folder(tmp_path / "silu", **wrong))


@pytest.mark.parametrize(
    ("stated", "end_id"), [(2, None), (198, 198), (199, None), (200, None), (150, 150)]
)
def test_where_texts_end(tmp_path, stated, end_id):
    """A vocabulary of 200 may go on after the end of texts, as transformers' CLIP then finds."""
    text = CLIP_CONFIG["text_config"] | {"eos_token_id": stated}
    card, params, notes = described(clip_folder(tmp_path / "hf", text_config=text))
    assert card.model["vocab_size"] == 200 and card.model["end_id"] == end_id
    assert ("eos_token_id 200, which is no id of a vocabulary of 200" in notes) == (stated == 200)
    ids = np.array([[7, 199, 150, 198, 150, 3, 198]])
    model = models.build(**card.model)
    nested = {"params": traverse_util.unflatten_dict(params, sep="/")}
    found = model.apply(nested, ids, normalise=False, method="encode_text")
    tokens = model.apply(nested, ids, method=lambda model, ids: model.text_proj(model.text(ids)))
    first = {None: 1, 198: 3, 150: 2}[end_id]
    np.testing.assert_allclose(found, tokens[:, first], atol=FLOAT32)
    note = written(card, params, tmp_path / "original", "original")
    assert (f"end_id is {end_id}" in note) == bool(end_id)
    # One trained here says it, too.
    new = dataclasses.replace(card, provenance={})
    text = json.loads(xclip.export(new, "hf", {}).files["config.json"])["text_config"]
    assert text["eos_token_id"] == (end_id or 2)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
@pytest.mark.parametrize("projected", [False, True])
def test_clips_image_tower(tmp_path, projected, prefix):
    tensors = hf_tensors(clip_tensors())
    start = "vision_model."
    alone = {prefix + n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    if projected:
        alone["visual_projection.weight"] = tensors["visual_projection.weight"]
    config = VISION_CONFIG | {"model_type": "clip_vision_model", "projection_dim": 64}
    card, params, notes = described(hf_folder(tmp_path / "hf", alone, config, CLIP_PROCESSOR))
    assert card.model["head"] == "image" and "clips of 8 frames" in notes
    assert card.model["embed_dim"] == (64 if projected else None)
    whole, all_params, _ = described(clip_folder(tmp_path / "whole"))
    assert card.preprocessing == whole.preprocessing
    video = np.random.default_rng(0).standard_normal((2, 3, 32, 32, 3), np.float32)
    nested = {"params": traverse_util.unflatten_dict(params, sep="/")}
    found = models.build(**card.model).apply(nested, video, method="frame_vectors")
    nested = {"params": traverse_util.unflatten_dict(all_params, sep="/")}

    def expected(model, video):
        x = model.encoder(video)[1]
        return model.video_proj(x) if projected else x

    expected = models.build(**whole.model).apply(nested, video, method=expected)
    np.testing.assert_allclose(found, expected, atol=FLOAT32)
    written(card, params, tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), alone)
    new = xclip.export(dataclasses.replace(card, provenance={}), "hf", {})
    made = json.loads(new.files["config.json"])
    name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
    assert (made["architectures"], made["model_type"]) == ([name], "clip_vision_model")
    with pytest.raises(UserError, match="no X-CLIP with head 'image'; export by --format=hf"):
        xclip.export(card, "original", {})


def test_clips_text_tower_with_its_projection(tmp_path):
    tensors = hf_tensors(clip_tensors())
    alone = {n: t for n, t in tensors.items() if n.startswith("text_")}
    config = TEXT_CONFIG | {"model_type": "clip_text_model", "projection_dim": 64}
    card, params, _ = described(hf_folder(tmp_path / "hf", alone, config, None))
    assert (card.model["head"], card.model["embed_dim"]) == ("text", 64)
    whole, all_params, _ = described(clip_folder(tmp_path / "whole"))
    ids = np.random.default_rng(0).integers(0, 200, (3, 9))
    nested = {"params": traverse_util.unflatten_dict(params, sep="/")}
    found = models.build(**card.model).apply(nested, ids)
    nested = {"params": traverse_util.unflatten_dict(all_params, sep="/")}
    options = {"normalise": False, "method": "encode_text"}
    expected = models.build(**whole.model).apply(nested, ids, **options)
    np.testing.assert_allclose(found, expected, atol=FLOAT32)
    written(card, params, tmp_path / "out", "hf")
    same_tensors(formats.read(tmp_path / "out/model.safetensors"), alone)
    new = xclip.export(dataclasses.replace(card, provenance={}), "hf", {})
    made = json.loads(new.files["config.json"])
    assert made["architectures"] == ["CLIPTextModelWithProjection"]
