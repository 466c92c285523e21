"""Tokenisers: VideoPrism's goldens where its test vocabulary is at hand, and made ones anywhere."""

import json
import os
import pathlib
import pickle
import warnings

import numpy as np
import pytest

from vidjax.data.text import Tokenizer, canonicalise, train_tokenizer
from vidjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/goldens/videoprism_tokenizer/golden.json").read_text())
ASSETS = os.environ.get("VIDJAX_ASSETS") or ROOT.parent / "shared" / "goldens" / "assets"
SPM = pathlib.Path(ASSETS) / "test_spm.model"
TEXTS = [
    "A person is playing drums!",
    "two dogs are running in a green park",
    "a dog plays, and a person is running",
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    train_tokenizer(TEXTS, path, 60)
    return path


def pieces(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    return tokenizer._model.decode([int(token) for token in ids])


@pytest.mark.parametrize("entry", GOLDEN, ids=range(len(GOLDEN)))
def test_canonicalisation_is_the_originals(entry):
    assert canonicalise(entry["text"]) == entry["canonical"]


@pytest.mark.skipif(not SPM.is_file(), reason="VIDJAX_ASSETS has no test_spm.model of VideoPrism")
@pytest.mark.filterwarnings("ignore:a text of")
@pytest.mark.parametrize("length", [16, 64])
@pytest.mark.parametrize("canonical", [True, False])
def test_ids_and_masks_are_the_originals(length, canonical):
    tokenizer = Tokenizer(SPM, length, canonical)
    ids, mask = tokenizer([entry["text"] for entry in GOLDEN])
    assert tokenizer.vocab_size == 1000 and len(ids) == 30
    for entry, row, real in zip(GOLDEN, ids, mask, strict=True):
        want = entry["ids_canonicalised" if canonical else "ids"][:length]
        assert row.tolist() == want + [0] * (length - len(want))
        assert real.tolist() == [True] * len(want) + [False] * (length - len(want))


def test_ids_are_padded_by_0_and_have_no_end(vocabulary):
    tokenizer = Tokenizer(vocabulary, 32)
    ids, mask = tokenizer([TEXTS[0], ""])
    assert (ids.shape, ids.dtype, mask.shape, mask.dtype) == ((2, 32), "int32", (2, 32), "bool")
    assert (ids[~mask] == 0).all() and (ids[mask] > 2).all()  # pad 0, eos 1, unk 2
    assert pieces(tokenizer, ids[0, mask[0]]) == "a person is playing drums."
    assert pieces(tokenizer, ids[1, mask[1]]) == "."
    assert ids.max() < tokenizer.vocab_size
    one, _ = tokenizer(TEXTS[0])
    assert np.array_equal(one, ids[:1])


def test_canonicalisation_can_be_left_out(vocabulary):
    shouted = ["A DOG, running"]
    cleaned, _ = Tokenizer(vocabulary)(shouted)
    assert np.array_equal(cleaned, Tokenizer(vocabulary, canonicalise=False)(["a dog running."])[0])
    raw, _ = Tokenizer(vocabulary, canonicalise=False)(shouted)
    assert 2 in raw and 2 not in cleaned  # capitals and the comma are unknown


@pytest.mark.filterwarnings("ignore:a text of")
def test_a_model_with_bos_gets_it_in_front(vocabulary, tmp_path):
    import sentencepiece

    path = tmp_path / "bos.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(map(canonicalise, TEXTS)),
            model_writer=file,
            **{"vocab_size": 60, "bos_id": 5, "hard_vocab_limit": False, "minloglevel": 2},
        )
    ids, mask = Tokenizer(path)(TEXTS)
    assert (ids[:, 0] == 5).all() and (ids[:, 1:] != 5).all() and mask[:, 0].all()
    short, _ = Tokenizer(path, 4)(TEXTS[1:2])  # it counts
    assert np.array_equal(short, ids[1:2, :4])


def test_longer_texts_are_cut_with_one_warning(vocabulary):
    whole, _ = Tokenizer(vocabulary, 32)(TEXTS)
    tokenizer = Tokenizer(vocabulary, 5)
    with pytest.warns(UserWarning, match=r"a text of \d+ tokens is cut to 5.*'A person") as caught:
        ids, mask = tokenizer(TEXTS)
    assert len(caught) == 1
    assert np.array_equal(ids, whole[:, :5]) and mask.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(TEXTS)
        Tokenizer(vocabulary, int((whole[0] > 0).sum()))(TEXTS[:1])  # it just fits


def test_tokenizers_can_be_pickled(vocabulary, tmp_path):
    moved = tmp_path / "moved.model"
    moved.write_bytes(vocabulary.read_bytes())
    tokenizer = Tokenizer(moved, 16, canonicalise=False)
    copy = pickle.dumps(tokenizer)
    moved.unlink()
    for mine, other in zip(tokenizer(TEXTS), pickle.loads(copy)(TEXTS), strict=True):
        assert np.array_equal(mine, other)


def test_a_json_of_hugging_face(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "</s>", "<unk>", "a", "dog", "runs", ".", "A"]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    made.enable_truncation(2)
    made.enable_padding(length=7, pad_id=3)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    tokenizer = Tokenizer(path, 6)
    ids, mask = tokenizer(["A dog runs!", "cat"])
    assert ids.tolist() == [[3, 4, 5, 6, 0, 0], [2, 6, 0, 0, 0, 0]]  # nothing of the file's own
    assert mask.sum(1).tolist() == [4, 2] and tokenizer.vocab_size == 8
    raw, _ = pickle.loads(pickle.dumps(Tokenizer(path, 3, canonicalise=False)))(["A dog"])
    assert raw.tolist() == [[7, 4, 0]]


def test_training_gives_the_same_file_and_words(vocabulary, tmp_path):
    train_tokenizer(TEXTS, tmp_path / "again.model", 60)
    assert (tmp_path / "again.model").read_bytes() == vocabulary.read_bytes()
    assert Tokenizer(vocabulary).vocab_size <= 60
    with pytest.raises(UserError, match="no tokeniser of 6 pieces") as caught:
        train_tokenizer(TEXTS, tmp_path / "small.model", 6)
    assert "\n" not in str(caught.value) and not (tmp_path / "small.model").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.model", None, "tokeniser file .*none.model does not exist"),
        ("vocab.txt", "a\n", r"must be a SentencePiece \.model or a tokenizer\.json"),
        ("bad.model", "not a model", "bad.model is not a SentencePiece model"),
        ("bad.json", '{"model": 1}', "bad.json is not a tokenizer.json"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, content, message):
    if name.endswith(".json"):
        pytest.importorskip("tokenizers")
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        Tokenizer(tmp_path / name)


def test_a_length_is_positive(vocabulary):
    with pytest.raises(UserError, match="at least 1, not 0"):
        Tokenizer(vocabulary, 0)
