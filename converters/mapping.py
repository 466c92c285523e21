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

import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.layouts import empty, file_shape, fill, gather
from vidjax.errors import UserError
from vidjax.lazy import LazyArrays, Spec, spec_of


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
    params = {name: empty(spec.shape, spec.dtype) for name, spec in want.items()}
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
                fill(slots, rule.layout, tensors[name])

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


def from_params(params: Mapping[str, np.ndarray], rules: Iterable[Rule]) -> LazyArrays:
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
    side = _FileSide(params, rules)
    return LazyArrays(side.names, side.tensor, side.spec)


class _FileSide:
    """Parameters as tensors of a file; those of the last rule are kept for its other layers."""

    def __init__(self, params: Mapping[str, np.ndarray], rules: Iterable[Rule]):
        self._params = params
        self._last: tuple[Rule | None, list[np.ndarray]] = (None, [])
        self.names = {name: (rule, layer) for rule in rules for name, layer in _names(rule, params)}

    def tensor(self, name: str) -> np.ndarray:
        rule, layer = self.names[name]
        if self._last[0] is not rule:
            self._last = (None, [])  # first, so that those of two rules are never in memory
            self._last = (rule, [np.asarray(self._params[target]) for target in rule.targets])
        return gather(_slots(self._last[1], layer), rule.layout)

    def spec(self, name: str) -> Spec:
        rule, layer = self.names[name]
        param = spec_of(self._params, rule.targets[0])
        shape = param.shape if layer is None else param.shape[1:]
        return Spec(file_shape(rule.layout, len(rule.targets), shape), param.dtype)


def without_wrapper(tensors: LazyArrays) -> tuple[str, LazyArrays]:
    """Takes off what wrappers of PyTorch put before every name, such as "module._orig_mod.".

    DistributedDataParallel and DataParallel write the former, torch.compile the latter.

    Returns:
        The prefix, "" if there is none, and the tensors by the rest of their names.
    """
    prefixes = {re.match(r"((module|_orig_mod)\.)*", name)[0] for name in tensors}
    prefix = min(prefixes, key=len, default="")
    if not prefix or not all(other.startswith(prefix) for other in prefixes):
        return "", tensors
    return prefix, tensors.rename(lambda name: name.removeprefix(prefix))


def ignored_names(names: Collection[str], ignore: Sequence[Ignore]) -> dict[str, Ignore]:
    """The names that entries of `ignore` match, each with its entry."""
    patterns = [
        (re.escape(entry.source).replace(r"\{i\}", r"\d+").replace(r"\*", ".*"), entry)
        for entry in ignore
    ]
    return {
        name: entry for pattern, entry in patterns for name in names if re.fullmatch(pattern, name)
    }


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
    """The reason why a tensor of this shape and dtype cannot become the parameters, or None."""
    shape, dtype = file_shape(layout, len(slots), slots[0].shape), slots[0].dtype
    if tensor.shape != shape:
        return f"shape: {name} is {tensor.shape}, but this model needs {shape}"
    if not np.can_cast(tensor.dtype, dtype, "safe"):
        return f"dtype: {name} is {tensor.dtype}, which {dtype} cannot hold exactly"
    if tensor.dtype.kind in "biu" and tensor.dtype != dtype:
        return f"dtype: {name} is {tensor.dtype}; expected floats, quantised weights are not read"
    return None


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
