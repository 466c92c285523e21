"""Proof that a conversion loses nothing: tensors compared byte by byte, in their own dtypes."""

from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from converters.mapping import Rule, from_params
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays


def verify(
    tensors: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    ignored: Mapping[str, Any],
) -> None:
    """Compares the file's tensors with what the written parameters give back, rule by rule."""
    left = set(tensors) - set(ignored)

    def compare(rule: Rule, some: Mapping[str, np.ndarray]) -> None:
        for name, tensor in from_params(some, [rule]).items():
            left.discard(name)
            original = tensors[name]
            if not _same(tensor.astype(original.dtype, copy=False), original):
                raise UserError(
                    f"{name} does not come back byte for byte (it may hold NaNs, or the disk "
                    "is faulty); nothing was written"
                )

    # While the parameters of one rule are compared, those of the next are read.
    with futures.ThreadPoolExecutor(1) as beside:
        waiting: futures.Future | None = None
        for rule in rules:
            some = {target: params[target] for target in rule.targets}
            if waiting:
                waiting.result()
            waiting = beside.submit(compare, rule, some)
        if waiting:
            waiting.result()
    if left:
        raise AssertionError(f"never compared: {sorted(left)}")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one dtype hold the same bytes."""
    return a.shape == b.shape and np.array_equal(_bytes(a), _bytes(b))


def _bytes(tensor: np.ndarray) -> np.ndarray:
    flat = np.asarray(tensor, order="C").reshape(-1)
    return flat.view(f"uint{8 * flat.itemsize}")


def is_finite(x: np.ndarray) -> bool:
    """Whether all values are; NaN and infinity show in the extremes, which need no memory."""
    return not x.size or bool(np.isfinite(x.min()) and np.isfinite(x.max()))


def dtypes_of(tensors: LazyArrays) -> str | dict[str, str]:
    """Returns the tensors' dtype, or that of each where they differ."""
    dtypes = {name: tensors.spec(name).dtype.name for name in tensors}
    return next(iter(dtypes.values())) if len(set(dtypes.values())) == 1 else dtypes


def summary(dtypes: str | Mapping[str, str]) -> str:
    """Returns the names of dtypes as a text."""
    return dtypes if isinstance(dtypes, str) else " and ".join(sorted(set(dtypes.values())))


def restore_dtypes(tensors: LazyArrays, dtypes: str | Mapping[str, str]) -> LazyArrays | None:
    """Returns the tensors in the dtypes of their source's file; None if that would round them."""
    if dtypes == "float32":
        return tensors
    names = {name: dtypes if isinstance(dtypes, str) else dtypes[name] for name in tensors}
    cast = tensors.cast({name: np.dtype(dtype) for name, dtype in names.items()})
    if all(_same(cast[name].astype(np.float32), tensors[name]) for name in tensors):
        return cast
    return None
