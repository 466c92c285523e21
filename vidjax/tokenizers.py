"""Texts to token ids, with the vocabulary file that a checkpoint was trained with.

    open_tokenizer        either of the next two, as the file wants it
    Tokenizer             a SentencePiece .model, or a tokenizer.json of Hugging Face
    ClipTokenizer         a tokenizer.json that holds CLIP's byte-pair encoding
    canonicalise          VideoPrism's cleaning of a text
    train_tokenizer       a small SentencePiece model of one's own
    train_clip_tokenizer  a small tokenizer.json of CLIP's kind
    clip_tokenizer_json   a tokenizer.json of the files that CLIP's vocabulary comes in

Sources: google-deepmind/videoprism models.py (tokenize_texts), utils.py (canonicalize_text),
tokenizers.py; the vocabulary is T5's cc_en.32000. microsoft/VideoX X-CLIP/clip (clip.py,
simple_tokenizer.py), which is OpenAI's; the vocabulary is its bpe_simple_vocab_16e6.
"""

import functools
import gzip
import html
import io
import json
import os
import string
import warnings
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vidjax import json_files
from vidjax.errors import UserError

_SPACES = str.maketrans(string.punctuation, " " * len(string.punctuation))
_START, _END, _SUFFIX = "<|startoftext|>", "<|endoftext|>", "</w>"
# The characters that stand for the 256 bytes, in the order of CLIP's ids: those that can be seen
# stand for themselves, and the others, from byte 0 on, are taken from 256 on.
_ALPHABET = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256 + 68))]
_MERGES = 49152 - 256 - 2  # what CLIP uses of the 262,000 in its file
_MAX_BYTES = 64_000_000  # of a vocabulary unpacked; OpenAI's has 3,000,000
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_WORDS = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def canonicalise(text: str) -> str:
    """ASCII punctuation to spaces, lower case, single spaces, and a full stop at the end.

    "Hello,World.." becomes "hello world.", and an empty text ".".
    """
    return " ".join(text.translate(_SPACES).lower().split()) + "."


class Tokenizer:
    """Texts -> ids and mask of a fixed length; can be pickled for worker processes.

    A SentencePiece model with a BOS id gets it put in front, as in VideoPrism's tokenize_texts (the
    released vocabulary has none); EOS is never added, and padding is id 0, whatever the file says.

    Attributes:
        path: of the vocabulary file.
        length: tokens of each text.
        canonicalise: whether texts are cleaned first, as the original code does. Hugging Face and
            KerasHub do not, so that "Playing drums!" gets other ids there.
    """

    kind = "sentencepiece"
    OPTIONS = ("length", "canonicalise")

    def __init__(self, path: str | os.PathLike, length: int = 64, canonicalise: bool = True):
        """Reads a SentencePiece .model or a tokenizer.json; local, or gs:// and the like.

        Raises:
            UserError: there is no such file, it is neither, or `length` is not positive.
        """
        self.length, self.canonicalise = length, canonicalise
        file = _existing(path)
        self.path, self._warned = str(file), False
        if length < 1:
            raise UserError(f"a tokeniser's length must be at least 1, not {length}")
        if self.path.endswith(".json"):
            self._model, self._bos = _read_json(file), []
        elif self.path.endswith(".model"):
            self._model = _read_sentencepiece(file)
            self._bos = [self._model.bos_id()] if self._model.bos_id() >= 0 else []
        else:
            raise UserError(
                f"tokeniser file {self.path} must be a SentencePiece .model or a tokenizer.json"
            )

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that it was opened with, apart from the file."""
        return {name: getattr(self, name) for name in self.OPTIONS}

    @property
    def vocab_size(self) -> int:
        """All ids are below it."""
        return self._model.get_vocab_size() if self._is_json else self._model.get_piece_size()

    def fits(self, vocab_size: int) -> bool:
        """Whether a model of so many tokens knows its ids.

        A tokenizer.json always does: transformers adds ids to it that none of its models has.
        """
        return self._is_json or self.vocab_size <= vocab_size

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """K texts -> ids int32 [K, length], 0 where padded, and mask bool [K, length], True = real.

        Longer texts are cut, with a warning at the first one.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = np.zeros((len(texts), self.length), np.int32)
        mask = np.zeros((len(texts), self.length), bool)
        for row, (text, tokens) in enumerate(zip(texts, self._encode(texts), strict=True)):
            tokens = self._bos + tokens
            if len(tokens) > self.length and not self._warned:
                self._warned = True
                warnings.warn(
                    f"a text of {len(tokens)} tokens is cut to {self.length}, as will be others: "
                    f"{text[:80]!r}",
                    stacklevel=2,
                )
            tokens = tokens[: self.length]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    @property
    def _is_json(self) -> bool:
        return self.path.endswith(".json")

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self.canonicalise:
            texts = [canonicalise(text) for text in texts]
        if self._is_json:
            # Special tokens are those of a post-processor, such as T5's EOS.
            found = self._model.encode_batch(texts, add_special_tokens=False)
            return [encoding.ids for encoding in found]
        return self._model.encode(texts)


