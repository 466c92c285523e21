"""A checkpoint on disk: a weight file, or a folder of weights with JSON files and a vocabulary."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters import json_types
from converters.formats import h5, msgpack, npz, torch
from converters.formats.containers import read
from vidjax import json_files
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, merge, spec_of

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
VIDEO_PREPROCESSOR = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"  # of transformers 5, which holds both and others
IMAGE_CONVERTER = "image_converter.json"  # KerasHub's
KERAS_WEIGHTS = "model.weights.h5"
# Files that an export of the same model needs again.
JSON_FILES = (
    CONFIG,
    PREPROCESSOR,
    VIDEO_PREPROCESSOR,
    PROCESSOR,
    IMAGE_CONVERTER,
    "metadata.json",  # KerasHub's, as the next two
    "preprocessor.json",
    "tokenizer.json",
    "tokenizer_config.json",  # transformers', as the next
    "special_tokens_map.json",
)
# In this order of preference, where a folder holds the same vocabulary twice.
TOKENIZERS = (
    "spiece.model",
    "sentencepiece.model",
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",  # CLIP's, with the next
)
MERGES = "merges.txt"
KERAS_TOKENIZER = "assets/tokenizer/vocabulary.spm"
# In this order of preference, where a folder holds the same weights twice.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    KERAS_WEIGHTS,
)
# Files by which a folder shows that something else wrote it that calls its output a checkpoint.
_FOREIGN = {
    "_CHECKPOINT_METADATA": "Orbax",
    "_METADATA": "Orbax",
    "manifest.ocdbt": "Orbax",
    "saved_model.pb": "TensorFlow",
    "*.index": "TensorFlow",
}


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk.

    Attributes:
        path: what was opened.
        tensors, files: the tensors, and the files that they come from.
        json: those of JSON_FILES that lie beside them, by name.
        tokenizer: the vocabulary beside them, if there is one.
    """

    path: Path
    tensors: LazyArrays
    files: tuple[Path, ...]
    json: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    tokenizer: Path | None = None

    @property
    def config(self) -> dict[str, Any] | None:
        return self.json.get(CONFIG)


def open_source(path: Path) -> Source:
    """Opens a weight file, or a folder that holds one, without reading the tensors.

    A folder is in Hugging Face's or KerasHub's layout, or holds one file `checkpoint` or
    `checkpoint_153`, as Scenic's do.

    Raises:
        UserError: nothing readable there; says what was looked for.
    """
    if path.is_dir():
        file = _file_of(path)
    elif path.is_file():
        file = path
    else:
        raise UserError(f"{path} does not exist")
    files = _shards(file) if file.name.endswith(".index.json") else (file,)
    shards: list[LazyArrays] = []
    for shard in files:
        tensors = read(shard)
        if twice := tensors.keys() & merge(*shards).keys():
            raise UserError(f"{shard} holds tensors that another shard holds too: {sorted(twice)}")
        shards.append(tensors)
    tensors = merge(*shards)
    if file.name not in WEIGHTS:
        # Other files lie in any folder, where a config.json need not be about them.
        return Source(path, tensors, files)
    found = {name: read_json(file.parent / name) for name in JSON_FILES}
    # KerasHub's tokenizer.json is a configuration.
    names = (KERAS_TOKENIZER,) if file.name == KERAS_WEIGHTS else TOKENIZERS
    tokenizers = [file.parent / name for name in names if (file.parent / name).is_file()]
    return Source(
        path,
        tensors,
        files,
        {name: content for name, content in found.items() if content is not None},
        tokenizers[0] if tokenizers else None,
    )


def shapes(tensors: Mapping[str, np.ndarray], what: str) -> Callable[[str], tuple[int, ...]]:
    """Looks up the shape of a tensor; what is missing is a UserError that says `what` it looked
    like."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise UserError(f"the file looks like {what}, but has no tensor {name}")
        return spec_of(tensors, name).shape

    return shape


def count(names: Iterable[str], start: str) -> int:
    """How many different words, up to a dot or slash, follow `start`: layers, if it is theirs."""
    rest = (name.removeprefix(start) for name in names if name.startswith(start))
    return len({word.replace(".", "/").split("/")[0] for word in rest})


def _file_of(folder: Path) -> Path:
    """The weight file, or the index of several, that a folder holds."""
    names = [name for name in WEIGHTS if (folder / name).is_file()]
    if names:
        return folder / names[0]
    for pattern, writer in _FOREIGN.items():
        if any(folder.glob(pattern)):
            raise UserError(
                f"{folder} was written by {writer}; expected a Flax msgpack file: restore it with "
                f"{writer}, and save its parameters by flax.serialization.to_bytes as a .msgpack "
                "file"
            )
    files = [file for file in folder.iterdir() if file.is_file()]
    flax = sorted(file.name for file in files if msgpack.NAME.fullmatch(file.name))
    if len(flax) == 1:
        return folder / flax[0]
    suffixes = (*torch.SUFFIXES, msgpack.SUFFIX, npz.SUFFIX, h5.SUFFIX)
    others = flax or sorted(file.name for file in files if file.suffix in suffixes)
    hint = f"; name one file, such as {folder / others[0]}" if others else ""
    expected = ", ".join((*WEIGHTS, "checkpoint"))
    raise UserError(f"no weights in {folder}: expected one of {expected}{hint}")


def _shards(index: Path) -> tuple[Path, ...]:
    names = (read_json(index) or {}).get("weight_map")
    if not names:
        raise UserError(f"{index} has no weight_map of tensor names to files; fetch it again")
    beside = {file.name for file in index.parent.iterdir() if file.is_file()}
    if missing := sorted(set(names.values()) - beside):
        raise UserError(f"{index} names {missing[0]}, which is not beside it; fetch that file too")
    return tuple(index.parent / name for name in sorted(set(names.values())))


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads one of JSON_FILES, or the index of a weight file in pieces; None if it is not there.

    Raises:
        UserError: it is no JSON object, or has a value of another type than its key can have.
    """
    if not path.is_file():
        return None
    content = json_files.read(path)
    json_files.check(content, json_types.of(path.name), path)
    return content
