"""Public weights in and out, one module per family of models.

A converter module (`videomae.py`) holds rule tables (`mapping.py`) and three functions:

    recognises(source) -> bool                   whether a file's tensors are of this family
    describe(source, options) -> Conversion      how to read them
    export(card, format, originals) -> Export    how to write them back
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.mapping import Ignore, Rule
from vidjax.data.transforms import Preprocessing


@dataclass(frozen=True)
class Options:
    """What the person converting knows and the file does not tell; None: not given."""

    hub_id: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Conversion:
    """How a source becomes a model.

    Attributes:
        format: "hf" or "original".
        model: keywords of `vidjax.models.build`.
        rules, ignore: the table for this source.
        naming: what is particular about this source's names; `export` gets it back through the
            card's provenance and spells the names in the same way.
        preprocessing, classes: of the card.
        notes: what the person should know, one sentence each.
    """

    format: str
    model: dict[str, Any]
    rules: Sequence[Rule]
    ignore: Sequence[Ignore]
    naming: dict[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Export:
    """How a model becomes a published format: rules, the weights' file name, the files beside."""

    rules: Sequence[Rule]
    weights: str
    files: dict[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
