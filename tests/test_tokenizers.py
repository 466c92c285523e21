"""Tokenisers: the originals' goldens where their vocabularies are at hand; made ones anywhere."""

import gzip
import json
import os
import pathlib
import pickle
import re
import warnings

import numpy as np
import pytest
import sentencepiece

from vidjax.errors import UserError
from vidjax.tokenizers import (
    ClipTokenizer,
    Tokenizer,
    canonicalise,
    clip_tokenizer_json,
    open_tokenizer,
    train_clip_tokenizer,
    train_tokenizer,
)

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests/goldens/videoprism_tokenizer/golden.json").read_text())
ASSETS = os.environ.get("VIDJAX_ASSETS") or ROOT.parent / "shared" / "goldens" / "assets"
SPM = pathlib.Path(ASSETS) / "test_spm.model"
CLIP_GOLDEN = json.loads((ROOT / "tests/goldens/clip_tokenizer/golden.json").read_text())
BPE = pathlib.Path(ASSETS) / "bpe_simple_vocab_16e6.txt.gz"
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
    model = sentencepiece.SentencePieceProcessor(model_file=tokenizer.path)
    return model.decode([int(token) for token in ids])


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


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> pathlib.Path:
    """CLIP's kind without any merge: 512 bytes, 512 start, 513 end."""
    path = tmp_path_factory.mktemp("clip") / "tokenizer.json"
    train_clip_tokenizer([], path, 514)
    return path


