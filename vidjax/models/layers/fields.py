"""Flat fields of nested parts: what stands in a config and a model.json, and what it builds.

A head is a function that makes a model. Its parameters are fields, or parts: parameters whose type
is a dataclass, such as an encoder, whose own fields stand in their place. So a field is declared
where it is read, and every head that takes an encoder has the encoder's fields.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

REQUIRED = dataclasses.MISSING
_OF_LINEN = ("parent", "name")
_BY_HEAD = {"set by the head": True}


class Field(NamedTuple):
    """Type and default of a field; the default is REQUIRED where there is none."""

    type: Any
    default: Any


def set_by_head(default: Any) -> Any:
    """Returns a dataclass field that is no field of the model: its head decides the value."""
    return dataclasses.field(default=default, metadata=_BY_HEAD)


def flat_fields(make: Callable[..., Any]) -> dict[str, Field]:
    """Returns the fields of a head by name, those of its parts in the parts' places."""
    fields = {}
    for name, field in _parameters(make):
        fields |= flat_fields(field.type) if _is_part(field.type) else {name: field}
    return fields


def build_flat(make: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Calls a head with `values` by field name, building its parts from the same values."""
    return make(
        **{
            name: build_flat(field.type, values) if _is_part(field.type) else values[name]
            for name, field in _parameters(make)
            if _is_part(field.type) or name in values
        }
    )


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _parameters(make: Callable[..., Any]) -> Iterator[tuple[str, Field]]:
    if _is_part(make):
        for field in dataclasses.fields(make):
            if field.name not in _OF_LINEN and field.metadata != _BY_HEAD:
                yield field.name, Field(field.type, field.default)
        return
    for name, parameter in inspect.signature(make).parameters.items():
        required = parameter.default is parameter.empty
        yield name, Field(parameter.annotation, REQUIRED if required else parameter.default)
