"""Encoders, one file per paper; `build` makes one from plain values.

A module declares what the train loop asks of its family:

    HEADS       head -> class of modules; the key None is the bare encoder
    VARIANTS    size -> fields
    INHERITED   fields that a model must have as the checkpoint it starts from has them
    NOTED       fields whose difference from that checkpoint is worth a note
    STAGES      path prefixes whose `blocks` count, one after the other, for layer decay
    DEMO        fields of a demo run: small sizes, and rates of 0
    TOKENIZER   kind of vocabulary that its texts are read with, see vidjax.tokenizers
    KEEPS_INPUT whether a model's input is normalised and resized as the input of the checkpoint
                that it starts from
    USES        head -> "predict", "compare" (with texts) or "embed": the use of a converted model
                with it; None: no command; heads that are not there are trained from

HEADS and VARIANTS are required. The module may also define `adapt`, `start_from` and `encoder_of`,
see below.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from vidjax import json_files
from vidjax.errors import UserError, did_you_mean
from vidjax.models import attention
from vidjax.models.layers import REMAT_POLICIES, field_specs, fields_of

_DEFAULTS = {
    "INHERITED": (),
    "NOTED": (),
    "STAGES": ("encoder/",),
    "DEMO": {},
    "TOKENIZER": "sentencepiece",
    "KEEPS_INPUT": False,
    "USES": {},
}


@functools.cache
def names() -> list[str]:
    """Returns the names that `build` takes: the modules of this package that define HEADS."""
    modules = [m.name for m in pkgutil.iter_modules(__path__)]
    return [name for name in modules if hasattr(_module(name), "HEADS")]


def _module(name: str) -> types.ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def declared(name: str, constant: str) -> Any:
    """Returns a constant of the module `name`, or the default where it declares none."""
    return getattr(_family(name), constant, _DEFAULTS[constant])


def head_class(name: str, head: str | None) -> type[nn.Module]:
    """Returns the class of a family's models with `head`.

    Raises:
        UserError: unknown name or head.
    """
    heads = _family(name).HEADS
    return heads[_known(head, list(heads), f"head of {name}")]


def has_field(name: str, head: str | None, field: str) -> bool:
    """Whether a family's models with `head` have a field, such as "num_classes"."""
    return field in field_specs(head_class(name, head))


def reads_text(name: str, head: str | None) -> bool:
    """Whether a family's models with `head` compare videos with texts."""
    return hasattr(head_class(name, head), "similarity")


def demo_fields(name: str, head: str | None) -> dict[str, Any]:
    """Returns the fields of a demo run that models with `head` have."""
    known = field_specs(head_class(name, head))
    return {key: value for key, value in declared(name, "DEMO").items() if key in known}


def _family(name: str) -> types.ModuleType:
    return _module(_known(name, names(), "model"))


def build(
    name: str,
    variant: str | None = None,
    *,
    head: str | None = None,
    clip: tuple[int, int, int] | None = None,
    **fields: Any,
) -> nn.Module:
    """Makes a model.

    Args:
        name: the module of this package that holds it, such as "videomae".
        variant: a size in its VARIANTS; None when `fields` give all sizes.
        head: a key of its HEADS; None is the bare encoder.
        clip: frames, height and width that a learned position table is made for, where no
            `pos_grid` is given.
        **fields: the module's fields, on top of the variant's; plain values only, so that the same
            keywords can stand in a config or a checkpoint's model.json.

    Raises:
        UserError: an unknown name, variant, head or field, a missing one, or a value of another
            type than the field's.
    """
    model_class = head_class(name, head)
    specs = field_specs(model_class)
    for field in fields:
        _known(field, list(specs), f"field of {name} with head {head!r}")
    json_files.check(fields, {key: spec.type for key, spec in specs.items()}, f"model {name}")
    for key, value in fields.items():
        if not all(0 <= size <= _LARGEST for size in _integers(value)):
            raise UserError(
                f"model {name}: {key} is {json_files.shown(value)}, expected sizes from 0 to "
                f"{_LARGEST:,}; correct that value"
            )
    if variant is not None:
        variants = _family(name).VARIANTS
        sizes = variants[_known(variant, list(variants), f"variant of {name}")]
        fields = {key: value for key, value in sizes.items() if key in specs} | fields
    missing = [
        key for key, f in specs.items() if key not in fields and f.default is dataclasses.MISSING
    ]
    # JSON and configs turn tuples into lists; modules must be hashable.
    fields = {key: _frozen(value) for key, value in fields.items()}
    from_clip = missing == ["pos_grid"] and clip
    if missing and not from_clip:
        raise UserError(f"model {name} with head {head!r} needs {', '.join(missing)}")
    groups = fields.get("groups", ())
    if groups and sum(size for _, size in groups) != fields["num_classes"]:
        raise UserError(
            f"groups {groups} of classes do not add up to num_classes {fields['num_classes']}; "
            f"correct one of them"
        )
    if from_clip:
        model = model_class(**fields, pos_grid=(1, 1, 1))
        return model.clone(pos_grid=model.token_grid(clip))
    return model_class(**fields)