class ClipTokenizer:
    """Texts -> ids and mask of a fixed length, as CLIP's; can be pickled for worker processes.

    A text's ids stand between the start and the end, whose id is the highest of all: CLIP's and
    X-CLIP's text encoders take the vector of a text where the largest id is. Of the file only the
    vocabulary and the merges count: normaliser, pre-tokeniser, special tokens and post-processor
    are CLIP's, whatever it says. The start and the end written out in a text become their ids.

    Attributes:
        path: of the vocabulary file.
        length: ids of each text, with start and end.
        canonicalise: whether texts are cleaned as the original code does: mojibake and curly
            quotes mended (ftfy), HTML entities replaced, single spaces, lower case. Hugging Face
            only composes characters (NFC), and has single spaces and lower case.
        pad: the id behind the end: "zero" is 0, as in the original, "end" that of the end, as in
            Hugging Face. Models that look at ids up to the end only do not mind.
        truncate: whether longer texts are cut, before the end; the original refuses them.
    """

    kind = "clip"
    OPTIONS = ("length", "canonicalise", "pad", "truncate")

    def __init__(
        self,
        path: str | os.PathLike,
        length: int = 77,
        canonicalise: bool = True,
        pad: str = "zero",
        truncate: bool = False,
    ):
        """Reads a tokenizer.json; local, or gs:// and the like.

        Raises:
            UserError: there is no such file, it is another kind of tokeniser, lacks one of the
                bytes, the start or the end, or has an id above the end's; `length` has no room for
                start and end; `pad` is neither.
        """
        self.length, self.canonicalise = length, canonicalise
        self.pad, self.truncate = pad, truncate
        file = _existing(path)
        self.path = str(file)
        if length < 2:
            raise UserError(
                f"a CLIP tokeniser's length must be at least 2, for start and end, not {length}"
            )
        if pad not in ("zero", "end"):
            raise UserError(f"a CLIP tokeniser pads with 'zero' or 'end', not {pad!r}")
        encoding = _read_clip(file)
        self._model = (_as_original if canonicalise else _as_hugging_face)(encoding)
        self._start, self._end = map(encoding.token_to_id, (_START, _END))

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that it was opened with, apart from the file."""
        return {name: getattr(self, name) for name in self.OPTIONS}

    @property
    def vocab_size(self) -> int:
        """All ids are below it."""
        return self._end + 1

    def fits(self, vocab_size: int) -> bool:
        """Whether a model of so many tokens knows its ids."""
        return self.vocab_size <= vocab_size

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """K texts -> ids int32 [K, length], and mask bool [K, length], True = start, text, end.

        Raises:
            UserError: a text has too many ids, and `truncate` is False.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = np.full((len(texts), self.length), self._end if self.pad == "end" else 0, np.int32)
        mask = np.zeros((len(texts), self.length), bool)
        for row, (text, tokens) in enumerate(zip(texts, self._encode(texts), strict=True)):
            if len(tokens) + 2 > self.length and not self.truncate:
                raise UserError(
                    f"a text has {len(tokens) + 2} token ids with start and end, but only "
                    f"{self.length} fit: {text[:80]!r}; shorten it, or have such texts cut "
                    f"(truncate=True, of a run --config.data.truncate=True)"
                )
            tokens = [self._start, *tokens[: self.length - 2], self._end]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Without start and end."""
        if self.canonicalise:
            texts = [_clean(text) for text in texts]
        found = [x.ids for x in self._model.encode_batch_fast(texts, add_special_tokens=False)]
        if self.canonicalise:  # else the library has found them
            for row, text in enumerate(texts):
                if _START in text or _END in text:
                    found[row] = self._encode_special(text)
        return found

    def _encode_special(self, text: str) -> list[int]:
        """The ids of a text with start or end written out.

        The library finds such tokens before it splits a text, as Hugging Face has it; but the
        original splits "!<|endoftext|>" into "!<|", "endoftext" and "|>".
        """
        special = {_START: self._start, _END: self._end}
        ids = []
        for piece, _ in self._model.pre_tokenizer.pre_tokenize_str(text):
            if piece in special:
                ids.append(special[piece])
            else:
                ids += [token.id for token in self._model.model.tokenize(piece)]
        return ids


def open_tokenizer(path: str | os.PathLike, **options: Any) -> Tokenizer | ClipTokenizer:
    """The tokeniser that a file is made for, opened with `options` of its kind.

    Raises:
        UserError: as either of them, or an option is not one of its kind's.
    """
    file = _existing(path)
    is_clip = file.suffix == ".json" and _is_clip(_json_model(file))
    made = ClipTokenizer if is_clip else Tokenizer
    if unknown := sorted(options.keys() - set(made.OPTIONS)):
        raise UserError(
            f"the tokeniser in {path} is of the kind {made.kind}, which has no option "
            f"{', '.join(unknown)}; it has {', '.join(made.OPTIONS)}"
        )
    return made(path, **options)


def train_tokenizer(texts: Iterable[str], path: str | os.PathLike, vocab_size: int) -> None:
    """Writes a SentencePiece .model of at most `vocab_size` pieces, made from canonicalised texts.

    Its special ids are those of cc_en.32000: pad 0, eos 1, unk 2, no BOS. Its pieces are found by
    BPE, as the unigram method splits the words of a small collection of texts into letters. The
    same texts give the same file.

    Raises:
        UserError: the texts need more pieces than that (one for each character, and 3).
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(canonicalise(text) for text in texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        )
    except RuntimeError as error:
        raise UserError(
            f"no tokeniser of {vocab_size} pieces can be trained: {' '.join(str(error).split())}"
        ) from None
    with open(path, "wb") as file:
        file.write(model.getvalue())


