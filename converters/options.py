"""Flags of the converter's command: facts that its user knows and a file does not tell.

A family declares those that its `describe` understands in OPTIONS. The ones here are shared; a flag
of one family alone stands in that family's module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vidjax.errors import UserError


@dataclass(frozen=True)
class Option:
    """A flag of the command.

    Attributes:
        name: of the flag, and of the attribute of `Options`.
        type: int, str, bool, list (of words, which commas separate), or a tuple of choices.
        help: text of --help.
        parse: turns the flag's value into the option's.
    """

    name: str
    type: type | tuple[str, ...]
    help: str
    parse: Callable[[Any], Any] = lambda value: value


class Options:
    """Values of the options by attribute; None where one was not given.

    Args:
        hub_id: the Hugging Face hub id that the source was fetched by.
        **values: by the option's name.
    """

    def __init__(self, hub_id: str | None = None, **values: Any):
        self.hub_id = hub_id
        self.given = {name: value for name, value in values.items() if value is not None}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "given":
            raise AttributeError(name)
        return self.given.get(name)


def _range(words: list[str]) -> tuple[float, float]:
    try:
        black, white = map(float, words)
        if black < white:
            return black, white
    except ValueError:
        pass
    raise UserError(f"--input_range={','.join(words)} is no range; expected two numbers, as -1,1")


HEADS = Option("heads", int, "Number of attention heads, overriding the source's.")
FRAMES = Option("frames", int, "Frames of a clip.")
SIZE = Option("size", int, "Side of a clip's square frames, in pixels.")
INPUT_RANGE = Option(
    "input_range",
    list,
    "Values of black and white as the model sees them, such as -1,1, overriding the source's.",
    _range,
)
PREPROCESSING = Option(
    "preprocessing",
    ("original", "hf", "keras"),
    "VideoPrism, X-CLIP: format whose preprocessing the model shall use; default: the source's.",
)
TOKENIZER = Option(
    "tokenizer",
    str,
    "Vocabulary of the texts: a SentencePiece .model, or a tokenizer.json; for CLIP's tokeniser "
    "also a vocab.json with its merges.txt, or OpenAI's bpe_simple_vocab_16e6.txt.gz.",
)
RAW_TEXT = Option(
    "raw_text",
    bool,
    "Tokenise texts as they are, as Hugging Face and KerasHub do. The originals clean them first: "
    "VideoPrism's removes punctuation and capitals, X-CLIP's repairs Unicode and HTML.",
)
