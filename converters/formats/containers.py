"""Weight files by the suffix of their names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats import h5, msgpack, npz, safetensors, torch
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays

_READERS = {
    safetensors.SUFFIX: safetensors.read_safetensors,
    **dict.fromkeys(torch.SUFFIXES, torch.read_torch),
    msgpack.SUFFIX: msgpack.read_msgpack,
    npz.SUFFIX: npz.read_npz,
    h5.SUFFIX: h5.read_h5,
}


def read(path: Path) -> LazyArrays:
    """Returns the tensors of one weight file, read when asked for.

    Raises:
        UserError: a file that is damaged, of an unknown format, or cannot be read safely.
    """
    if path.suffix in _READERS:
        return _READERS[path.suffix](path)
    if msgpack.NAME.fullmatch(path.name):
        return msgpack.read_msgpack(path)
    raise UserError(
        f"{path}: unknown kind of weight file; expected a folder, a file `checkpoint` of Scenic, "
        f"or one of {', '.join(_READERS)}"
    )


def write(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    beside: Mapping[str, Any],
    wrapper: str | None = "model",
) -> None:
    """Writes tensors as the file's name says.

    `beside` is for msgpack only, see `write_msgpack`, and `wrapper` for PyTorch, see `write_torch`.
    """
    if path.suffix in torch.SUFFIXES:
        torch.write_torch(path, tensors, wrapper)
    elif path.suffix == safetensors.SUFFIX:
        safetensors.write_safetensors(path, tensors)
    elif path.suffix == npz.SUFFIX:
        npz.write_npz(path, tensors)
    elif path.suffix == h5.SUFFIX:
        h5.write_h5(path, tensors)
    else:
        msgpack.write_msgpack(path, tensors, beside)