_LARGEST = 2**24


def _integers(value: Any) -> list[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [size for x in value for size in _integers(x)]
    return [value] if isinstance(value, int) else []


def check_config(fields: Mapping[str, Any]) -> None:
    """Checks the `model` block of a config; unset keys and unknown ones are not looked at.

    Raises:
        UserError: an unknown name, head, policy, attention or dtype, or a value that is not of its
            field's type or out of its range.
    """
    specs = field_specs(head_class(fields["name"], fields["head"]))
    types = {key: spec.type for key, spec in specs.items()}
    json_files.check_config(fields, types, "config.model.")
    for key, known in (("remat", tuple(REMAT_POLICIES)), ("dtype", _DTYPES)):
        if fields[key] not in known:
            raise UserError(
                f"config.model.{key} must be one of {', '.join(known)}, not {fields[key]!r}"
            )
    attention.check_name(fields["attention"])


_DTYPES = ("float32", "bfloat16", "float16", "float64")


def start_from(fields: Mapping[str, Any], source: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns a model's fields, with those that the checkpoint it starts from decides.

    A module's own `start_from` does this for its family.

    Args:
        fields: keywords of `build` that a config gives.
        source: keywords of `build` for the checkpoint's model; None: there is no checkpoint.

    Raises:
        UserError: a field that must be inherited has another value.
    """
    name = fields["name"]
    if hasattr(_family(name), "start_from"):
        return _family(name).start_from(fields, source)
    if source is None or source["name"] != name:
        return dict(fields)
    for key in declared(name, "INHERITED"):
        if key not in source or not has_field(name, fields["head"], key):
            continue
        if fields.get(key, source[key]) != source[key]:
            raise UserError(
                f"config.init was made with {key} {source[key]}, but config.model.{key} is "
                f"{fields[key]}, with which its parameters mean something else; set it to the same"
            )
        fields = {**fields, key: source[key]}
    return dict(fields)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenDict({key: _frozen(x) for key, x in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def config_of(model: nn.Module) -> dict[str, Any]:
    """The keywords with which `build` makes `model` again, sizes spelled out; JSON values only.

    Without `attention`, which says what a machine can run best, and the next one may lack.
    """
    name = type(model).__module__.rpartition(".")[-1]
    heads = importlib.import_module(type(model).__module__).HEADS
    head = next(key for key, value in heads.items() if value is type(model))
    fields = fields_of(model, type(model))
    fields.pop("attention", None)
    return {"name": name, "head": head} | {key: _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], model: nn.Module, **options: Any
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Makes the parameters of one model fit another of its family, where its paper says how.

    Args:
        params: by "/"-joined name; numpy arrays, or things with their shape and dtype that become
            arrays by indexing or np.asarray. What is only handed on is not read here.
        source: what `config_of` gives for the model they are of.
        model: the model that they shall be for.
        **options: keywords of the family's own `adapt`.

    Returns:
        The parameters, as they are where nothing is to be done, and sentences that say what was.

    Raises:
        UserError: an option that the family does not have, or models that do not fit.
    """
    module = importlib.import_module(type(model).__module__)
    known = list(inspect.signature(module.adapt).parameters)[3:] if hasattr(module, "adapt") else []
    for key in options:
        _known(key, known, f"entry of config.init_options for {module.__name__.split('.')[-1]}")
    if not hasattr(module, "adapt"):
        return params, []
    return module.adapt(params, source, model, **options)


def encoder_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of the keywords that `build` makes a model with: those of its encoder alone.

    A module's own `encoder_of` may correct them, where a head decides what its encoder does.
    """
    module = _module(fields["name"])
    if None not in module.HEADS:
        raise UserError(f"model {fields['name']} is no encoder that a probe can look into")
    known = field_specs(module.HEADS[None])
    bare = {key: value for key, value in fields.items() if key in known}
    if hasattr(module, "encoder_of"):
        bare |= module.encoder_of(fields)
    return {"name": fields["name"], "head": None} | bare


def abstract_params(model: nn.Module) -> dict[str, Any]:
    """The parameters' shapes and dtypes as a nested dict of ShapeDtypeStruct; allocates nothing."""

    def init(rng, inputs):
        return nn.meta.unbox(model.init(rng, **inputs))["params"]

    return jax.eval_shape(init, jax.random.key(0), model.example_inputs())


def _known(value, valid: list, what: str):
    if value not in valid:
        hint = did_you_mean(str(value), map(str, valid))
        there = f"unknown {what}: {value!r}; there are {valid}"
        raise UserError(f"{there}; {hint}" if hint else there)
    return value
