"""Keras' HDF5 files, whose arrays are named by their path."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converters.formats.guards import check_claim, reading
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, Spec

SUFFIX = ".h5"


def read_h5(path: Path) -> LazyArrays:
    """Plain datasets only: neither compressed nor in other files, to which HDF5 can lead."""
    h5py = _h5py()
    specs: dict[str, Spec] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual or item.id.get_storage_size() != item.nbytes:
                raise UserError(
                    f"{path}: {name} is compressed, incomplete or in another file, which Keras "
                    "never does"
                )
            mark = item.attrs.get("dtype")  # Keras'
            bits16 = mark == "bfloat16" and item.dtype.itemsize == 2
            specs[name] = Spec(item.shape, np.dtype(ml_dtypes.bfloat16) if bits16 else item.dtype)

    def read(name: str) -> np.ndarray:
        if specs[name].dtype.hasobject:
            raise UserError(f"{path}: {name} holds {specs[name].dtype}, not numbers")
        with reading(path, name), h5py.File(path, "r") as file:
            return np.asarray(file[name][()]).view(specs[name].dtype)

    with reading(path, kind="HDF5"), h5py.File(path, "r") as file:
        file.visititems(visit)
    check_claim(path, sum(math.prod(shape) * dtype.itemsize for shape, dtype in specs.values()))
    return LazyArrays(specs, read, specs.__getitem__)


def write_h5(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors at the paths that their names spell, one at a time.

    Keras reads such a file if the names are its own; the empty groups of layers without weights,
    which it writes, are not looked for.
    """
    with _h5py().File(path, "w") as file:
        for name, tensor in tensors.items():
            data = file.create_dataset(name, data=np.asarray(tensor, order="C"))
            if tensor.dtype == ml_dtypes.bfloat16:  # bytes to HDF5
                data.attrs["dtype"] = "bfloat16"


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "Keras' .h5 files are read and written by h5py, which is not installed: "
            "pip install 'vidjax[keras]'"
        ) from error
    return h5py
