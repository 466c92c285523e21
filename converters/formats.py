"""Files of weights <-> named numpy arrays: safetensors, PyTorch zip files, sharded folders.

Reading is lazy (a tensor is read when asked for), so converting holds one copy of the weights.
PyTorch files are read without PyTorch and without running anything from the file.
"""

import functools
import hashlib
import json
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from converters.mapping import Tensors
from vidjax.errors import UserError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
# In this order of preference, where a folder holds the same weights twice.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TORCH_SUFFIXES = (".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk: its tensors, the files they come from, the JSON files beside them."""

    path: Path
    tensors: Tensors
    files: tuple[Path, ...]
    config: dict[str, Any] | None = None
    preprocessor: dict[str, Any] | None = None


def open_source(path: Path) -> Source:
    """Opens a weight file, or a folder in Hugging Face's layout, without reading the tensors.

    Raises:
        UserError: nothing readable there; says what was looked for.
    """
    if path.is_dir():
        names = [name for name in WEIGHTS if (path / name).is_file()]
        if not names:
            others = sorted(p.name for p in path.iterdir() if p.suffix in TORCH_SUFFIXES)
            hint = f"; name one file, such as {path / others[0]}" if others else ""
            raise UserError(f"no weights in {path}: expected one of {', '.join(WEIGHTS)}{hint}")
        file = path / names[0]
    elif path.is_file():
        file = path
    else:
        raise UserError(f"{path} does not exist")
    files = _shards(file) if file.name.endswith(".index.json") else (file,)
    makers: dict[str, Callable[[], np.ndarray]] = {}
    for shard in files:
        tensors = read(shard)
        if twice := makers.keys() & tensors.keys():
            raise UserError(f"{shard} holds tensors that another shard holds too: {sorted(twice)}")
        makers |= {name: functools.partial(tensors.__getitem__, name) for name in tensors}
    # A single .pth lies in any folder, where a config.json need not be about it.
    beside = file.parent if path.is_dir() or file.name in WEIGHTS else None
    return Source(
        path,
        Tensors(makers),
        files,
        config=_read_json(beside / CONFIG) if beside else None,
        preprocessor=_read_json(beside / PREPROCESSOR) if beside else None,
    )


