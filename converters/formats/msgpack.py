"""Flax's msgpack files (flax/serialization.py): nested maps with arrays as extension objects.

Scenic calls such files `checkpoint` and `checkpoint_153`.
"""

import math
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from flax import serialization, traverse_util

from converters.formats.guards import reading
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, Spec

SUFFIX = ".msgpack"
NAME = re.compile(r"checkpoint(_\d+)?")  # of Scenic's files, which have no suffix
_MAX_OBJECTS = 1_000_000  # a train state has thousands


def read_msgpack(path: Path) -> LazyArrays:
    """Numbers, strings and None beside the tree's arrays are no weights and left out.

    Only the structure is parsed on opening; msgpack's own reader would hold all arrays, and in a
    train state most of them are the optimizer's.
    """
    with path.open("rb") as file:
        if file.read(23) == b"model_checkpoint_path: ":
            raise UserError(
                f"{path} is TensorFlow's list of its checkpoints, not a Flax msgpack file"
            )
        file.seek(0)
        try:
            parser = _Parser(file)
            tree = parser.value()
            if not isinstance(tree, dict) or file.tell() != parser.size:
                raise ValueError(f"a tree of arrays ends at byte {file.tell()}")
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path} is damaged, or no Flax msgpack file: {error}") from error
    leaves = _leaves(tree)
    if any(isinstance(v, str) and v.startswith("PLACEHOLDER://") for v in leaves.values()):
        raise UserError(
            f"{path} is Orbax's index of the files beside it; restore the folder with "
            "Orbax, and save its parameters by flax.serialization.to_bytes as a .msgpack file"
        )
    arrays = {
        name: leaf
        for name, leaf in leaves.items()
        if isinstance(leaf, dict) or (isinstance(leaf, _Bytes) and leaf.kind in (1, 3))
    }

    def read(name: str) -> np.ndarray:
        with reading(path, name), path.open("rb") as file:
            return _read_array(file, arrays[name])

    def spec(name: str) -> Spec:
        with reading(path, name), path.open("rb") as file:
            return _read_spec(file, arrays[name])

    return LazyArrays(arrays, read, spec)


def write_msgpack(
    path: Path, tensors: Mapping[str, np.ndarray], beside: Mapping[str, Any] | None = None
) -> None:
    """Writes tensors as the tree that their "/"-joined names spell.

    flax.serialization.msgpack_restore and flax.training.checkpoints.restore_checkpoint read it.

    Args:
        path: the file.
        tensors: the arrays; large ones are split as Flax does.
        beside: what else is at the top of the tree, no arrays.
    """
    packer = msgpack.Packer()
    # All of them, as the tree has layer after layer, and they are made kind after kind.
    arrays = dict(tensors)

    def write_tree(tree: Mapping[str, Any]) -> None:
        file.write(packer.pack_map_header(len(tree)))
        for key, value in tree.items():
            file.write(packer.pack(key))
            if isinstance(value, dict):
                write_tree(value)
            elif isinstance(value, bytes):
                file.write(value)
            else:
                array = np.asarray(arrays[value], order="C")
                file.write(serialization.msgpack_serialize(array))

    others = {key: packer.pack(value) for key, value in (beside or {}).items()}
    with path.open("wb") as file:
        write_tree(others | traverse_util.unflatten_dict({n: n for n in tensors}, sep="/"))


class _Bytes(NamedTuple):
    """Where the bytes of a binary or extension object lie in a file."""

    kind: int | None  # of an extension: 1 array, 3 scalar (flax.serialization); None: plain bytes
    start: int
    size: int


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested maps and lists by path; arrays in chunks are leaves too."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict) or "__msgpack_chunked_array__" in tree:
        return {path: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{path}/{key}" if path else str(key))
    return leaves


def _read_array(file: BinaryIO, leaf: Any) -> np.ndarray:
    if not isinstance(leaf, _Bytes):
        chunks = [_read_array(file, chunk) for chunk in _in_order(leaf["chunks"])]
        return np.concatenate(chunks).reshape(_in_order(leaf["shape"]))
    (shape, dtype), data = _describe(file, leaf)
    file.seek(data.start)
    return np.frombuffer(file.read(data.size), dtype).reshape(shape)


def _read_spec(file: BinaryIO, leaf: Any) -> Spec:
    if isinstance(leaf, _Bytes):
        return _describe(file, leaf)[0]
    dtype = _read_spec(file, _in_order(leaf["chunks"])[0]).dtype
    return Spec(tuple(_in_order(leaf["shape"])), dtype)


def _in_order(tree: Mapping[str, Any]) -> list[Any]:
    """The items of a list that Flax writes as a map from "0", "1", ..."""
    return [tree[str(k)] for k in range(len(tree))]


def _describe(file: BinaryIO, leaf: _Bytes) -> tuple[Spec, _Bytes]:
    """An array is a tuple of its shape, the name of its dtype and its bytes."""
    file.seek(leaf.start)
    shape, dtype, data = _Parser(file).value()
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    if dtype.hasobject or dtype.itemsize * math.prod(shape) != data.size:
        raise ValueError(f"{data.size} bytes do not hold {dtype} of shape {shape}")
    return Spec(tuple(shape), dtype), data


class _Parser:
    """Parser of msgpack objects from a file's position on."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self._count = 0

    def value(self) -> Any:
        """One msgpack object; of bytes and extensions only where they are."""
        self._count += 1
        if self._count > _MAX_OBJECTS:
            raise ValueError(f"it holds more than {_MAX_OBJECTS:,} objects")
        tag = self._bytes(1)[0]
        if tag <= 0x7F:
            return tag
        if tag >= 0xE0:
            return tag - 256
        if tag <= 0x8F:
            return self._map(tag & 0x0F)
        if tag <= 0x9F:
            return self._list(tag & 0x0F)
        if tag <= 0xBF:
            return self._bytes(tag & 0x1F).decode()
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            return self._number(_NUMBERS[tag])
        if tag in _FIXED:
            return self._extension(_FIXED[tag])
        if tag not in _SIZED:
            raise ValueError(f"byte {tag} begins no msgpack object")
        kind, layout = _SIZED[tag]
        size = self._number(layout)
        match kind:
            case "map":
                return self._map(size)
            case "array":
                return self._list(size)
            case "str":
                return self._bytes(size).decode()
            case "bin":
                return self._skip(None, size)
        return self._extension(size)

    def _map(self, count: int) -> dict[Any, Any]:
        return {self.value(): self.value() for _ in range(count)}

    def _list(self, count: int) -> list[Any]:
        return [self.value() for _ in range(count)]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _extension(self, size: int) -> _Bytes:
        return self._skip(self._bytes(1)[0], size)

    def _skip(self, kind: int | None, size: int) -> _Bytes:
        start = self._file.tell()
        if start + size > self.size:
            raise ValueError("it ends too early")
        self._file.seek(size, 1)
        return _Bytes(kind, start, size)

    def _bytes(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise ValueError("it ends too early")
        return found


# First bytes of msgpack objects (github.com/msgpack/msgpack/blob/master/spec.md).
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip(range(0xCA, 0xD4), (f">{c}" for c in "fdBHIQbhiq"), strict=True))
_FIXED = {0xD4 + k: 1 << k for k in range(5)}
_SIZED = {
    first + k: (kind, f">{layout}")
    for kind, first, layouts in (
        ("bin", 0xC4, "BHI"),
        ("extension", 0xC7, "BHI"),
        ("str", 0xD9, "BHI"),
        ("array", 0xDC, "HI"),
        ("map", 0xDE, "HI"),
    )
    for k, layout in enumerate(layouts)
}
