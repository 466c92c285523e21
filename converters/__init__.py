"""Public weights in and out, one package per family of models.

A family (`videomae/`) has a file for each format, with tables of rules (`mapping.py`). Its
`__init__` holds three functions

    recognises(source) -> bool                   whether a file's tensors are of this family
    describe(source, options) -> Conversion      how to read them
    export(card, format, originals) -> Export    how to write them back

and three constants

    FORMATS    what `export` can write
    OPTIONS    the Options (`options.py`) that `describe` understands
    TRAIN      a config that starts from such a model

and, where it applies, a fourth

    HUB_FILES  published name -> "org/name/path/to/file" on the hub, where these differ

The package is named as the model in `vidjax.models` that it converts to.
"""

import vidjax  # isort: skip - first, as it listens to Ctrl-C
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.mapping import Ignore, Rule
from converters.options import Option, Options
from vidjax.preprocessing import Preprocessing


@dataclass(frozen=True)
class TokenizerFile:
    """A vocabulary that travels with a model.

    Attributes:
        path: of the file in the source.
        card: of `vidjax.card.Card`; its "file" is what the file is called there.
        write: from `path` to such a file.
    """

    path: Path
    card: dict[str, Any]
    write: Callable[[Path, Path], Any] = shutil.copyfile


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
        tokenizer: of a model that reads texts, if it is known.
        kept: what an export needs again and neither the model nor the rest of the card tells; a
            run that starts from the model hands it on.
        notes: what the person should know, one sentence each.
    """

    format: str
    model: dict[str, Any]
    rules: Sequence[Rule]
    ignore: Sequence[Ignore]
    naming: dict[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = None
    tokenizer: TokenizerFile | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Export:
    """How a model becomes a published format.

    Attributes:
        rules: the table.
        weights: the weights' file name, which also says its kind.
        files: by path, to be written beside it.
        notes: what the person should know, one sentence each.
        beside: what readers of a msgpack file expect beside the weights in it.
        computed: tensors of the file that no parameter becomes. Those that a model of this format
            came with are written instead.
        left_out: parameters that the format has no place for; `notes` say so.
        tokenizer: path beside the weights of the model's vocabulary, if it has one.
        wrapper: the key under which a PyTorch file has its tensors, as its readers expect it; None:
            it holds nothing else.
    """

    rules: Sequence[Rule]
    weights: str
    files: dict[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
    beside: dict[str, Any] = field(default_factory=dict)
    computed: Mapping[str, np.ndarray] = field(default_factory=dict)
    left_out: Collection[str] = ()
    tokenizer: str | None = None
    wrapper: str | None = "model"