def train_clip_tokenizer(texts: Iterable[str], path: str | os.PathLike, vocab_size: int) -> None:
    """Writes a tokenizer.json of CLIP's kind with at most `vocab_size` ids, made from a few texts.

    It has the 256 bytes, within a word and at its end, the merges that shorten the texts most, the
    start and the end. The same texts give the same file.

    Raises:
        UserError: there is no room for the 514 ids without any merge.
    """
    import tokenizers

    base = _base_tokens()
    if vocab_size < len(base) + 2:
        raise UserError(
            f"no CLIP tokeniser of {vocab_size} ids can be trained; bytes, start and end alone are "
            f"{len(base) + 2}"
        )
    learner = _as_original(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=base,  # sets their ids, by which equally good merges are chosen
        end_of_word_suffix=_SUFFIX,
        show_progress=False,
    )
    learner.train_from_iterator((_clean(text) for text in texts), trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    _write_clip(_encoding(_numbered(merges), merges), path)


def clip_tokenizer_json(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Writes the tokenizer.json of a vocabulary; transformers reads it, too.

    Args:
        source: a folder of Hugging Face's with vocab.json and merges.txt; or OpenAI's
            bpe_simple_vocab_16e6.txt.gz, of which 48,894 merges are used (49,408 ids).
        path: to be written.

    Raises:
        UserError: it is neither, or is damaged.
    """
    source = epath.Path(source).expanduser()
    try:
        if source.is_dir():
            vocabulary = json_files.read(source / "vocab.json")
            lines = (source / "merges.txt").read_bytes().decode().split("\n")
            merges = [line.split() for line in lines if line and not line.startswith("#version")]
        else:
            with gzip.open(io.BytesIO(_existing(source).read_bytes())) as file:
                content = file.read(_MAX_BYTES)
                if file.read(1):  # at the end of the file its checksum is compared, too
                    raise ValueError(f"it unpacks to more than {_MAX_BYTES:,} bytes")
            # The first line is a title.
            lines = content.decode().split("\n")[1 : 1 + _MERGES]
            merges = [line.split() for line in lines if line]
            vocabulary = _numbered(merges)
        if not merges:
            raise ValueError("it has no merges, as if cut off")
        encoding = _encoding(vocabulary, merges)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename or source} does not exist; CLIP's vocabulary is a folder with "
            f"vocab.json and merges.txt, or the file bpe_simple_vocab_16e6.txt.gz"
        ) from None
    except UserError:
        raise
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{source} holds no vocabulary of CLIP: {error}; fetch it again") from None
    _write_clip(encoding, path)


def _read_sentencepiece(path: epath.Path):
    import sentencepiece

    try:
        content = path.read_bytes()
        # Pieces come before the settings, and without these a cut file loads as a small vocabulary.
        if not {1, 2, 3} <= _protobuf_fields(content):
            raise ValueError("it lacks pieces or settings, as if cut off")
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except (RuntimeError, OSError, ValueError, IndexError):
        raise UserError(
            f"{path} is not a SentencePiece model, or is damaged; fetch it again"
        ) from None


def _protobuf_fields(content: bytes) -> set[int]:
    """The numbers of a message's fields, all of them delimited by their length."""
    fields, position = set(), 0

    def varint() -> int:
        nonlocal position
        value = 0
        for shift in range(0, 64, 7):
            byte = content[position]
            position, value = position + 1, value | (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number is too long")

    while position < len(content):
        tag, size = varint(), varint()
        if tag & 7 != 2:
            raise ValueError("no message of SentencePiece")
        fields.add(tag >> 3)
        position += size
    if position > len(content):
        raise ValueError("it ends too early")
    return fields


def _existing(path: str | os.PathLike) -> epath.Path:
    file = epath.Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"tokeniser file {file} does not exist")
    if file.stat().length > _MAX_BYTES:
        raise UserError(
            f"tokeniser file {file} has more than {_MAX_BYTES:,} bytes; expected a vocabulary"
        )
    return file


def _read_json(path: epath.Path):
    try:
        import tokenizers
    except ImportError:
        raise UserError(
            f"{path} needs the package tokenizers; install it (pip install tokenizers), or use the "
            f"SentencePiece .model that it was made from"
        ) from None
    json_files.read(path)  # the library would crash where it is nested too deeply
    try:
        model = tokenizers.Tokenizer.from_buffer(path.read_bytes())
    except BaseException as error:  # the library raises nothing narrower
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(f"{path} is not a tokenizer.json of the tokenizers library") from None
    model.no_padding()  # a file may ask for either
    model.no_truncation()
    return model


def _json_model(path: epath.Path) -> dict[str, Any]:
    """Returns a tokenizer.json's model, with the ids of added tokens under `added_tokens`."""
    content = json_files.read(path)
    try:
        added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        return content["model"] | {"added_tokens": added}
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is not a tokenizer.json of the tokenizers library") from None


def _is_clip(model: dict[str, Any]) -> bool:
    """Old files do not name the type of their model."""
    return model.get("type", "BPE") == "BPE" and model.get("end_of_word_suffix") == _SUFFIX


def _read_clip(path: epath.Path):
    """The byte-pair encoding of a tokenizer.json, a tokenizers.models.BPE."""
    model = _json_model(path) if path.suffix == ".json" else {}
    if not _is_clip(model):
        raise UserError(
            f"{path} is not CLIP's kind of tokeniser, a tokenizer.json with byte-pair encoding and "
            f"{_SUFFIX!r} at the end of words"
        )
    try:
        # Old files have a pair in one string.
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return _encoding(model["vocab"] | model["added_tokens"], merges, model["added_tokens"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no vocabulary of CLIP: {error}; fetch it again") from None


def _base_tokens() -> list[str]:
    """The 512 tokens before those of the merges: all bytes, and all bytes at the end of a word."""
    return [*_ALPHABET, *(character + _SUFFIX for character in _ALPHABET)]


def _numbered(merges: Iterable[Sequence[str]]) -> dict[str, int]:
    """The ids of CLIP: bytes, what the merges make, start, end."""
    made = dict.fromkeys("".join(merge) for merge in merges)
    return {token: i for i, token in enumerate([*_base_tokens(), *made, _START, _END])}


def _encoding(
    vocabulary: dict[str, int], merges: Sequence[Sequence[str]], added: Collection[str] = ()
):
    """The tokenizers.models.BPE of them; ValueError says what is wrong with them.

    Tokens that no merge makes must be bytes, start, end, or among `added`.
    """
    import tokenizers

    if not json_files.fits(vocabulary, Mapping[str, json_files.Count]):
        raise ValueError("its vocabulary is no table of tokens and ids")
    missing = [token for token in (*_base_tokens(), _START, _END) if token not in vocabulary]
    if missing:
        raise ValueError(f"{missing[-1]!r} is missing, and {len(missing) - 1} more such tokens")
    highest = max(vocabulary, key=vocabulary.get)
    if highest != _END:
        raise ValueError(
            f"{highest!r} has the id {vocabulary[highest]}, above {vocabulary[_END]} of {_END!r}, "
            f"which must be the highest, as text encoders take their vector there"
        )
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ValueError("two of its tokens have the same id")
    if not json_files.fits(merges, list[Any]):
        raise ValueError("its merges are no list")
    is_pair = functools.partial(json_files.fits, kind=tuple[str, str])
    if wrong := next((merge for merge in merges if not is_pair(merge)), None):
        raise ValueError(f"{json_files.shown(wrong)} is no pair to merge")
    made = {"".join(merge) for merge in merges}
    unmade = vocabulary.keys() - made - {*_base_tokens(), _START, _END, *added}
    if unmade:
        raise ValueError(
            f"{json_files.shown(min(unmade))} and {len(unmade) - 1} more of its tokens are made by "
            f"none of its {len(merges)} merges, as if these were cut off"
        )
    try:
        return tokenizers.models.BPE(
            vocabulary,
            [tuple(merge) for merge in merges],
            continuing_subword_prefix="",
            end_of_word_suffix=_SUFFIX,
            unk_token=_END,  # there is none, but it is what transformers writes
        )
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(" ".join(str(error).split())) from None


def _as_original(encoding):
    """The tokenizers.Tokenizer that does as the original after _clean, but for start and end."""
    import tokenizers
    from tokenizers import pre_tokenizers

    model = tokenizers.Tokenizer(encoding)
    # Its regular expression ignores case, which leaves a trace in clean texts, too: 's and 'ſ.
    pieces = rf"<\|(?:start|end)oftext\|>|(?i:{_CONTRACTIONS})|{_WORDS}"
    model.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pieces), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    return model


def _as_hugging_face(encoding):
    """The tokenizers.Tokenizer that transformers makes for CLIP."""
    import tokenizers
    from tokenizers import normalizers, pre_tokenizers

    model = tokenizers.Tokenizer(encoding)
    spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    model.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    pieces = rf"<\|startoftext\|>|<\|endoftext\|>|{_CONTRACTIONS}|{_WORDS}"
    model.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pieces), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    model.decoder = tokenizers.decoders.ByteLevel()
    start, end = ((token, model.token_to_id(token)) for token in (_START, _END))
    model.post_processor = tokenizers.processors.RobertaProcessing(end, start, False, False)
    model.add_special_tokens([_START, _END])
    return model


def _write_clip(encoding, path: str | os.PathLike) -> None:
    epath.Path(path).write_bytes(_as_hugging_face(encoding).to_str().encode())


def _clean(text: str) -> str:
    """Cleans a text by the original's basic_clean, whitespace_clean and lower."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
