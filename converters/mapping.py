"""Rules between the tensors of a published file and our parameter tree, read both ways.

A rule names a tensor as the file spells it, the parameter it becomes, and the layout between
them: `Rule("head.weight", "head/kernel", "o i -> i o")`. Layouts look like einops patterns and
only move bytes, so a table swapped is its own inverse, and an export is byte-exact.

`{i}` in a source name stacks the layers 0, 1, ... on axis 0 of the parameter; `{_i}` likewise, as
Keras numbers: nothing for the first layer, then _1, _2, ... A tuple of targets splits the layout's
leading axis: `Rule("qkv.weight", ("q", "k", "v"), "(s n h) d -> s d n h")`.
Parameters are the split side: only the file's side of a layout may group axes in parentheses,
so every size is read from the parameter's shape.
"""

import functools
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from vidjax.errors import UserError


@dataclass(frozen=True)
class Rule:
    """Tensor `source` of the file is parameter `target`, through `layout` ("": as it is)."""

    source: str
    target: str | tuple[str, ...]
    layout: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target


@dataclass(frozen=True)
class Ignore:
    """Tensors of the file that have no parameter, hence are absent from an export; and why.

    `source` may hold `{i}` (a number) and `*` (anything). One that matches nothing is an error
    unless `optional`. `check` gets each tensor and returns what is wrong with ignoring it, or None.
    What is to `keep` travels with the model, so that an export can write it again.
    """

    source: str
    reason: str
    optional: bool = False
    check: Callable[[np.ndarray], str | None] | None = None
    keep: bool = False


