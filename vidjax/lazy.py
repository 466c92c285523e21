"""Arrays by name that are read when asked for: a file is never in memory as a whole."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np


class Spec(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, read when asked for and not kept.

    Args:
        names: of the arrays, in the order in which they are best read.
        read: gives the array of a name.
        spec: gives anything with its `shape` and `dtype`; None: these are not known without it.
    """

    def __init__(
        self,
        names: Iterable[str],
        read: Callable[[str], np.ndarray],
        spec: Callable[[str], Any] | None = None,
    ):
        self._names = dict.fromkeys(names)
        self._read, self._spec = read, spec or read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:  # Mapping's would read the array
        return name in self._names

    def spec(self, name: str) -> Spec:
        """Returns shape and dtype of an array, without reading it where they are known."""
        spec = self._spec(name)
        return Spec(tuple(spec.shape), np.dtype(spec.dtype))

    def select(self, names: Iterable[str]) -> "LazyArrays":
        """Returns the arrays of some names only."""
        return LazyArrays(names, self._read, self._spec)

    def rename(self, rename: Callable[[str], str]) -> "LazyArrays":
        """Returns the arrays by other names."""
        old = {rename(name): name for name in self}
        return LazyArrays(old, lambda name: self[old[name]], lambda name: self.spec(old[name]))

    def cast(self, dtypes: Mapping[str, np.dtype]) -> "LazyArrays":
        """Returns the arrays in other dtypes."""
        return LazyArrays(
            self,
            lambda name: self[name].astype(dtypes[name]),
            lambda name: Spec(self.spec(name).shape, dtypes[name]),
        )


def merge(*parts: Mapping[str, np.ndarray]) -> LazyArrays:
    """Returns the arrays of several mappings, lazy ones or not; the last one with a name counts."""
    home = {name: part for part in parts for name in part}
    return LazyArrays(home, lambda name: home[name][name], lambda name: spec_of(home[name], name))


def spec_of(arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """Returns something with the shape and dtype of one of several arrays, lazy ones or not."""
    return arrays.spec(name) if isinstance(arrays, LazyArrays) else arrays[name]


class Reference:
    """An array of LazyArrays that is not read before someone looks into it."""

    def __init__(self, arrays: LazyArrays, name: str):
        self.arrays, self.name = arrays, name
        self.shape, self.dtype = arrays.spec(name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.arrays[self.name], dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.arrays[self.name][index]
