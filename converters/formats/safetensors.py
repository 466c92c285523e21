"""safetensors files, as Hugging Face writes them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from converters.formats.guards import reading
from vidjax.lazy import LazyArrays, Spec, spec_of

SUFFIX = ".safetensors"
# The kinds of tensors that numpy has, in the order in which the files have them.
_DTYPES = {
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
    "F32": np.dtype(np.float32),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def read_safetensors(path: Path) -> LazyArrays:
    with reading(path, kind="safetensors"):
        # pread, because the touched pages of a memory map count as ours until it is closed.
        handle = safetensors.safe_open(path, framework="np", backend="pread")
        names = list(handle.keys())

    def read(name: str) -> np.ndarray:
        with reading(path, name):
            return handle.get_tensor(name)

    def spec(name: str) -> Spec | np.ndarray:
        part = handle.get_slice(name)
        dtype = _DTYPES.get(part.get_dtype())
        return Spec(tuple(part.get_shape()), dtype) if dtype else read(name)

    return LazyArrays(names, read, spec)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the bytes that Hugging Face's safetensors does, which takes all tensors at once.

    One tensor is in memory at a time; they are read in the order of `tensors`, whatever that of the
    file is. transformers refuses a file without this metadata.
    """
    kinds = {dtype: (place, kind) for place, (kind, dtype) in enumerate(_DTYPES.items())}
    specs = {name: spec_of(tensors, name) for name in tensors}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name in sorted(specs, key=lambda name: (kinds[specs[name].dtype][0], name)):
        shape, dtype = specs[name].shape, specs[name].dtype
        starts[name], end = end, end + math.prod(shape) * dtype.itemsize
        place = [starts[name], end]
        header[name] = {"dtype": kinds[dtype][1], "shape": list(shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            file.seek(8 + len(text) + starts[name])
            file.write(np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data)