def read(path: Path) -> Tensors:
    """The tensors of one weight file, read when asked for.

    Raises:
        UserError: a file that is damaged, of an unknown kind, or cannot be read safely.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _TorchFile(path).tensors()
    known = ", ".join((".safetensors", *TORCH_SUFFIXES))
    raise UserError(f"{path}: unknown kind of weight file; expected a folder or one of {known}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as Hugging Face does; transformers refuses a file without this metadata."""
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `{"model": tensors}` as torch.save does (zip format), one tensor at a time.

    `torch.load(path, weights_only=True)` reads it.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        described = []
        for index, (name, tensor) in enumerate(tensors.items()):
            described.append((name, tensor.dtype, tensor.shape))
            with archive.open(f"archive/data/{index}", "w", force_zip64=True) as file:
                file.write(np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data)
        archive.writestr("archive/data.pkl", _pickle_tensors(described))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def _read_safetensors(path: Path) -> Tensors:
    try:
        # pread, because the touched pages of a memory map count as ours until it is closed.
        handle = safetensors.safe_open(path, framework="np", backend="pread")
        names = list(handle.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    return Tensors({name: functools.partial(handle.get_tensor, name) for name in names})


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(_read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} has no weight_map of tensor names to files") from error
    files = tuple(index.parent / name for name in names)
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise UserError(f"{index} names {file.name}, which is not beside it")
    return files


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


_STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Inert:
    """Stands for any object of a class that we do not know; nothing can be done with it."""

    what = "an unknown object"

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "_Inert":
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    add = append


class _Unpickler(pickle.Unpickler):
    """Builds containers and descriptions of tensors; every other class becomes `_Inert`.

    A pickle names the functions to call while it is read, which is how a malicious one runs code.
    Here the only callables it can get are those below. Checkpoints do carry foreign objects beside
    their tensors (argparse.Namespace, loss scalers), so these are not a reason to refuse a file.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, tuple(shape), tuple(strides)
            )
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        what = f"{module}.{name}"
        return type("Inert", (_Inert,), {"what": what})

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, size = pid
        name = kind.what.removeprefix("torch.").removeprefix("storage.")
        if name not in _STORAGES:
            raise pickle.UnpicklingError(f"tensors of kind {kind.what} are not supported")
        return _Storage(key, _STORAGES[name], size)


class _TorchFile:
    """A zip file of torch.save: a pickle of the structure, one member per storage."""

    def __init__(self, path: Path):
        self._path = path
        self._last = ("", b"")
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"{path} cannot be read safely: {error}; it is damaged, or older than PyTorch 1.6 "
                "(where you trust it: torch.save(torch.load(path, weights_only=False), path))"
            ) from error
        pickles = [n for n in self._archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip file, but none of torch.save (no data.pkl in it)")
        self._root = pickles[0].removesuffix("data.pkl")

    def tensors(self) -> Tensors:
        if self._member("byteorder", default=b"little") != b"little":
            raise UserError(f"{self._path} was written on a big-endian machine; not supported")
        try:
            with self._archive.open(self._root + "data.pkl") as file:
                content = _Unpickler(file).load()
        except Exception as error:  # a broken or hostile pickle can raise anything
            raise UserError(
                f"{self._path} cannot be read safely: {type(error).__name__}: {error}"
            ) from error
        # VideoMAE's torch and DDP runs save under "model", its DeepSpeed runs under "module".
        for wrapper in ("model", "module"):
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
        if not isinstance(content, dict):
            what = getattr(content, "what", type(content).__name__)
            raise UserError(f"{self._path} holds {what}, not a state_dict of tensors")
        if others := [k for k, v in content.items() if not isinstance(v, _Tensor)]:
            what = getattr(content[others[0]], "what", type(content[others[0]]).__name__)
            raise UserError(
                f"{self._path}: {len(others)} entries are no tensors, the first {others[0]!r} "
                f"({what}); expected a state_dict, bare or under 'model' or 'module'"
            )
        return Tensors({k: functools.partial(self._read, k, v) for k, v in content.items()})

    def _read(self, name: str, tensor: _Tensor) -> np.ndarray:
        (key, dtype, size), offset, shape, strides = tensor
        span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if 0 in shape:
            return np.empty(shape, dtype)
        if min((offset, *shape, *strides)) < 0 or offset + span > size:
            raise UserError(f"{self._path}: tensor {name} lies outside its storage")
        data = self._storage(key, size * dtype.itemsize)
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
            if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a zip bomb does
                raise UserError(f"{self._path}: {name} is compressed, which torch.save never does")
            return self._archive.read(info)
        except KeyError as error:
            if default is not None:
                return default
            raise UserError(f"{self._path} is damaged: it lacks {name}") from error
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"{self._path} is damaged: {error}") from error


def _pickle_tensors(described: list[tuple[str, np.dtype, tuple[int, ...]]]) -> bytes:
    """The data.pkl of `{"model": {name: tensor}}`, tensor k being the whole storage k.

    Spelled in opcodes, because pickle refuses to name functions of a PyTorch that is not there.
    """
    kinds = {dtype: name.encode() for name, dtype in _STORAGES.items()}

    def text(value: str) -> bytes:
        return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()

    def integer(value: int) -> bytes:
        return pickle.LONG1 + b"\x08" + value.to_bytes(8, "little")

    def record(*items: bytes) -> bytes:
        return pickle.MARK + b"".join(items) + pickle.TUPLE

    out = [pickle.PROTO, b"\x02", pickle.EMPTY_DICT, text("model"), pickle.EMPTY_DICT, pickle.MARK]
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
    return b"".join([*out, pickle.SETITEMS, pickle.SETITEM, pickle.STOP])
