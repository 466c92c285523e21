"""Public weights in and out, one module per family of models.

A converter module (`videomae.py`) holds rule tables (`mapping.py`), three functions

    recognises(source) -> bool                   whether a file's tensors are of this family
    describe(source, options) -> Conversion      how to read them
    export(card, format, originals) -> Export    how to write them back

and three constants

    FORMATS    what `export` can write
    OPTIONS    names of Options that `describe` understands
    TRAIN      a config that starts from such a model
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.mapping import Ignore, Rule
from vidjax.data.transforms import Preprocessing


@dataclass(frozen=True)
class Options:
    """What the person converting knows and the file does not tell; None: not given.

    Attributes: the command's flags, but for hub_id: the id the source was fetched by.
    """

    hub_id: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: int | None = None
    factorisation: str | None = None
    attention_order: str | None = None
    pool: str | None = None
    input_range: tuple[float, float] | None = None

    def given(self) -> set[str]:
        """Names of the flags that were given."""
        return {name for name, value in vars(self).items() if value is not None} - {"hub_id"}


@dataclass(frozen=True)
class Conversion:
    """How a source becomes a model.

    Attributes:
        format: a name in FORMATS.
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
    """How a model becomes a published format.

    Attributes:
        rules: the table.
        weights: the weights' file name, which also says its kind.
        files: by name, to be written beside it.
        notes: what the person should know, one sentence each.
        beside: what readers of a msgpack file expect beside the weights in it.
    """

    rules: Sequence[Rule]
    weights: str
    files: dict[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
    beside: dict[str, Any] = field(default_factory=dict)
