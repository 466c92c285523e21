"""VideoPrism in Hugging Face's format: round trips byte by byte, towers, text positions."""

import ml_dtypes
import numpy as np
import pytest

from converters import formats
from tests.support.converting import assert_comes_back, same_params, same_tensors
from tests.support.sources.videoprism import (
    HF_CONFIG,
    converted,
    described,
    hf_folder,
    hf_tensors,
    lvt_tensors,
    written,
)
from vidjax import pretrained
from vidjax.card import Card
from vidjax.errors import UserError


def test_npz_and_hugging_face_of_the_same_weights_are_the_same(tmp_path):
    source = hf_folder(tmp_path / "hf")
    card, params, notes = described(source)
    same_params(params, converted("videoprism_lvt")[1])
    assert card.model["text_pos_exponent"] == 1.0
    assert "text positions by the original's formula, as the file's table shows" in notes
    assert card.model | {"l2_eps": 1e-12} == converted("videoprism_lvt")[0].model
    # And from one home to the other.
    written(*converted("videoprism_lvt"), tmp_path / "hf2", "hf")
    ours, theirs = (
        dict(formats.read(tmp_path / name / "model.safetensors")) for name in ("hf", "hf2")
    )
    table = "text_model.embeddings.position_embedding"
    np.testing.assert_allclose(ours.pop(table), theirs.pop(table), atol=2e-5)
    same_tensors(ours, theirs)
    written(card, params, tmp_path / "npz", "original")
    same_tensors(formats.read(tmp_path / "npz/checkpoint.npz"), lvt_tensors())


def test_text_positions_are_told_by_the_table(tmp_path):
    for k, (exponent, dtype) in enumerate(
        [(1.0, np.float32), (1 - 2 / 32, np.float32), (1.0, ml_dtypes.bfloat16)]
    ):
        tensors = hf_tensors(lvt_tensors(), exponent)
        tensors = {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in tensors.items()}
        source = hf_folder(tmp_path / f"{k}", tensors)
        assert described(source)[0].model["text_pos_exponent"] == exponent
    tensors = hf_tensors(lvt_tensors(), 0.97)
    with pytest.raises(UserError, match="made neither by the original's formula nor by"):
        described(hf_folder(tmp_path / "neither", tensors))
    tensors = hf_tensors(lvt_tensors())
    tensors["text_model.embeddings.position_ids"] = np.arange(64)[None, ::-1].copy()
    with pytest.raises(UserError, match=r"position_ids: not 0, 1, 2"):
        described(hf_folder(tmp_path / "ids", tensors))


def test_hugging_face_round_trip_by_the_command(tmp_path):
    """In half precision, position tables included."""
    tensors = {
        name: array.astype(ml_dtypes.bfloat16) if array.dtype == np.float32 else array
        for name, array in hf_tensors(lvt_tensors(), 1 - 2 / 32).items()
    }
    source = hf_folder(tmp_path / "hf", tensors)
    report = assert_comes_back(source, tmp_path)
    assert "left out 2 tensors (text_model.embeddings.position_embedding, ...): made anew" in report
    assert "text positions by transformers' formula, not the original's" in report


def vision_folder(folder, change, **changes):
    start = "video_model.vision_model."
    tensors = hf_tensors(lvt_tensors())
    tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    return hf_folder(folder, change(tensors), HF_CONFIG["vision_config"] | changes)


def test_no_layers_along_time(tmp_path):
    source = vision_folder(
        tmp_path / "hf",
        lambda t: {n: x for n, x in t.items() if not n.startswith("temporal_layers.")},
        num_temporal_layers=0,
    )
    assert_comes_back(source, tmp_path)
    loaded = pretrained.load_model(tmp_path / "v")
    assert loaded.card.model["temporal_depth"] == 0
    assert set(loaded.params["encoder"]["temporal"]) == {"norm", "pos_embed"}


