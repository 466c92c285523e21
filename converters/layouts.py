"""Layouts between a file's tensors and parameters, as strings: `"(n h) d -> d n h"`.

The file's side is on the left, and it alone may group axes in parentheses. Without an arrow both
sides are the same.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_STRIPE = 16  # rows that are transposed together

Groups = tuple[tuple[str, ...], ...]


def _axes(layout: str, count: int, shape: tuple[int, ...]) -> tuple[Groups, Groups, dict[str, int]]:
    """Both sides of a layout, and the sizes of its axes, for `count` parameters of this shape."""
    shape = (count, *shape) if count > 1 else shape
    left, right = _parse(layout or " ".join(f"a{k}" for k in range(len(shape))))
    return left, right, dict(zip((name for (name,) in right), shape, strict=True))


def file_shape(layout: str, count: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a tensor of the file that `count` parameters of this shape are."""
    left, _, sizes = _axes(layout, count, shape)
    return _shape(left, sizes)


def fill(params: list[np.ndarray], layout: str, tensor: np.ndarray) -> None:
    """Copies a tensor of the file into its parameters."""
    tensor = np.asarray(tensor, params[0].dtype, order="C")
    for param, part in zip(params, _parts(params, layout, tensor), strict=True):
        _move(part, param)


def gather(params: list[np.ndarray], layout: str) -> np.ndarray:
    """Returns the tensor that `fill` would read; C-contiguous."""
    shape = file_shape(layout, len(params), params[0].shape)
    tensor = np.empty(shape, params[0].dtype)
    for param, part in zip(params, _parts(params, layout, tensor), strict=True):
        _move(param, part)
    return tensor


def _parts(params: list[np.ndarray], layout: str, tensor: np.ndarray) -> Any:
    """Views of a contiguous tensor of the file, each with the axes of one parameter."""
    left, right, sizes = _axes(layout, len(params), params[0].shape)
    names = [name for group in left for name in group]
    order = [names.index(name) for (name,) in right]
    view = tensor.reshape([sizes[name] for name in names]).transpose(order)
    return view if len(params) > 1 else [view]


@functools.cache
def _parse(layout: str) -> tuple[Groups, Groups]:
    """`"(n h) d -> d n h"` as ((("n", "h"), ("d",)), (("d",), ("n",), ("h",)))."""
    sides = [
        tuple(tuple(token.strip("()").split()) for token in re.findall(r"\([^)]*\)|\S+", side))
        for side in layout.split("->")
    ]
    left, right = sides if len(sides) == 2 else (sides[0], sides[0])
    left_names, right_names = [[n for group in side for n in group] for side in (left, right)]
    if sorted(left_names) != sorted(right_names) or len(set(left_names)) != len(left_names):
        raise ValueError(f"layout {layout!r}: both sides must name the same axes, each once")
    if len(right) != len(right_names):
        raise ValueError(f"layout {layout!r}: the parameter side must not group axes")
    return left, right


def _shape(groups: Groups, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[name] for name in group) for group in groups)


def _move(source: np.ndarray, target: np.ndarray) -> None:
    """target[...] = source, of one shape and dtype, where parts of matrices may be transposed."""
    a, b = _merge_axes(source, target)
    if a.ndim == 2 and a.strides[0] < a.strides[1]:
        a, b = a.T, b.T
    if a.ndim == 2 and b.strides[0] < b.strides[1]:
        # In one go, numpy would miss the cache for every element: four times as slow.
        for start in range(0, len(a), _STRIPE):
            b[start : start + _STRIPE] = a[start : start + _STRIPE]
    else:
        target[...] = source


def _merge_axes(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Views of both in which neighbouring axes are one, if memory has them as one."""
    axis = 0
    while axis < a.ndim - 1:
        if all(x.strides[axis] == x.shape[axis + 1] * x.strides[axis + 1] for x in (a, b)):
            shape = *a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :]
            a, b = a.reshape(shape), b.reshape(shape)
        else:
            axis += 1
    return a, b


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array aligned to 64 bytes, which jax takes over on a CPU instead of copying it."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(num_bytes + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + num_bytes].view(dtype).reshape(shape)
