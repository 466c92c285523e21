"""Files of weights <-> named arrays: safetensors, PyTorch, Flax msgpack, npz, Keras h5, folders.

Reading is lazy (a tensor is read when asked for), so converting holds one copy of the weights.
PyTorch files are read without PyTorch and without running anything from the file; npz files
without pickles.
Flax's msgpack files (flax/serialization.py; Scenic calls them `checkpoint` and `checkpoint_153`)
npz and Keras' h5 files hold trees; their arrays are named by the path to them, joined with "/".
"""

import contextlib
import functools
import hashlib
import json
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
import safetensors
from flax import serialization, traverse_util

from converters import json_types, unpickling
from converters.mapping import Spec, Tensors, spec_of
from vidjax import errors, json_files
from vidjax.errors import UserError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
VIDEO_PREPROCESSOR = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"  # of transformers 5, which holds both and others
IMAGE_CONVERTER = "image_converter.json"  # KerasHub's
KERAS_WEIGHTS = "model.weights.h5"
# What an export of the same model needs again.
JSON_FILES = (
    CONFIG,
    PREPROCESSOR,
    VIDEO_PREPROCESSOR,
    PROCESSOR,
    IMAGE_CONVERTER,
    *("metadata.json", "preprocessor.json", "tokenizer.json"),  # KerasHub's
    *("tokenizer_config.json", "special_tokens_map.json"),  # transformers'
)
# In this order of preference, where a folder holds the same vocabulary twice.
TOKENIZERS = (
    *("spiece.model", "sentencepiece.model", "tokenizer.model", "tokenizer.json"),
    "vocab.json",  # of CLIP, with the other file
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
TORCH_SUFFIXES = (".pth", ".pt", ".bin")
FLAX_SUFFIX, NPZ_SUFFIX, KERAS_SUFFIX = ".msgpack", ".npz", ".h5"
_FLAX_NAME = re.compile(r"checkpoint(_\d+)?")
# What shows that a folder was written by something else that calls its output a checkpoint.
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
    tensors: Tensors
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
    makers: dict[str, Callable[[], np.ndarray]] = {}
    specs: dict[str, Callable[[], Spec]] = {}
    for shard in files:
        tensors = read(shard)
        if twice := makers.keys() & tensors.keys():
            raise UserError(f"{shard} holds tensors that another shard holds too: {sorted(twice)}")
        makers |= {name: functools.partial(tensors.__getitem__, name) for name in tensors}
        specs |= {name: functools.partial(tensors.spec, name) for name in tensors}
    if file.name not in WEIGHTS:
        # Other files lie in any folder, where a config.json need not be about them.
        return Source(path, Tensors(makers, specs), files)
    found = {name: read_json(file.parent / name) for name in JSON_FILES}
    # KerasHub's tokenizer.json is a configuration.
    names = (KERAS_TOKENIZER,) if file.name == KERAS_WEIGHTS else TOKENIZERS
    tokenizers = [file.parent / name for name in names if (file.parent / name).is_file()]
    return Source(
        path,
        Tensors(makers, specs),
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
    flax = sorted(file.name for file in files if _FLAX_NAME.fullmatch(file.name))
    if len(flax) == 1:
        return folder / flax[0]
    suffixes = (*TORCH_SUFFIXES, FLAX_SUFFIX, NPZ_SUFFIX, KERAS_SUFFIX)
    others = flax or sorted(file.name for file in files if file.suffix in suffixes)
    hint = f"; name one file, such as {folder / others[0]}" if others else ""
    expected = ", ".join((*WEIGHTS, "checkpoint"))
    raise UserError(f"no weights in {folder}: expected one of {expected}{hint}")


def read(path: Path) -> Tensors:
    """The tensors of one weight file, read when asked for.

    Raises:
        UserError: a file that is damaged, of an unknown kind, or cannot be read safely.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _TorchFile(path).tensors()
    if path.suffix == NPZ_SUFFIX:
        return _NpzFile(path).tensors()
    if path.suffix == KERAS_SUFFIX:
        return _read_h5(path)
    if path.suffix == FLAX_SUFFIX or _FLAX_NAME.fullmatch(path.name):
        return _FlaxFile(path).tensors()
    known = ", ".join((".safetensors", *TORCH_SUFFIXES, FLAX_SUFFIX, NPZ_SUFFIX, KERAS_SUFFIX))
    raise UserError(
        f"{path}: unknown kind of weight file; expected a folder, a file `checkpoint` of Scenic, "
        f"or one of {known}"
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
    if path.suffix in TORCH_SUFFIXES:
        write_torch(path, tensors, wrapper)
    elif path.suffix == ".safetensors":
        write_safetensors(path, tensors)
    elif path.suffix == NPZ_SUFFIX:
        write_npz(path, tensors)
    elif path.suffix == KERAS_SUFFIX:
        write_h5(path, tensors)
    else:
        write_msgpack(path, tensors, beside)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The kinds of tensors that numpy has, in the order in which safetensors files have them.
_SAFETENSORS = {
    kind: np.dtype(dtype)
    for kind, dtype in {
        "U64": np.uint64,
        "I64": np.int64,
        "F64": np.float64,
        "C64": np.complex64,
        "F32": np.float32,
        "U32": np.uint32,
        "I32": np.int32,
        "BF16": ml_dtypes.bfloat16,
        "F16": np.float16,
        "U16": np.uint16,
        "I16": np.int16,
        "I8": np.int8,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the bytes that Hugging Face's safetensors does, which takes all tensors at once.

    One tensor is in memory at a time; they are made in the order of `tensors`, whatever that of the
    file is. transformers refuses a file without this metadata.
    """
    kinds = {dtype: (place, kind) for place, (kind, dtype) in enumerate(_SAFETENSORS.items())}
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


def write_npz(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as numpy.savez does, one at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(tensor, order="C"), allow_pickle=False)


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


def _read_safetensors(path: Path) -> Tensors:
    with _reading(path, kind="safetensors"):
        # pread, because the touched pages of a memory map count as ours until it is closed.
        handle = safetensors.safe_open(path, framework="np", backend="pread")
        names = list(handle.keys())

    def read_tensor(name: str) -> np.ndarray:
        with _reading(path, name):
            return handle.get_tensor(name)

    def spec(name: str) -> Spec | np.ndarray:
        part = handle.get_slice(name)
        dtype = _SAFETENSORS.get(part.get_dtype())
        return Spec(tuple(part.get_shape()), dtype) if dtype else read_tensor(name)

    return Tensors(
        {name: functools.partial(read_tensor, name) for name in names},
        {name: functools.partial(spec, name) for name in names},
    )


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip file, whose directory must have as many members as its last record says."""
    archive = zipfile.ZipFile(path)
    with path.open("rb") as file:
        file.seek(-22 - len(archive.comment), 2)
        (count,) = struct.unpack("<H", file.read(12)[10:])
    if count not in (len(archive.infolist()), 0xFFFF):  # the latter of more than it can say
        raise zipfile.BadZipFile(
            f"its directory lists {len(archive.infolist())} of {count} members"
        )
    return archive


_SHARING = 8  # how often the tensors of a file may use the same bytes
_DEFLATION = 100  # how small zip may make arrays; more is a bomb


def _check_claim(path: Path, num_bytes: int, factor: int = 1) -> None:
    """Raises UserError for a file that claims more than its size can hold, before it is read."""
    if num_bytes > factor * (size := path.stat().st_size):
        raise UserError(
            f"{path} has {size:,} bytes and claims tensors of {num_bytes:,}; it is damaged, fetch "
            "it again"
        )


@contextlib.contextmanager
def _reading(path: Path, name: str = "", kind: str = "") -> Iterator[None]:
    """Turns what libraries raise of damaged files, which is anything, into one sentence.

    Raises:
        UserError: naming the file, and the tensor `name` in it, or the `kind` of file it should be.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        what = f"{path}: {name}" if name else path
        how = f"as {kind}" if kind else "safely"
        raise UserError(f"{what} cannot be read {how}: {_reason(error)}; fetch it again") from error


def _reason(error: Exception) -> str:
    """An exception's first line, after its type where that says more than the line does."""
    telling = isinstance(error, ValueError | OSError | zipfile.BadZipFile)
    prefix = "" if telling else f"{type(error).__name__}: "
    return prefix + errors.first_line(error)[:200]


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


class _TorchFile:
    """A zip file of torch.save or torch.jit.save: a pickle of the structure, and the storages."""

    def __init__(self, path: Path):
        self._path = path
        self._last = ("", b"")
        try:
            self._archive = _open_zip(path)
            names = self._archive.namelist()
        except Exception as error:  # of a damaged directory, anything
            raise UserError(
                f"{path} cannot be read safely: {_reason(error)}; it is damaged, or older than "
                "PyTorch 1.6 (then: torch.save(torch.load(path, weights_only=True), path))"
            ) from error
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip file, but none of torch.save (no data.pkl in it)")
        self._root = pickles[0].removesuffix("data.pkl")

    def tensors(self) -> Tensors:
        if self._member("byteorder", default=b"little") != b"little":
            raise UserError(f"{self._path} was written on a big-endian machine; not supported")
        structure = self._member("data.pkl")
        with _reading(self._path):
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
        _check_claim(self._path, sum(sizes), _SHARING)
        return Tensors(
            {k: functools.partial(self._read, k, v) for k, v in content.items()},
            {k: functools.partial(Spec, v.shape, v.storage.dtype) for k, v in content.items()},
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
        with _reading(self._path, name):
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
        _check_claim(self._path, max(info.file_size, info.compress_size))
        try:
            return self._archive.read(info)
        except Exception as error:  # of damaged headers, anything
            raise UserError(f"{self._path} is damaged: {_reason(error)}") from error


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


class _NpzFile:
    """A zip file of numpy arrays, plain or deflated."""

    def __init__(self, path: Path):
        self._path = path
        with _reading(path, kind="npz"):
            with path.open("rb") as file:
                if file.read(6) == np.lib.format.MAGIC_PREFIX:
                    raise ValueError("a single array, not an archive of named ones")
            self._archive = _open_zip(path)
            self._members = {
                info.filename.removesuffix(".npy"): info
                for info in self._archive.infolist()
                if info.filename.endswith(".npy")
            }
        sizes = [info.file_size for info in self._members.values()]
        _check_claim(path, sum(sizes), _DEFLATION)

    def tensors(self) -> Tensors:
        return Tensors(
            {name: functools.partial(self._read, name) for name in self._members},
            {name: functools.partial(self._spec, name) for name in self._members},
        )

    def _spec(self, name: str) -> Spec:
        with _reading(self._path, name), self._archive.open(self._members[name]) as file:
            return self._header(file, self._members[name].file_size)[0]

    def _read(self, name: str) -> np.ndarray:
        size = self._members[name].file_size
        with _reading(self._path, name), self._archive.open(self._members[name]) as file:
            (shape, dtype), order = self._header(file, size)
            # The exact number, as zipfile would inflate more before it cuts.
            return np.frombuffer(file.read(size - file.tell()), dtype).reshape(shape, order=order)

    def _header(self, file: BinaryIO, size: int) -> tuple[Spec, str]:
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


def _read_h5(path: Path) -> Tensors:
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

    def read_array(name: str) -> np.ndarray:
        if specs[name].dtype.hasobject:
            raise UserError(f"{path}: {name} holds {specs[name].dtype}, not numbers")
        with _reading(path, name), h5py.File(path, "r") as file:
            return np.asarray(file[name][()]).view(specs[name].dtype)

    with _reading(path, kind="HDF5"), h5py.File(path, "r") as file:
        file.visititems(visit)
    sizes = [math.prod(spec.shape) * spec.dtype.itemsize for spec in specs.values()]
    _check_claim(path, sum(sizes))
    return Tensors(
        {name: functools.partial(read_array, name) for name in specs},
        {name: functools.partial(specs.__getitem__, name) for name in specs},
    )


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "Keras' .h5 files are read and written by h5py, which is not installed: "
            "pip install 'vidjax[keras]'"
        ) from error
    return h5py


class _Bytes(NamedTuple):
    """Where the bytes of a binary or extension object lie in a file."""

    kind: int | None  # of an extension: 1 array, 3 scalar (flax.serialization); None: plain bytes
    start: int
    size: int


_MAX_OBJECTS = 1_000_000  # a train state has thousands


class _FlaxFile:
    """A msgpack file of nested maps with arrays as extension objects (flax/serialization.py).

    Only the structure is parsed on opening; msgpack's own reader would hold all arrays, and in a
    train state most of them are the optimizer's.
    """

    def __init__(self, path: Path):
        self._path = path
        self._size = path.stat().st_size
        self._count = 0

    def tensors(self) -> Tensors:
        """The tree's arrays; numbers, strings and None beside them are no weights."""
        with self._path.open("rb") as file:
            if file.read(23) == b"model_checkpoint_path: ":
                raise UserError(
                    f"{self._path} is TensorFlow's list of its checkpoints, not a Flax msgpack file"
                )
            file.seek(0)
            try:
                tree = self._value(file)
                if not isinstance(tree, dict) or file.tell() != self._size:
                    raise ValueError(f"a tree of arrays ends at byte {file.tell()}")
            except (ValueError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{self._path} is damaged, or no Flax msgpack file: {error}"
                ) from error
        leaves = _leaves(tree)
        if any(isinstance(v, str) and v.startswith("PLACEHOLDER://") for v in leaves.values()):
            raise UserError(
                f"{self._path} is Orbax's index of the files beside it; restore the folder with "
                "Orbax, and save its parameters by flax.serialization.to_bytes as a .msgpack file"
            )
        arrays = {
            name: leaf
            for name, leaf in leaves.items()
            if isinstance(leaf, dict) or (isinstance(leaf, _Bytes) and leaf.kind in (1, 3))
        }
        return Tensors(
            {name: functools.partial(self._read, name, leaf) for name, leaf in arrays.items()},
            {name: functools.partial(self._spec, name, leaf) for name, leaf in arrays.items()},
        )

    def _read(self, name: str, leaf: Any) -> np.ndarray:
        with self._opened(name) as file:
            if isinstance(leaf, _Bytes):
                return self._array(file, leaf)
            parts = [self._array(file, chunk) for chunk in _chunks(leaf)]
            return np.concatenate(parts).reshape(_whole_shape(leaf))

    def _spec(self, name: str, leaf: Any) -> Spec:
        with self._opened(name) as file:
            if isinstance(leaf, _Bytes):
                return self._description(file, leaf)[0]
            return Spec(_whole_shape(leaf), self._description(file, _chunks(leaf)[0])[0].dtype)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._path.open("rb") as file:
                self._count = 0
                yield file
        except Exception as error:  # of damaged descriptions, anything
            raise UserError(f"{self._path} is damaged: {name}: {_reason(error)}") from error

    def _array(self, file: BinaryIO, leaf: _Bytes) -> np.ndarray:
        (shape, dtype), data = self._description(file, leaf)
        file.seek(data.start)
        return np.frombuffer(file.read(data.size), dtype).reshape(shape)

    def _description(self, file: BinaryIO, leaf: _Bytes) -> tuple[Spec, _Bytes]:
        """An array is a tuple of its shape, the name of its dtype and its bytes."""
        file.seek(leaf.start)
        shape, dtype, data = self._value(file)
        dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        if dtype.hasobject or dtype.itemsize * math.prod(shape) != data.size:
            raise ValueError(f"{data.size} bytes do not hold {dtype} of shape {shape}")
        return Spec(tuple(shape), dtype), data

    def _value(self, file: BinaryIO) -> Any:
        """One msgpack object; of bytes and extensions only where they are."""
        self._count += 1
        if self._count > _MAX_OBJECTS:
            raise ValueError(f"it holds more than {_MAX_OBJECTS:,} objects")
        tag = self._bytes(file, 1)[0]
        if tag <= 0x7F:
            return tag
        if tag >= 0xE0:
            return tag - 256
        if tag <= 0x8F:
            return self._map(file, tag & 0x0F)
        if tag <= 0x9F:
            return [self._value(file) for _ in range(tag & 0x0F)]
        if tag <= 0xBF:
            return self._bytes(file, tag & 0x1F).decode()
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            return self._number(file, _NUMBERS[tag])
        if tag in _FIXED:
            return self._extension(file, _FIXED[tag])
        if tag not in _SIZED:
            raise ValueError(f"byte {tag} begins no msgpack object")
        kind, layout = _SIZED[tag]
        size = self._number(file, layout)
        match kind:
            case "map":
                return self._map(file, size)
            case "array":
                return [self._value(file) for _ in range(size)]
            case "str":
                return self._bytes(file, size).decode()
            case "bin":
                return self._skip(file, None, size)
        return self._extension(file, size)

    def _map(self, file: BinaryIO, count: int) -> dict[Any, Any]:
        return {self._value(file): self._value(file) for _ in range(count)}

    def _number(self, file: BinaryIO, layout: str) -> Any:
        return struct.unpack(layout, self._bytes(file, struct.calcsize(layout)))[0]

    def _extension(self, file: BinaryIO, size: int) -> _Bytes:
        return self._skip(file, self._bytes(file, 1)[0], size)

    def _skip(self, file: BinaryIO, kind: int | None, size: int) -> _Bytes:
        start = file.tell()
        if start + size > self._size:
            raise ValueError("it ends too early")
        file.seek(size, 1)
        return _Bytes(kind, start, size)

    def _bytes(self, file: BinaryIO, size: int) -> bytes:
        found = file.read(size)
        if len(found) < size:
            raise ValueError("it ends too early")
        return found


def _chunks(leaf: Mapping[str, Any]) -> list[_Bytes]:
    return [leaf["chunks"][str(k)] for k in range(len(leaf["chunks"]))]


def _whole_shape(leaf: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(leaf["shape"][str(k)] for k in range(len(leaf["shape"])))


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