def test_frames_that_are_not_square_are_noted(tmp_path):
    table = "spatial_embeddings.position_embeddings"
    _, h, w = converted("videoprism_lvt")[0].model["pos_grid"]
    _, patch, _ = converted("videoprism_lvt")[0].model["patch_size"]
    source = vision_folder(
        tmp_path / "hf",
        lambda t: t | {table: np.repeat(t[table], 2, axis=1)},
        image_size=[h * patch, 2 * w * patch],
    )
    card, params, notes = described(source)
    assert (
        f"frames of {h * patch} x {2 * w * patch} pixels, and frames are prepared square" in notes
    )
    assert card.preprocessing.size == h * patch
    originals = {"config.json": (source / "config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]


def test_hugging_face_folder_of_a_model_trained_here(tmp_path):
    """It has no source: tables and JSON files are made anew."""
    tensors = hf_tensors(lvt_tensors(), 1 - 2 / 32)
    card, params, _ = described(hf_folder(tmp_path / "hf", tensors))
    trained = Card(card.model, card.preprocessing)
    written(trained, params, tmp_path / "anew", "hf")
    anew = dict(formats.read(tmp_path / "anew/model.safetensors"))
    table = "text_model.embeddings.position_embedding"
    np.testing.assert_allclose(anew.pop(table), tensors.pop(table), atol=2e-5)
    same_tensors(anew, tensors)
    again = described(tmp_path / "anew")[0]
    assert (again.model, again.preprocessing) == (card.model, card.preprocessing)
    assert written(*converted("videoprism_lvt"), tmp_path / "npz", "original") == ""
    note = written(trained, params, tmp_path / "npz2", "original")
    assert "does not tell that text_pos_exponent is 0.9375 here" in note


SINGLE_TOWERS = {
    None: "video_model.vision_model.",
    "video": "video_model.",
    "text": "text_model.",
    "classify": "video_model.",
}


@pytest.mark.parametrize("before", ["", "module."])
@pytest.mark.parametrize("head", SINGLE_TOWERS, ids=str)
def test_hugging_face_models_of_one_tower(tmp_path, head, before):
    start = SINGLE_TOWERS[head]
    tensors = hf_tensors(lvt_tensors())
    tensors = {before + n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    config = dict(HF_CONFIG["text_config" if head == "text" else "vision_config"])
    if head == "classify":
        tensors = {n: t for n, t in tensors.items() if "auxiliary" not in n}
        rng = np.random.default_rng(0)
        tensors |= {
            f"{before}classifier.{name}": rng.standard_normal(shape, np.float32)
            for name, shape in (("weight", (3, 32)), ("bias", (3,)))
        }
        config["id2label"] = {str(k): name for k, name in enumerate("abc")}
    source = hf_folder(tmp_path / "hf", tensors, config)
    card, params, _ = described(source)
    assert card.model["head"] == head
    assert card.classes == (("a", "b", "c") if head == "classify" else None)
    originals = {"config.json": (source / "config.json").read_bytes()}
    written(card, params, tmp_path / "out", "hf", originals)
    again = dict(formats.read(tmp_path / "out/model.safetensors"))
    if head == "text":  # the command writes the one that the model came with
        again[f"{before}embeddings.position_embedding"] = tensors[
            f"{before}embeddings.position_embedding"
        ]
    same_tensors(again, tensors)
    assert (tmp_path / "out/config.json").read_bytes() == originals["config.json"]
    # A new file has transformers' own names, and a config.json that describes the same model.
    card = Card(card.model, card.preprocessing, card.classes)
    written(card, params, tmp_path / "new", "hf")
    names = {name.removeprefix(before) for name in tensors}
    if head == "video" or head == "classify":
        assert "vision_model.layernorm1.weight" in names
    assert set(formats.read(tmp_path / "new/model.safetensors")) == names
    assert described(tmp_path / "new")[0].model == card.model
