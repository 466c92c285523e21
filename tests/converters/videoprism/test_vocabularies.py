"""Vocabularies beside VideoPrisms."""

import shutil

import numpy as np
import pytest

from converters import Options, formats, videoprism
from tests.support.converting import command
from tests.support.goldens import GOLDENS
from tests.support.sources.videoprism import KERAS, described, hf_folder, lvt_tensors, preset
from vidjax import pretrained
from vidjax import tokenizers as texts
from vidjax.card import read_card
from vidjax.errors import UserError


def test_vocabulary_travels_with_the_model(tmp_path, vocabulary):
    source = GOLDENS / "videoprism_lvt/checkpoint.npz"
    report = command(source, tmp_path / "v", tokenizer=str(vocabulary))
    card = read_card(tmp_path / "v")
    assert card.tokenizer == {"file": "tokenizer.model", "length": 64, "canonicalise": True}
    assert "--prompt=" in report
    assert (tmp_path / "v/tokenizer.model").read_bytes() == vocabulary.read_bytes()
    ids, _ = pretrained.load_tokenizer(tmp_path / "v")(["A red ball!"])
    plain, _ = texts.Tokenizer(vocabulary, canonicalise=False)(["a red ball."])
    np.testing.assert_array_equal(ids, plain)
    command(tmp_path / "v", tmp_path / "hf", "hf")
    assert (tmp_path / "hf/spiece.model").read_bytes() == vocabulary.read_bytes()
    # Found there by itself.
    assert tokenizer_of(tmp_path / "hf", raw_text=True).card == card.tokenizer | {
        "canonicalise": False
    }


def tokenizer_of(folder, **options):
    source = formats.open_source(folder)
    return videoprism.describe(source, Options(**options)).tokenizer


def test_vocabulary_of_a_folder(tmp_path, vocabulary):
    source = hf_folder(tmp_path / "hf")
    (source / "tokenizer.json").write_text("{}")
    assert tokenizer_of(source).card["file"] == "tokenizer.json"
    for name in ("tokenizer.model", "sentencepiece.model", "spiece.model"):
        shutil.copyfile(vocabulary, source / name)
        found = tokenizer_of(source)
        assert (found.path, found.card["file"]) == (source / name, "tokenizer.model")
    source = preset(KERAS[1], tmp_path / "preset")
    (source / "tokenizer.json").write_text('{"class_name": "VideoPrismTokenizer"}')
    assert tokenizer_of(source) is None


def test_vocabularies_that_do_not_fit(tmp_path, vocabulary):
    lvt, video = (GOLDENS / f"videoprism_{name}/checkpoint.npz" for name in ("lvt", "video"))
    assert "no vocabulary beside the weights" in described(lvt)[2]
    with pytest.raises(UserError, match=r"--tokenizer and --raw_text are about texts"):
        described(video, tokenizer=str(vocabulary))
    with pytest.raises(UserError, match=r"gone.model is no SentencePiece .model"):
        described(lvt, tokenizer=str(tmp_path / "gone.model"))
    tensors = dict(lvt_tensors())
    name = "params/text_encoder/token_emb/emb_var"
    tensors[name] = tensors[name][:20]
    formats.write_npz(tmp_path / "a.npz", tensors)
    with pytest.raises(UserError, match=r"the vocabulary has \d+ token ids and the model 20"):
        command(tmp_path / "a.npz", tmp_path / "v", tokenizer=str(vocabulary))
    assert not (tmp_path / "v").exists()