def spelled(words: str) -> list[int]:
    """The ids of words of bytes, visible ones first; 256 more at the end of a word."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = visible + [byte for byte in range(256) if byte not in visible]
    ids = []
    for word in words.split():
        found = [order.index(byte) for byte in word.encode()]
        ids += {"START": [512], "END": [513]}.get(word) or [*found[:-1], found[-1] + 256]
    return ids


def clip_ids(path, text: str, **options) -> list[int]:
    """The ids between start and end."""
    ids, mask = ClipTokenizer(path, 99, **options)([text])
    return ids[0, mask[0]][1:-1].tolist()


@pytest.mark.skipif(not BPE.is_file(), reason=f"VIDJAX_ASSETS has no {BPE.name} of OpenAI")
def test_ids_are_those_of_the_original_clip(tmp_path):
    path = tmp_path / "tokenizer.json"
    clip_tokenizer_json(BPE, path)
    tokenizer = open_tokenizer(path)
    assert (tokenizer.kind, tokenizer.vocab_size, len(CLIP_GOLDEN)) == ("clip", 49408, 40)
    rows = [[49406, *entry["ids"], 49407] for entry in CLIP_GOLDEN]
    texts = [entry["text"] for entry in CLIP_GOLDEN]
    assert sum(len(row) > 77 for row in rows) == 2
    for text, row in zip(texts, rows, strict=True):
        if len(row) > 77:
            with pytest.raises(UserError, match=rf"has {len(row)} token ids .* only 77 fit"):
                tokenizer([text])
        else:
            ids, mask = tokenizer([text])
            assert ids[0].tolist() == row + [0] * (77 - len(row)), text
            assert mask[0].tolist() == [True] * len(row) + [False] * (77 - len(row))
    tokenizer.truncate = True  # and all at once
    cut = [row if len(row) <= 77 else [*row[:76], 49407] for row in rows]
    assert [row[m].tolist() for row, m in zip(*tokenizer(texts), strict=True)] == cut


def test_clip_frames_its_ids(letters):
    ids, mask = ClipTokenizer(letters, 8)(["A cat!", ""])
    assert (ids.dtype, mask.dtype) == ("int32", "bool")
    assert ids.tolist() == [[512, 320, 66, 64, 339, 256, 513, 0], [512, 513, 0, 0, 0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [7, 2] and mask[:, 0].all()
    padded, same = ClipTokenizer(letters, 8, pad="end")(["A cat!", ""])
    assert padded[0].tolist() == [*ids[0, :-1], 513] and (padded[1, 1:] == 513).all()
    assert np.array_equal(mask, same)  # the real end, and no other
    one, _ = ClipTokenizer(letters)("A cat!")
    assert one.shape == (1, 77) and np.array_equal(one[:, :8], ids[:1])


def test_clip_refuses_long_texts_or_cuts_them_before_the_end(letters):
    just, _ = ClipTokenizer(letters, 7)(["a cat!"])
    assert just.tolist() == [[512, 320, 66, 64, 339, 256, 513]]
    with pytest.raises(UserError, match=r"has 7 token ids .* only 6 fit: 'a cat!'; .*truncate"):
        ClipTokenizer(letters, 6)(["a", "a cat!"])
    ids, mask = ClipTokenizer(letters, 6, truncate=True)(["a cat!"])
    assert ids.tolist() == [[512, 320, 66, 64, 339, 513]] and mask.all()


@pytest.mark.parametrize(
    ("text", "original", "hugging_face"),
    [
        ("It's  A\n\tDOG2go", "it 's a dog 2 go", None),
        ("they've don't, I'll.", "they 've don 't , i 'll .", None),
        ("a 2024!? x", "a 2 0 2 4 !? x", None),
        ("fish &amp;amp; &lt;b&gt;", "fish & < b >", "fish & amp ; amp ; & lt ; b & gt ;"),
        ("“x” ‘y’", "\" x \" ' y '", "“ x ” ‘ y ’"),
        ("cafÃ©", "café", "cafã ©"),
        ("CAFE\u0301", "caf\u00e9", None),
        ("it'ſ", "it 'ſ", "it ' ſ"),  # the original's expression ignores case
        ("<|endoftext|> a <|startoftext|>", "END a START", None),
        ("a<|endoftext|>b", "a END b", None),
        # The original looks for pieces from left to right, Hugging Face for special tokens first.
        ("!<|endoftext|>", "!<| endoftext |>", "! END"),
        ("<|ENDOFTEXT|>", "END", "<| endoftext |>"),
    ],
)
def test_clip_cleans_and_splits_as_either(letters, text, original, hugging_face):
    assert clip_ids(letters, text) == spelled(original)
    assert clip_ids(letters, text, canonicalise=False) == spelled(hugging_face or original)


def test_training_clips_kind(tmp_path):
    path = tmp_path / "tokenizer.json"
    texts = ["ba ab", "dog &amp; DOG dog"]
    train_clip_tokenizer(iter(texts), path, 600)
    model = json.loads(path.read_text())["model"]
    # Of merges that are as good, the one with the lower ids: a is 64, a</w> 320.
    assert model["merges"] == [["d", "o"], ["do", "g</w>"], ["a", "b</w>"], ["b", "a</w>"]]
    made = ["do", "dog</w>", "ab</w>", "ba</w>", "<|startoftext|>", "<|endoftext|>"]
    assert sorted(model["vocab"], key=model["vocab"].get)[512:] == made
    assert sorted(model["vocab"].values()) == list(range(518))
    ids, _ = ClipTokenizer(path, 8)(["Dog dot ab", "do"])
    assert ids.tolist() == [[516, 513, 512, 339, 514, 517, 0, 0], [516, 67, 334, 517, 0, 0, 0, 0]]
    train_clip_tokenizer(texts, tmp_path / "small.json", 516)
    small = ClipTokenizer(tmp_path / "small.json")
    assert small.vocab_size == 516 and small.fits(516) and not small.fits(515)
    with pytest.raises(UserError, match=r"no CLIP tokeniser of 513 ids .* are 514"):
        train_clip_tokenizer(texts, tmp_path / "none.json", 513)


@pytest.fixture(scope="module")
def dogs(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("dogs") / "tokenizer.json"
    train_clip_tokenizer(TEXTS, path, 560)
    return path


def test_a_clip_file_counts_for_its_vocabulary_only(dogs, tmp_path):
    import tokenizers

    other = tokenizers.Tokenizer.from_file(str(dogs))
    other.normalizer = tokenizers.normalizers.Lowercase()
    other.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    other.post_processor = tokenizers.processors.TemplateProcessing("$A a", None, [("a", 64)])
    other.enable_truncation(3)
    other.enable_padding(length=90, pad_id=3)
    content = json.loads(other.to_str())
    del content["model"]["type"]  # as in files of old
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    for token in ("<|startoftext|>", "<|endoftext|>"):  # still among the added tokens
        del content["model"]["vocab"][token]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    texts = [*TEXTS, "It's  2024 <|endoftext|> &amp;", ""]
    for cleaned in (True, False):
        ids, mask = open_tokenizer(path, canonicalise=cleaned)(texts)
        want, real = open_tokenizer(dogs, canonicalise=cleaned)(texts)
        assert np.array_equal(ids, want) and np.array_equal(mask, real)
    assert len(clip_ids(dogs, TEXTS[0])) < 12  # the merges are at work


def test_clip_files_are_made_of_those_that_its_vocabulary_comes_in(dogs, tmp_path):
    model = json.loads(dogs.read_text())["model"]
    lines = [" ".join(pair) for pair in model["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    clip_tokenizer_json(tmp_path, tmp_path / "folder.json")
    assert (tmp_path / "folder.json").read_bytes() == dogs.read_bytes()
    packed = tmp_path / "bpe.txt.gz"
    packed.write_bytes(gzip.compress("\n".join(['"bpe.txt#version: 0.2', *lines, ""]).encode()))
    clip_tokenizer_json(packed, tmp_path / "packed.json")
    assert (tmp_path / "packed.json").read_bytes() == dogs.read_bytes()

    packed.write_bytes(gzip.compress(b"title\na b\nx yz\n"))
    with pytest.raises(UserError, match=r"bpe\.txt\.gz holds no vocabulary of CLIP: .*yz"):
        clip_tokenizer_json(packed, tmp_path / "bad.json")
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"bpe\.txt\.gz holds no vocabulary of CLIP"):
        clip_tokenizer_json(packed, tmp_path / "bad.json")
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(UserError, match=r"vocab\.json holds \[1\], expected a JSON object"):
        clip_tokenizer_json(tmp_path, tmp_path / "bad.json")
    (tmp_path / "vocab.json").write_text('{"a": "b"}')
    with pytest.raises(UserError, match=r"holds no vocabulary of CLIP: .* no table"):
        clip_tokenizer_json(tmp_path, tmp_path / "bad.json")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt does not exist; .* or the file bpe_simple"):
        clip_tokenizer_json(tmp_path, tmp_path / "bad.json")
    assert not (tmp_path / "bad.json").exists()


def test_cut_and_bloated_vocabularies_are_refused(dogs, vocabulary, tmp_path):
    model = json.loads(dogs.read_text())["model"]
    lines = [" ".join(pair) for pair in model["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    for some in (lines[:-1], lines[:3]):
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *some, ""]))
        with pytest.raises(UserError, match=rf"by none of its {len(some)} merges, as if .* cut"):
            clip_tokenizer_json(tmp_path, tmp_path / "bad.json")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(UserError, match="it has no merges, as if cut off"):
        clip_tokenizer_json(tmp_path, tmp_path / "bad.json")
    packed = tmp_path / "bpe.txt.gz"
    packed.write_bytes(gzip.compress(bytes(100_000_000)))
    with pytest.raises(UserError, match="unpacks to more than 64,000,000 bytes"):
        clip_tokenizer_json(packed, tmp_path / "bad.json")
    packed.write_bytes(b"")
    with pytest.raises(UserError, match=r"bpe\.txt\.gz holds no vocabulary of CLIP"):
        clip_tokenizer_json(packed, tmp_path / "bad.json")

    content, cut = vocabulary.read_bytes(), tmp_path / "cut.model"
    for size in range(0, len(content), len(content) // 40):
        cut.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"cut\.model is not a SentencePiece model, or is dama"):
            open_tokenizer(cut)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": {"<|startoftext|>": None}}, "'<|startoftext|>' is missing, and 0 more"),
        ({"vocab": {"<|endoftext|>": None}}, "'<|endoftext|>' is missing"),
        ({"vocab": {"é": None}}, "'é' is missing"),
        ({"vocab": {"x": 514}}, "'x' has the id 514, above 513 of '<|endoftext|>', which must be"),
        ({"added": ("<pad>", 514)}, "'<pad>' has the id 514, above 513"),
        ({"vocab": {"x": "7"}}, "no table of tokens and ids"),
        ({"merges": [["a", "nothing"]]}, "nothing"),
        ({"merges": ["a b c"]}, "['a', 'b', 'c'] is no pair"),
    ],
)
def test_other_vocabularies_are_not_clips(letters, tmp_path, change, message):
    content = json.loads(letters.read_text())
    vocabulary = content["model"]["vocab"] | change.get("vocab", {})
    content["model"]["vocab"] = {token: i for token, i in vocabulary.items() if i is not None}
    content["added_tokens"] = [
        {"content": token, "id": i} for token, i in [change.get("added", ("a", 64))]
    ]
    content["model"]["merges"] = change.get("merges", [])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds no vocabulary of CLIP: .*" + re.escape(message)):
        open_tokenizer(path)


def test_tokenizers_are_opened_by_their_file(vocabulary, letters, tmp_path):
    tokenizer = open_tokenizer(letters, length=5, pad="end")
    want = {"length": 5, "canonicalise": True, "pad": "end", "truncate": False}
    assert (tokenizer.kind, tokenizer.path, tokenizer.options) == ("clip", str(letters), want)
    moved = tmp_path / "moved.json"
    moved.write_bytes(letters.read_bytes())
    copy = pickle.dumps(open_tokenizer(moved, **want))
    moved.unlink()
    for mine, other in zip(tokenizer(["a"]), pickle.loads(copy)(["a"]), strict=True):
        assert np.array_equal(mine, other)
    tokenizer = open_tokenizer(vocabulary, length=5)
    assert tokenizer.kind == "sentencepiece" and type(tokenizer) is Tokenizer
    assert tokenizer.options == {"length": 5, "canonicalise": True}
    for file, option in ((vocabulary, "pad"), (letters, "lenght")):
        with pytest.raises(UserError, match=f"has no option {option}; it has length, canonicalise"):
            open_tokenizer(file, **{option: 1})


@pytest.mark.parametrize("bpe", [False, True])
def test_another_json_is_no_clip(tmp_path, bpe):
    import tokenizers

    kinds = tokenizers.models
    model = kinds.BPE({"a": 0}, []) if bpe else kinds.WordLevel({"a": 0}, "a")
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(model).save(str(path))
    assert type(open_tokenizer(path)) is Tokenizer
    with pytest.raises(UserError, match="is not CLIP's kind of tokeniser"):
        ClipTokenizer(path)
    path.write_text('{"class_name": "VideoPrismTokenizer"}')  # KerasHub's
    with pytest.raises(UserError, match=r"is not a tokenizer\.json of the tokenizers library"):
        open_tokenizer(path)
    with pytest.raises(UserError, match=r"none\.json does not exist"):
        open_tokenizer(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "length must be at least 2, for start and end, not 1"),
        ({"pad": 0}, "pads with 'zero' or 'end', not 0"),
    ],
)
def test_clip_options_are_checked(letters, options, message):
    with pytest.raises(UserError, match=message):
        ClipTokenizer(letters, **options)
