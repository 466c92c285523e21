"""Zip files of numpy arrays, plain or deflated; without pickles."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from converters.formats.guards import check_claim, open_zip, reading
from vidjax.lazy import LazyArrays, Spec

SUFFIX = ".npz"
_DEFLATION = 100  # how small zip may make arrays; more is a bomb


def read_npz(path: Path) -> LazyArrays:
    with reading(path, kind="npz"):
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("a single array, not an archive of named ones")
        archive = open_zip(path)
        members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
    check_claim(path, sum(info.file_size for info in members.values()), _DEFLATION)

    def spec(name: str) -> Spec:
        with reading(path, name), archive.open(members[name]) as file:
            return _header(file, members[name].file_size)[0]

    def read(name: str) -> np.ndarray:
        size = members[name].file_size
        with reading(path, name), archive.open(members[name]) as file:
            (shape, dtype), order = _header(file, size)
            # The exact number, as zipfile would inflate more before it cuts.
            return np.frombuffer(file.read(size - file.tell()), dtype).reshape(shape, order=order)

    return LazyArrays(members, read, spec)


def _header(file: BinaryIO, size: int) -> tuple[Spec, str]:
    """Shape, dtype and order of an array, whose bytes must be the rest of the member."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = read[np.lib.format.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError("Python objects, which can run code (allow_pickle), are not read")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"{size - file.tell()} bytes do not hold {dtype} of shape {shape}")
    # numpy does not know bfloat16 by name, and stores its bytes as they are.
    dtype = np.dtype(ml_dtypes.bfloat16) if dtype == "V2" else dtype
    return Spec(shape, dtype), "F" if fortran else "C"


def write_npz(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as numpy.savez does, one at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(tensor, order="C"), allow_pickle=False)
