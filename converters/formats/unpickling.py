"""The structure of a PyTorch checkpoint, read from its pickle without running anything of it.

A pickle is a program, and Python's own readers call what it names, hash what it builds and trust
the sizes it states. This reader knows containers, tensors and modules of TorchScript; everything
else that a checkpoint carries (argparse.Namespace, loss scalers) becomes an `Inert`, which keeps
its name only. Time and memory are bounded by the size of the pickle.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_MAX_BYTES = 64_000_000
_MAX_OPERATIONS = 2_000_000  # a tensor takes about 40

STORAGES = {
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


class Storage(NamedTuple):
    """A run of numbers in the archive: its member's name, dtype and length."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A strided view of a storage, all in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert:
    """An object of a class or function that is not known: nothing but the name `what`."""

    def __init__(self, what: str):
        self.what = what

    def __repr__(self) -> str:
        return f"<{self.what}>"


class Script:
    """A module of TorchScript: nothing but its attributes."""

    def __init__(self):
        self.attributes: Mapping[Any, Any] = {}

    def tensors(self) -> dict[str, Tensor]:
        """Returns its tensors and those of the modules in it, named as in its state_dict."""
        found, waiting, seen = {}, [("", self)], set()
        while waiting:
            prefix, module = waiting.pop()
            if id(module) in seen:  # only a hostile module contains itself
                continue
            seen.add(id(module))
            for name, value in module.attributes.items():
                if isinstance(value, Tensor):
                    found[f"{prefix}{name}"] = value
                elif isinstance(value, Script):
                    waiting.append((f"{prefix}{name}.", value))
        return found


class _Name(NamedTuple):
    """A class or function by name, which is all that is known of it."""

    module: str
    name: str

    @property
    def what(self) -> str:
        return f"{self.module}.{self.name}"


def load(data: bytes) -> Any:
    """Returns what a pickle describes.

    Raises:
        ValueError, IndexError, KeyError, TypeError, AttributeError: it is damaged, too long, or
            uses what no checkpoint does.
    """
    if len(data) > _MAX_BYTES:
        raise ValueError(f"its structure takes {len(data)} bytes, more than {_MAX_BYTES}")
    return _Machine().run(data)


# Opcodes whose argument is the value.
_PUSHES = {
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg and opcode.stack_after and opcode.stack_after[0] is not pickletools.anyobject
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Inert("a set"),
}


class _Machine:
    """The stack machine that a pickle is written for."""

    def __init__(self):
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # stacks below the marks
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count == _MAX_OPERATIONS:
                raise ValueError(f"its structure takes more than {_MAX_OPERATIONS:,} operations")
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _PUSHES:
                self._stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name]())
            else:
                self._do(opcode.name, argument)
        raise ValueError("it ends too early")

    def _do(self, name: str, argument: Any) -> None:
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                self._stack.append(self._memo[argument])
            case "MARK":
                self._outer.append(self._stack)
                self._stack = []
            case "GLOBAL":
                self._stack.append(_Name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self._stack.append(_name(*self._pop(2)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._pop(int(name[-1]))))
            case "TUPLE":
                values = self._pop_mark()
                self._stack.append(tuple(values))
            case "LIST":
                values = self._pop_mark()
                self._stack.append(values)
            case "DICT":
                values = self._pop_mark()
                self._stack.append({})
                self._set(values)
            case "FROZENSET":
                self._pop_mark()
                self._stack.append(Inert("a set"))
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._pop_mark())
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_mark())
            case "REDUCE" | "NEWOBJ":
                self._stack.append(_call(*self._pop(2)))
            case "NEWOBJ_EX":
                self._stack.append(_call(*self._pop(3)[:2]))
            case "BUILD":
                (state,) = self._pop(1)
                if isinstance(self._stack[-1], Script) and isinstance(state, dict):
                    self._stack[-1].attributes = state
            case "BINPERSID":
                self._stack.append(_storage(*self._pop(1)))
            case "POP":
                self._pop(1)
            case "DUP":
                self._stack.append(self._stack[-1])
            case "PROTO" | "FRAME":
                pass
            case _:
                raise ValueError(f"it uses {name}, which no checkpoint needs")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("it takes more than it has built")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _pop_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(
                (_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True)
            )

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)


def _name(module: Any, name: Any) -> _Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise TypeError("a name that is no string")
    return _Name(module, name)


def _storage(identity: Any) -> Storage:
    _, kind, key, _, size = identity
    name = kind.what.removeprefix("torch.").removeprefix("storage.")
    if name not in STORAGES:
        raise ValueError(f"tensors of kind {kind.what} are not supported")
    if not isinstance(key, str) or not _is_size(size):
        raise TypeError("a storage needs a name and a size")
    return Storage(key, STORAGES[name], size)


def _key(key: Any) -> Any:
    """A key of a dict; only the name of a tuple, whose hash takes as long as a file likes."""
    plain = isinstance(key, str | int | float | None)
    return key if plain else Inert(getattr(key, "what", type(key).__name__))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _call(function: Any, arguments: Any) -> Any:
    what = function.what
    if what == "collections.OrderedDict" and not arguments:
        return {}
    if what == "collections.OrderedDict":  # of Python 2
        return {_key(key): value for key, value in arguments[0]}
    if what == "torch._utils._rebuild_tensor_v2":
        return _tensor(*arguments[:4])
    if what == "torch._utils._rebuild_parameter":
        return arguments[0]
    if what.startswith("__torch__."):  # its code is elsewhere, and is not read
        return Script()
    return Inert(what)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    sizes = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(type(size) is int for size in sizes):
        raise TypeError("a tensor needs a storage and integers")
    return Tensor(storage, offset, tuple(shape), tuple(strides))