class Spec(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Tensors(Mapping[str, np.ndarray]):
    """Arrays by name, made when asked for and not kept: a file is never in memory as a whole.

    Args:
        makers: give the arrays.
        specs: give anything with `shape` and `dtype`, where these are known without the array.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], np.ndarray]],
        specs: Mapping[str, Callable[[], Any]] | None = None,
    ):
        self._makers = dict(makers)
        self._specs = dict(specs or {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, name: object) -> bool:  # Mapping's would make the array
        return name in self._makers

    def spec(self, name: str) -> Spec:
        """Shape and dtype of an array; where they are not known, it is made for them."""
        found = self._specs.get(name, self._makers[name])()
        return Spec(tuple(found.shape), np.dtype(found.dtype))


def spec_of(arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """Something with the shape and dtype of one of several arrays, lazy ones or not."""
    return arrays.spec(name) if isinstance(arrays, Tensors) else arrays[name]


def to_params(
    tensors: Mapping[str, np.ndarray],
    rules: Iterable[Rule],
    want: Mapping[str, Any],
    ignore: Sequence[Ignore] = (),
) -> dict[str, np.ndarray]:
    """Reads a file's tensors as parameters, each tensor exactly once.

    Args:
        tensors: the file's tensors; may be lazy, one is held at a time.
        rules: the table.
        want: "/"-joined parameter name -> anything with `.shape` and `.dtype`.
        ignore: tensors that may be, or are, in the file and have no parameter.

    Returns:
        Parameters by "/"-joined name, in the dtype of `want` (float16 and bfloat16 are widened,
        which is exact and reversible; nothing is ever narrowed).

    Raises:
        UserError: naming every missing, extra, twice used, misshapen and unfit tensor, every rule
            that leads nowhere and every parameter without a rule.
    """
    _check_memory(want)
    params = {name: _empty(spec.shape, spec.dtype) for name, spec in want.items()}
    ignored = ignored_names(tensors, ignore)
    used: set[str] = set()
    filled: set[str] = set()
    missing: list[str] = []
    problems: list[str] = []

    for rule in rules:
        if dead := [target for target in rule.targets if target not in want]:
            problems.append(f"dead rule: {rule.source} -> {', '.join(dead)}, not in this model")
            continue
        if twice := filled.intersection(rule.targets):
            problems.append(f"duplicate: {', '.join(sorted(twice))} also gets {rule.source}")
            continue
        filled.update(rule.targets)
        for name, layer in _names(rule, params):
            if name not in tensors:
                missing.append(name)
                continue
            if name in used or name in ignored:
                problems.append(f"duplicate: {name} is read by two rules, or read and ignored")
                continue
            used.add(name)
            slots = _slots([params[target] for target in rule.targets], layer)
            if problem := _misfit(slots, rule.layout, spec_of(tensors, name), name):
                problems.append(problem)
            else:
                _fill(slots, rule.layout, tensors[name])

    extra = [name for name in tensors if name not in used and name not in ignored]
    problems += [f"missing from the file: {name}" for name in _collapse(missing)]
    problems += [f"in the file, but no rule reads it: {name}" for name in _collapse(extra)]
    problems += [f"no rule fills the parameter {name}" for name in want if name not in filled]
    for entry in ignore:
        names = [name for name, by in ignored.items() if by is entry]
        if not names and not entry.optional:
            problems.append(f"nothing to ignore: {entry.source} ({entry.reason})")
        verdicts = [(name, entry.check(tensors[name])) for name in names if entry.check]
        problems += [f"cannot ignore {name}: {verdict}" for name, verdict in verdicts if verdict]
    if problems:
        raise UserError(
            f"the file's tensors do not fit this model ({len(problems)} problems):"
            f"{_listed(problems)}"
        )
    return params


def _listed(problems: list[str], limit: int = 30) -> str:
    """The first problems, a line each, and how many more there are."""
    more = [f"and {len(problems) - limit} more"] if len(problems) > limit else []
    return "".join(f"\n  {problem[:300]}" for problem in problems[:limit] + more)


def _check_memory(want: Mapping[str, Any]) -> None:
    """Raises UserError for parameters that this machine cannot hold, whatever a file claims."""
    needed = sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in want.values())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"the file's shapes ask for {needed / 1e9:,.0f} GB of parameters, and this machine has "
            f"{there / 1e9:,.0f} GB of memory; use a larger machine, or fetch the file again if it "
            "should be smaller"
        )


def from_params(params: Mapping[str, np.ndarray], rules: Iterable[Rule]) -> Tensors:
    """Turns parameters back into the file's tensors; the exact inverse of `to_params`.

    Args:
        params: parameters by "/"-joined name; every one must have a rule, and the reverse. They may
            be lazy: those of one rule are held at a time, so tensors are best asked for in order.

    Raises:
        UserError: naming all parameters and rules that have no counterpart.
    """
    rules = list(rules)
    targets = [target for rule in rules for target in rule.targets]
    problems = [f"no rule writes the parameter {name}" for name in params if name not in targets]
    problems += [f"no parameter {name} for its rule" for name in targets if name not in params]
    if problems:
        raise UserError(f"the parameters do not fit this format:{_listed(problems)}")
    files = _FileSide(params)
    names = [(name, rule, layer) for rule in rules for name, layer in _names(rule, params)]
    return Tensors(
        {name: functools.partial(files.tensor, *where) for name, *where in names},
        {name: functools.partial(files.spec, *where) for name, *where in names},
    )


class _FileSide:
    """Parameters as tensors of a file; those of the last rule are kept for its other layers."""

    def __init__(self, params: Mapping[str, np.ndarray]):
        self._params = params
        self._last: tuple[Rule | None, list[np.ndarray]] = (None, [])

    def tensor(self, rule: Rule, layer: int | None) -> np.ndarray:
        if self._last[0] is not rule:
            self._last = (None, [])  # first, so that those of two rules are never in memory
            self._last = (rule, [np.asarray(self._params[target]) for target in rule.targets])
        return _gather(_slots(self._last[1], layer), rule.layout)

    def spec(self, rule: Rule, layer: int | None) -> Spec:
        one = spec_of(self._params, rule.targets[0])
        shape = one.shape if layer is None else one.shape[1:]
        left, _, sizes = _axes(rule.layout, len(rule.targets), shape)
        return Spec(_shape(left, sizes), one.dtype)


def without_wrapper(tensors: Tensors) -> tuple[str, Tensors]:
    """Takes off what wrappers of PyTorch put before every name, such as "module._orig_mod.".

    DistributedDataParallel and DataParallel write the former, torch.compile the latter.

    Returns:
        The prefix, "" if there is none, and the tensors by the rest of their names.
    """
    prefixes = {re.match(r"((module|_orig_mod)\.)*", name)[0] for name in tensors}
    prefix = min(prefixes, key=len, default="")
    if not prefix or not all(other.startswith(prefix) for other in prefixes):
        return "", tensors
    names = {name.removeprefix(prefix): name for name in tensors}
    return prefix, Tensors(
        {name: functools.partial(tensors.__getitem__, old) for name, old in names.items()},
        {name: functools.partial(tensors.spec, old) for name, old in names.items()},
    )


def ignored_names(names: Collection[str], ignore: Sequence[Ignore]) -> dict[str, Ignore]:
    """The names that entries of `ignore` match, each with its entry."""
    patterns = [
        (re.escape(entry.source).replace(r"\{i\}", r"\d+").replace(r"\*", ".*"), entry)
        for entry in ignore
    ]
    return {
        name: entry for pattern, entry in patterns for name in names if re.fullmatch(pattern, name)
    }


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array aligned to 64 bytes, which jax takes over on a CPU instead of copying it."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(num_bytes + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + num_bytes].view(dtype).reshape(shape)


def _names(rule: Rule, params: Mapping[str, np.ndarray]) -> list[tuple[str, int | None]]:
    """The tensors of the rule, and which layer of the parameters each is; None: all there is."""
    if "{i}" not in rule.source and "{_i}" not in rule.source:
        return [(rule.source, None)]
    (num_layers, *_) = spec_of(params, rule.targets[0]).shape
    return [
        (rule.source.replace("{i}", str(i)).replace("{_i}", f"_{i}" if i else ""), i)
        for i in range(num_layers)
    ]


def _slots(arrays: list[np.ndarray], layer: int | None) -> list[np.ndarray]:
    """Views of the (parts of the) parameters that are one tensor of the file."""
    return arrays if layer is None else [array[layer, ...] for array in arrays]


def _misfit(slots: list[np.ndarray], layout: str, tensor: Any, name: str) -> str | None:
    """What keeps a tensor of this shape and dtype from becoming the parameters, if anything."""
    left, _, sizes = _axes(layout, len(slots), slots[0].shape)
    shape, dtype = _shape(left, sizes), slots[0].dtype
    if tensor.shape != shape:
        return f"shape: {name} is {tensor.shape}, but this model needs {shape}"
    if not np.can_cast(tensor.dtype, dtype, "safe"):
        return f"dtype: {name} is {tensor.dtype}, which {dtype} cannot hold exactly"
    if tensor.dtype.kind in "biu" and tensor.dtype != dtype:
        return f"dtype: {name} is {tensor.dtype}; expected floats, quantised weights are not read"
    return None


def _fill(slots: list[np.ndarray], layout: str, tensor: np.ndarray) -> None:
    """Copies a tensor into its parameters."""
    left, right, sizes = _axes(layout, len(slots), slots[0].shape)
    parts = _as_params(np.asarray(tensor, slots[0].dtype, order="C"), left, right, sizes)
    for slot, part in zip(slots, parts if len(slots) > 1 else [parts], strict=True):
        _move(part, slot)


def _gather(slots: list[np.ndarray], layout: str) -> np.ndarray:
    """The tensor that `_fill` would read; C-contiguous."""
    left, right, sizes = _axes(layout, len(slots), slots[0].shape)
    tensor = np.empty(_shape(left, sizes), slots[0].dtype)
    parts = _as_params(tensor, left, right, sizes)
    for slot, part in zip(slots, parts if len(slots) > 1 else [parts], strict=True):
        _move(slot, part)
    return tensor


Groups = tuple[tuple[str, ...], ...]


def _axes(layout: str, count: int, shape: tuple[int, ...]) -> tuple[Groups, Groups, dict[str, int]]:
    """Both sides of a layout, and the sizes of its axes, for `count` parameters of this shape."""
    shape = (count, *shape) if count > 1 else shape
    left, right = _parse(layout or " ".join(f"a{k}" for k in range(len(shape))))
    return left, right, dict(zip((name for (name,) in right), shape, strict=True))


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


def _as_params(tensor: np.ndarray, left: Groups, right: Groups, sizes: Mapping[str, int]) -> Any:
    """A view of a contiguous tensor of the file, with the axes of its parameters."""
    names = [name for group in left for name in group]
    order = [names.index(name) for (name,) in right]
    return tensor.reshape([sizes[name] for name in names]).transpose(order)


def _move(source: np.ndarray, target: np.ndarray) -> None:
    """target[...] = source, of one shape and dtype, where parts of matrices may be transposed."""
    a, b = _merge_axes(source, target)
    # numpy goes along the rows of one of them and down the columns of the other, and each of its
    # elements misses the cache: ten times as slow.
    if a.dtype == np.float32 and a.ndim == 2 and a.flags.forc and b.flags.forc:
        if a.flags.c_contiguous and not b.flags.c_contiguous:
            cv2.transpose(a, b.T)
            return
        if b.flags.c_contiguous and not a.flags.c_contiguous:
            cv2.transpose(a.T, b)
            return
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


def _collapse(names: Iterable[str]) -> list[str]:
    """Names that differ only in their layer number, as one: `blocks.{i}.norm.weight (i = 0-11)`."""
    layers: dict[str, list[int]] = {}
    for name in names:
        layer = r"(?<=[._])(\d+)(?=[./])"
        pattern = re.sub(layer, "{i}", name, count=1)
        found = re.search(layer, name)
        layers.setdefault(pattern, []).extend([int(found[1])] if found else [])
    return [
        f"{pattern} (i = {', '.join(map(str, sorted(i)))})" if i else pattern
        for pattern, i in layers.items()
    ]
