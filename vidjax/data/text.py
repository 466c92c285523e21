"""Texts to token ids, with the vocabulary file that a checkpoint was trained with.

    Tokenizer        a SentencePiece .model, or a tokenizer.json of Hugging Face
    canonicalise     VideoPrism's cleaning of a text
    train_tokenizer  a small SentencePiece model of one's own

Sources: google-deepmind/videoprism models.py (tokenize_texts), utils.py (canonicalize_text),
tokenizers.py; the vocabulary is T5's cc_en.32000.
"""

import io
import os
import string
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from vidjax.errors import UserError

_SPACES = str.maketrans(string.punctuation, " " * len(string.punctuation))


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

    def __init__(self, path: str | os.PathLike, length: int = 64, canonicalise: bool = True):
        """Reads a SentencePiece .model or a tokenizer.json; local, or gs:// and the like.

        Raises:
            UserError: there is no such file, it is neither, or `length` is not positive.
        """
        self.length, self.canonicalise = length, canonicalise
        file = epath.Path(path).expanduser()
        self.path, self._warned = str(file), False
        if length < 1:
            raise UserError(f"a tokeniser's length must be at least 1, not {length}")
        if not file.is_file():
            raise UserError(f"tokeniser file {self.path} does not exist")
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


def _read_sentencepiece(path: epath.Path):
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except (RuntimeError, OSError):
        raise UserError(f"{path} is not a SentencePiece model") from None


def _read_json(path: epath.Path):
    try:
        import tokenizers
    except ImportError:
        raise UserError(
            f"{path} needs the package tokenizers; install it (pip install tokenizers), or use the "
            f"SentencePiece .model that it was made from"
        ) from None
    try:
        model = tokenizers.Tokenizer.from_buffer(path.read_bytes())
    except Exception:  # the library raises nothing narrower
        raise UserError(f"{path} is not a tokenizer.json of the tokenizers library") from None
    model.no_padding()  # a file may ask for either
    model.no_truncation()
    return model
