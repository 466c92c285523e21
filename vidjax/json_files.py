"""JSON that other people wrote: parsed within bounds, its values compared with declared types.

A type is an annotation as dataclasses have them: int, float, str, bool, None, Any, `X | Y`,
`Literal[...]`, `tuple[X, Y]`, `tuple[X, ...]`, `list[X]`, `Mapping[str, X]`, and `Annotated[X,
Must(...)]` for a range. A bool is no number, an int is a float, and floats are finite.
"""

import json
import math
import numbers
import os
import reprlib
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from etils import epath

from vidjax.errors import UserError

_MAX_BYTES = 64_000_000  # the largest tokenizer.json have 35 MB
_MAX_DEPTH = 100
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


class Must(NamedTuple):
    """A condition on values of an annotated type, and how a message spells it."""

    text: str
    holds: Callable[[Any], bool]


class Nullable(dict):
    """Types of an object's keys, where the file may have null instead."""


Size = Annotated[int, Must("from 1 to 2^24", lambda x: 1 <= x <= 2**24)]
Count = Annotated[int, Must("from 0 to 2^24", lambda x: 0 <= x <= 2**24)]
Positive = Annotated[float, Must("above 0", lambda x: x > 0)]
NotNegative = Annotated[float, Must("of at least 0", lambda x: x >= 0)]
Fraction = Annotated[float, Must("from 0 to 1", lambda x: 0 <= x <= 1)]
Rate = Annotated[float, Must("of at least 0 and below 1", lambda x: 0 <= x < 1)]
Digits = Annotated[str, Must("of at most 9 digits", lambda x: x.isdecimal() and len(x) < 10)]


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file that must hold a JSON object.

    Raises:
        UserError: as `parse`, or it is no object.
    """
    path = epath.Path(path)
    try:
        if path.stat().length > _MAX_BYTES:
            raise UserError(f"{path} is larger than {_MAX_BYTES // 10**6} MB; expected a JSON file")
        content = parse(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {shown(content)}, expected a JSON object; fetch it again")
    return content


def parse(content: bytes, name: str | os.PathLike) -> Any:
    """Parses JSON as RFC 8259 defines it: UTF-8, no NaN, no infinity, no lone surrogates.

    Raises:
        UserError: it is something else, or nested more than 100 levels deep.
    """
    try:
        value = json.loads(content.decode(), parse_constant=_no_number, parse_float=_finite)
        level, depth = [value], 0
        while level := [x for node in level if isinstance(node, dict | list) for x in _in(node)]:
            if (depth := depth + 1) >= _MAX_DEPTH:
                raise RecursionError
        if b"\\ud" in content.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise UserError(
            f"{name} is nested more than {_MAX_DEPTH} levels deep; fetch or convert it again"
        ) from None
    except ValueError as error:
        raise UserError(f"{name} is not JSON: {error}; fetch or convert it again") from None
    return value


def _in(node: dict | list) -> Sequence[Any]:
    return list(node.values()) if isinstance(node, dict) else node


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _finite(word: str) -> float:
    if not math.isfinite(number := float(word)):
        raise ValueError(f"{shown(word)} is too large a number")
    return number


def check(
    values: Mapping[str, Any], expected: Mapping[str, Any], name: str | os.PathLike, key: str = ""
) -> None:
    """Compares the values of an object with their types; keys without a type are not looked at.

    Args:
        values: the object.
        expected: types by key. A dict in place of a type has those of an object's own keys.
        name: of the file, for the message.
        key: where the object is in the file, such as "vision_config.".

    Raises:
        UserError: naming the file, the key, its value and what was expected.
    """
    for word in values.keys() & expected.keys():
        value, kind = values[word], expected[word]
        if isinstance(kind, Nullable) and value is None:
            continue
        inner = isinstance(kind, dict)
        if inner and isinstance(value, Mapping):
            check(value, kind, name, f"{key}{word}.")
        elif inner or not fits(value, kind):
            wanted = "an object" if inner else describe(kind)
            raise UserError(
                f"{name}: {key}{word} is {shown(value)}, expected {wanted}; correct that value, or "
                "fetch or convert the file again"
            )


def check_config(values: Mapping[str, Any], expected: Mapping[str, Any], key: str) -> None:
    """Compares a block of a config with the types of its keys; unset keys are not looked at.

    Args:
        values: the block.
        expected: types by key.
        key: where the block is, such as "config.objective.".

    Raises:
        UserError: naming the key, its value and what was expected.
    """
    for word, kind in expected.items():
        value = values.get(word)
        if value is not None and not fits(value, kind):
            raise UserError(f"{key}{word} must be {describe(kind)}, not {shown(value)}")


def check_keys(
    values: Mapping[str, Any],
    required: Collection[str],
    known: Collection[str],
    name: str | os.PathLike,
    key: str = "",
) -> None:
    """Raises UserError for an object that lacks a required key, or has one that is not known.

    `name` and `key` as for `check`.
    """
    if missing := [word for word in required if word not in values]:
        raise UserError(f"{name}: {key}{missing[0]} is missing; fetch or convert the file again")
    if unknown := [word for word in values if word not in known]:
        raise UserError(
            f"{name}: {key}{unknown[0][:80]} is no key of such a file, expected "
            f"{', '.join(known)}; correct it, or fetch or convert the file again"
        )


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type."""
    if kind is Any:
        return True
    if kind in (None, type(None)):
        return value is None
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_number and abs(value) < 1e300
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, arguments[0]) and all(must.holds(value) for must in arguments[1:])
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (tuple, list):
        if not isinstance(value, tuple | list):
            return False
        if origin is list or arguments[-1] is Ellipsis:
            return all(fits(x, arguments[0]) for x in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, arguments[0]) and fits(x, arguments[1]) for k, x in value.items()
        )
    return isinstance(value, kind)


def describe(kind: Any) -> str:
    """Says in words which values are of a type."""
    words = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    words |= {None: "null", type(None): "null", Any: "anything"}
    if kind in words:
        return words[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([describe(arguments[0]), *(must.text for must in arguments[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"a list, each of it {describe(arguments[0])}"
    if origin is tuple:
        same = f", each {describe(arguments[0])}" if len(set(arguments)) == 1 else ""
        return f"a list of {len(arguments)}{same}"
    return "an object"


def shown(value: Any) -> str:
    """A value in at most 80 characters."""
    text = _REPR.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
