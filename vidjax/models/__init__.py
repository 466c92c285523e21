"""Encoders, one file per paper; `build` makes one from plain values."""

import dataclasses
import difflib
import importlib
import pkgutil
from typing import Any

import jax
from flax import linen as nn

from vidjax.errors import UserError


def names() -> list[str]:
    """Names that `build` takes: the modules of this package that define HEADS."""
    shared = {"layers", "positions"}
    return [m.name for m in pkgutil.iter_modules(__path__) if m.name not in shared]


def build(
    name: str, variant: str | None = None, *, head: str | None = None, **fields: Any
) -> nn.Module:
    """Makes a model.

    Args:
        name: the module of this package that holds it, such as "videomae".
        variant: a size in its VARIANTS; None when `fields` give all sizes.
        head: a key of its HEADS; None is the bare encoder.
        **fields: the module's fields, on top of the variant's; plain values only, so that the same
            keywords can stand in a config or a checkpoint's model.json.

    Raises:
        UserError: an unknown name, variant, head or field, or a missing one.
    """
    module = importlib.import_module(f"{__name__}.{_known(name, names(), 'model')}")
    model_class = module.HEADS[_known(head, list(module.HEADS), f"head of {name}")]
    specs = {f.name: f for f in dataclasses.fields(model_class) if f.name not in ("parent", "name")}
    for field in fields:
        _known(field, list(specs), f"field of {name} with head {head!r}")
    if variant is not None:
        sizes = module.VARIANTS[_known(variant, list(module.VARIANTS), f"variant of {name}")]
        fields = {key: value for key, value in sizes.items() if key in specs} | fields
    missing = [
        key for key, f in specs.items() if key not in fields and f.default is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"model {name} with head {head!r} needs {', '.join(missing)}")
    # JSON and configs turn tuples into lists; modules must be hashable.
    return model_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def config_of(model: nn.Module) -> dict[str, Any]:
    """The keywords with which `build` makes `model` again, sizes spelled out; JSON values only."""
    name = type(model).__module__.rpartition(".")[-1]
    heads = importlib.import_module(type(model).__module__).HEADS
    head = next(key for key, value in heads.items() if value is type(model))
    fields = {
        f.name: getattr(model, f.name)
        for f in dataclasses.fields(model)
        if f.name not in ("parent", "name")
    }
    return {"name": name, "head": head} | {
        k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()
    }


def abstract_params(model: nn.Module) -> dict[str, Any]:
    """The parameters' shapes and dtypes as a nested dict of ShapeDtypeStruct; allocates nothing."""

    def init(rng, inputs):
        return nn.meta.unbox(model.init(rng, **inputs))["params"]

    return jax.eval_shape(init, jax.random.key(0), model.example_inputs())


def _known(value, valid: list, what: str):
    if value not in valid:
        close = difflib.get_close_matches(str(value), [str(v) for v in valid], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"unknown {what}: {value!r}; there are {valid}{hint}")
    return value
