"""Vocabularies beside X-CLIPs and CLIPs."""

import gzip
import json

import numpy as np
import pytest

from converters import Options, formats, xclip
from tests.support.converting import command
from tests.support.hugging_face import nested
from tests.support.sources.xclip import (
    CHECKPOINT,
    HF_CONFIG,
    MIT_CONFIG,
    VISION_CONFIG,
    described,
    hf_folder,
    hf_tensors,
    original,
    tower,
)
from vidjax import pretrained
from vidjax import tokenizers as texts
from vidjax.card import read_card
from vidjax.errors import UserError


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    texts.train_clip_tokenizer(["a red ball sliding left", "blue shapes going up"], path, 520)
    return path


def with_vocabulary(tensors, rows=600):
    name = "token_embedding.weight"
    return tensors | {name: np.resize(tensors[name], (rows, tensors[name].shape[1]))}


def test_vocabulary_travels_with_the_model(tmp_path, vocabulary):
    formats.write_torch(tmp_path / "a.pth", with_vocabulary(original()))
    report = command(tmp_path / "a.pth", tmp_path / "v", tokenizer=str(vocabulary))
    assert "--prompt=" in report
    card = read_card(tmp_path / "v")
    assert card.tokenizer == {
        "file": "tokenizer.json",
        "length": 77,
        "canonicalise": True,
        "pad": "zero",
        "truncate": False,
    }
    ids, mask = pretrained.load_tokenizer(tmp_path / "v")(["A red ball!"])
    assert ids.shape == (1, 77) and ids[0, -1] == 0 and ids.max() == ids[0, mask.sum() - 1]
    command(tmp_path / "v", tmp_path / "hf", "hf")
    assert (tmp_path / "hf/tokenizer.json").read_bytes() == vocabulary.read_bytes()
    kind = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())["tokenizer_class"]
    assert kind == "CLIPTokenizer"
    # Found there by itself, and used as Hugging Face does.
    found = tokenizer_of(tmp_path / "hf")
    assert found.card == card.tokenizer | {"canonicalise": False, "pad": "end"}
    assert tokenizer_of(tmp_path / "hf", raw_text=False).card["canonicalise"] is True


def tokenizer_of(path, **options):
    return xclip.describe(formats.open_source(path), Options(**options)).tokenizer


def test_vocabulary_in_two_files(tmp_path, vocabulary):
    """A vocabulary as in Hugging Face's older folders."""
    content = json.loads(vocabulary.read_text())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    config = nested(HF_CONFIG, "text_config", vocab_size=600)
    source = hf_folder(tmp_path / "hf", hf_tensors(with_vocabulary(original())), config)
    (source / "vocab.json").write_text(json.dumps(content["vocab"] | added(vocabulary)))
    with pytest.raises(UserError, match=r"vocab.json is half a vocabulary; put its merges.txt"):
        tokenizer_of(source)
    (source / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    command(source, tmp_path / "v")
    card = read_card(tmp_path / "v").tokenizer
    assert (card["file"], card["canonicalise"], card["pad"]) == ("tokenizer.json", False, "end")
    ours = pretrained.load_tokenizer(tmp_path / "v")(["blue ball sliding up"])
    theirs = texts.ClipTokenizer(vocabulary, canonicalise=False, pad="end")(
        ["blue ball sliding up"]
    )
    np.testing.assert_array_equal(ours, theirs)
    # The other kind is preferred where both lie there.
    (source / "tokenizer.json").write_bytes(vocabulary.read_bytes())
    assert tokenizer_of(source).path == source / "tokenizer.json"


def test_vocabulary_of_openai(tmp_path, vocabulary):
    content = json.loads(vocabulary.read_text())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["a title", *pairs]).encode()))
    found = tokenizer_of(CHECKPOINT, tokenizer=str(path))
    assert (found.card["canonicalise"], found.card["pad"]) == (True, "zero")
    found.write(found.path, tmp_path / found.card["file"])
    assert (tmp_path / "tokenizer.json").read_bytes() == vocabulary.read_bytes()


def added(vocabulary):
    """Ids of the tokens that are not pieced together."""
    content = json.loads(vocabulary.read_text())
    return {token["content"]: token["id"] for token in content["added_tokens"]}


def test_vocabularies_that_do_not_fit(tmp_path, vocabulary):
    path = CHECKPOINT
    assert "no vocabulary beside the weights" in described(path)[2]
    with pytest.raises(UserError, match=r"gone.txt.gz is no tokenizer.json, vocab.json or bpe_sim"):
        described(path, tokenizer=str(tmp_path / "gone.txt.gz"))
    config = {"model_type": "xclip_vision_model"} | VISION_CONFIG | MIT_CONFIG
    source = hf_folder(tmp_path / "hf", tower("vision", ""), config)
    with pytest.raises(UserError, match=r"--tokenizer and --raw_text are about texts"):
        described(source, tokenizer=str(vocabulary))
