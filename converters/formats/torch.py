"""PyTorch's zip files, read and written without PyTorch, and without running anything of them."""

import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.formats import unpickling
from converters.formats.guards import check_claim, open_zip, reading
from vidjax import json_files
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, Spec

SUFFIXES = (".pth", ".pt", ".bin")
_SHARING = 8  # how often the tensors of a file may use the same bytes


def read_torch(path: Path) -> LazyArrays:
    return _TorchFile(path).tensors()


class _TorchFile:
    """A zip file of torch.save or torch.jit.save: a pickle of the structure, and the storages."""

    def __init__(self, path: Path):
        self._path = path
        self._last = ("", b"")
        hint = (
            "it is damaged, or older than PyTorch 1.6 (then: torch.save(torch.load(path, "
            "weights_only=True), path))"
        )
        with reading(path, hint=hint):
            self._archive = open_zip(path)
            names = self._archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip file, but none of torch.save (no data.pkl in it)")
        self._root = pickles[0].removesuffix("data.pkl")

    def tensors(self) -> LazyArrays:
        if self._member("byteorder", default=b"little") != b"little":
            raise UserError(f"{self._path} was written on a big-endian machine; not supported")
        structure = self._member("data.pkl")
        with reading(self._path):
            content = unpickling.load(structure)
        if isinstance(content, unpickling.Script):  # so are OpenAI's CLIPs
            content = content.tensors()
        # VideoMAE's torch and DDP runs save under "model", its DeepSpeed runs under "module".
        for wrapper in ("model", "module"):
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
        if not isinstance(content, dict):
            what = getattr(content, "what", type(content).__name__)
            raise UserError(f"{self._path} holds {what}, not a state_dict of tensors")
        others = [k for k, v in content.items() if not isinstance(v, unpickling.Tensor)]
        others += [key for key in content if not isinstance(key, str) and key not in others]
        if others:
            what = getattr(content[others[0]], "what", type(content[others[0]]).__name__)
            raise UserError(
                f"{self._path}: {len(others)} entries are no tensors, the first "
                f"{json_files.shown(others[0])} ({what}); expected a state_dict, bare or under "
                "'model' or 'module'"
            )
        sizes = [math.prod(v.shape) * v.storage.dtype.itemsize for v in content.values()]
        check_claim(self._path, sum(sizes), _SHARING)
        return LazyArrays(
            content,
            lambda name: self._read(name, content[name]),
            lambda name: Spec(content[name].shape, content[name].storage.dtype),
        )

    def _read(self, name: str, tensor: unpickling.Tensor) -> np.ndarray:
        (key, dtype, size), offset, shape, strides = tensor
        if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
            raise UserError(f"{self._path}: tensor {name} lies outside its storage")
        if 0 in shape:
            return np.empty(shape, dtype)
        span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if offset + span > size:
            raise UserError(f"{self._path}: tensor {name} lies outside its storage")
        data = self._storage(key, size * dtype.itemsize)
        with reading(self._path, name):
            values = np.frombuffer(data, dtype, span, offset * dtype.itemsize)
            return np.lib.stride_tricks.as_strided(
                values, shape, [s * dtype.itemsize for s in strides], writeable=False
            )

    def _storage(self, key: str, num_bytes: int) -> bytes:
        if self._last[0] != key:  # one is kept: views of the same storage come in a row
            self._last = ("", b"")
            self._last = (key, self._member(f"data/{key}"))
        data = self._last[1]
        if len(data) != num_bytes:
            raise UserError(f"{self._path}: storage {key} has {len(data)} bytes, not {num_bytes}")
        return data

    def _member(self, name: str, default: bytes | None = None) -> bytes:
        try:
            info = self._archive.getinfo(self._root + name)
        except KeyError as error:
            if default is not None:
                return default
            raise UserError(f"{self._path} is damaged: it lacks {name}") from error
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a zip bomb does
            raise UserError(f"{self._path}: {name} is compressed, which torch.save never does")
        check_claim(self._path, max(info.file_size, info.compress_size))
        with reading(self._path, name):
            return self._archive.read(info)


def write_torch(
    path: Path, tensors: Mapping[str, np.ndarray], wrapper: str | None = "model"
) -> None:
    """Writes `{wrapper: tensors}`, or the bare `tensors`, as torch.save does, one at a time.

    `torch.load(path, weights_only=True)` reads it.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        described = []
        for index, (name, tensor) in enumerate(tensors.items()):
            described.append((name, tensor.dtype, tensor.shape))
            with archive.open(f"archive/data/{index}", "w", force_zip64=True) as file:
                file.write(np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data)
        archive.writestr("archive/data.pkl", _pickle_tensors(described, wrapper))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def _pickle_tensors(
    described: list[tuple[str, np.dtype, tuple[int, ...]]], wrapper: str | None
) -> bytes:
    """The data.pkl of `{wrapper: {name: tensor}}`, tensor k being the whole storage k.

    Spelled in opcodes, because pickle refuses to name functions of a PyTorch that is not there.
    """
    kinds = {dtype: name.encode() for name, dtype in unpickling.STORAGES.items()}

    def text(value: str) -> bytes:
        return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()

    def integer(value: int) -> bytes:
        return pickle.LONG1 + b"\x08" + value.to_bytes(8, "little")

    def record(*items: bytes) -> bytes:
        return pickle.MARK + b"".join(items) + pickle.TUPLE

    out = [pickle.PROTO, b"\x02", pickle.EMPTY_DICT, pickle.MARK]
    if wrapper is not None:
        out[2:2] = [pickle.EMPTY_DICT, text(wrapper)]
    for index, (name, dtype, shape) in enumerate(described):
        kind = pickle.GLOBAL + b"torch\n" + kinds[dtype] + b"\n"
        size = integer(math.prod(shape))
        storage = record(text("storage"), kind, text(str(index)), text("cpu"), size)
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        hooks = pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
        arguments = record(
            storage + pickle.BINPERSID,
            integer(0),
            record(*map(integer, shape)),
            record(*map(integer, strides)),
            pickle.NEWFALSE,
            hooks,
        )
        rebuild = pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n"
        out += [text(name), rebuild, arguments, pickle.REDUCE]
    out += [pickle.SETITEMS, *([] if wrapper is None else [pickle.SETITEM]), pickle.STOP]
    return b"".join(out)
