"""Encoders, one file per paper; `build` makes one from plain values.

The modules of this package are the models: adding one is adding a file. It declares

    HEADS       head -> function that makes such a model; the key None is the bare encoder
    VARIANTS    size -> fields

and, where its family has something to say,

    INHERITED   fields that a model must have as the checkpoint it starts from has them
    NOTED       fields whose difference from that checkpoint is worth a note
    STAGES      path prefixes whose `blocks` count, one after the other, for layer decay
    DEMO        fields of a demo run: small sizes, and rates of 0
    DEMO_CLIP   size and stride of its clips, keys of config.data
    TOKENIZER   kind of vocabulary that its texts are read with, see vidjax.tokenizers
    adapt       (params, source, target, **options) -> params, notes: see `adapt`
    KEEPS_INPUT whether a model's input is normalised and resized as the input of the checkpoint
                that it starts from
    USES        head -> "predict", "compare" (with texts) or "embed": the use of a converted model
                with it; None: no command; heads that are not there are trained from
    start_from  (fields, source) -> fields: see `start_from`
    stages      fields -> STAGES, where another model's decide
    encoder_of  fields -> what a model of these decides of its encoder: see `encoder_of`
    token_grid  (fields, clip) -> (t, h, w), where a clip is not simply cut into patches

A head's parameters are the model's fields, in a config and in model.json, or parts whose fields
stand in their place (`layers.fields`): `def classify(encoder: Encoder, classes: Classes, pool: str
= "mean")`. It returns a `layers.heads.Model`: a linen module called with normalised video
[B, T, H, W, 3], whose `embed` gives a vector [B, D] for each. The encoder's parameters are below
`encoder`, its stacked layers below `blocks`; its `on_grid` is a layout of `layers.grids`. Dropout
and stochastic depth are on exactly when `apply` is given a "dropout" key. Layers of several
families are in `layers`.
"""

import functools
import importlib
import inspect
import pkgutil
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from flax.core import FrozenDict

from vidjax import json_files
from vidjax.errors import UserError, did_you_mean
from vidjax.models.layers.fields import REQUIRED, Field, build_flat, flat_fields
from vidjax.models.layers.heads import Model, TwoTowers
from vidjax.models.layers.patches import grid_of

_DEFAULTS = {
    "INHERITED": (),
    "NOTED": (),
    "STAGES": ("encoder/",),
    "DEMO": {},
    "DEMO_CLIP": {"size": 32, "stride": 2},
    "TOKENIZER": "sentencepiece",
    "KEEPS_INPUT": False,
    "USES": {},
}


@functools.cache
def names() -> list[str]:
    """Returns the names that `build` takes: the modules of this package."""
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg]


def declared(name: str, constant: str) -> Any:
    """Returns a constant of the module `name`, or the default where it declares none."""
    return getattr(_family(name), constant, _DEFAULTS[constant])


def fields_of(name: str, head: str | None) -> dict[str, Field]:
    """Returns types and defaults of the fields of a family's models with `head`.

    Raises:
        UserError: unknown name or head.
    """
    return flat_fields(_head(name, head))


def head_class(name: str, head: str | None) -> type[Model]:
    """Returns the class of a family's models with `head`.

    Raises:
        UserError: unknown name or head.
    """
    return inspect.signature(_head(name, head)).return_annotation


def has_field(name: str, head: str | None, field: str) -> bool:
    """Whether a family's models with `head` have a field, such as "num_classes"."""
    return field in fields_of(name, head)


def reads_text(name: str, head: str | None) -> bool:
    """Whether a family's models with `head` compare videos with texts."""
    return issubclass(head_class(name, head), TwoTowers)


def _family(name: str) -> types.ModuleType:
    return importlib.import_module(f"{__name__}.{_known(name, names(), 'model')}")


def _head(name: str, head: str | None) -> Any:
    heads = _family(name).HEADS
    return heads[_known(head, list(heads), f"head of {name}")]


def demo_fields(name: str, head: str | None) -> dict[str, Any]:
    """Returns the fields of a demo run that models with `head` have."""
    known = fields_of(name, head)
    return {key: value for key, value in declared(name, "DEMO").items() if key in known}


def build(
    name: str,
    variant: str | None = None,
    *,
    head: str | None = None,
    clip: tuple[int, int, int] | None = None,
    **fields: Any,
) -> Model:
    """Makes a model.

    Args:
        name: the module of this package that holds it, such as "videomae".
        variant: a size in its VARIANTS; None when `fields` give all sizes.
        head: a key of its HEADS; None is the bare encoder.
        clip: frames, height and width that a learned position table is made for, where no
            `pos_grid` is given.
        **fields: the head's fields, on top of the variant's; plain values only, so that the same
            keywords can stand in a config or a checkpoint's model.json.

    Raises:
        UserError: an unknown name, variant, head or field, a missing one, or a value of another
            type than the field's.
    """
    make = _head(name, head)
    specs = flat_fields(make)
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
        fields = variants[_known(variant, list(variants), f"variant of {name}")] | fields
    values = {key: fields.get(key, spec.default) for key, spec in specs.items()}
    # JSON and configs turn tuples into lists; modules must be hashable.
    values = {key: _frozen(value) for key, value in values.items()}
    missing = [key for key, value in values.items() if value is REQUIRED]
    if missing == ["pos_grid"] and clip:
        values["pos_grid"] = token_grid(name, values, clip)
    elif missing:
        raise UserError(f"model {name} with head {head!r} needs {', '.join(missing)}")
    config = FrozenDict({"name": name, "head": head, **values})
    return build_flat(make, values).clone(config=config)


def replace(model: Model, **fields: Any) -> Model:
    """Returns a model with some fields changed."""
    return build(**{**model.config, **fields})


def token_grid(name: str, fields: Mapping[str, Any], clip: tuple[int, int, int]) -> tuple[int, ...]:
    """Returns the tokens (t, h, w) of a clip of (T, H, W) pixels in a model with `fields`."""
    family = _family(name)
    if hasattr(family, "token_grid"):
        return family.token_grid(fields, clip)
    return grid_of((1, *clip), fields["patch_size"])


def grid_tokens(
    model: Model,
    variables: Mapping[str, Any],
    video: jax.Array,
    layers: int | tuple[int, ...] | None = None,
) -> jax.Array:
    """Returns the encoder's tokens of video on their grid, without class tokens.

    Args:
        model: a model with an `encoder`.
        variables: as of `model.apply`.
        video: normalised, [B, T, H, W, 3].
        layers: index of a block, or several. Block i is the i-th of the encoder from 0 on, negative
            indices count from the last one. Its output is taken before any norm that follows, as
            in Hugging Face's `hidden_states[i + 1]`, where V-JEPA and DINOv2 normalise it. None:
            the tokens as the encoder ends with them, after its last norm if it has one.

    Returns:
        [B, t, h, w, D]; of several layers [B, L, t, h, w, D].

    Raises:
        UserError: there is no such block.
    """

    def encode(model: Model, video: jax.Array) -> tuple[Any, Mapping[str, Any]]:
        tokens = model.encoder(video)
        return tokens, model.encoder.variables["hidden_states"]

    (tokens, states), _ = model.apply(variables, video, method=encode, mutable=["hidden_states"])
    tokens = tokens[0] if isinstance(tokens, tuple) else tokens  # beside what heads need
    fields = model.config.get("encoder", model.config)  # a probe has those of another model
    grid = token_grid(fields["name"], fields, video.shape[1:4])
    tokens, blocks = model.encoder.on_grid(tokens, states, grid)
    if layers is None:
        return tokens
    single = isinstance(layers, int)
    for index in (layers,) if single else layers:
        if not -len(blocks) <= index < len(blocks):
            raise UserError(
                f"layers={layers}: there is no block {index} in an encoder of {len(blocks)}; "
                f"choose from 0 to {len(blocks) - 1}, or from -1, the last one, to -{len(blocks)}"
            )
    return blocks[layers] if single else jnp.moveaxis(blocks[np.asarray(layers)], 0, 1)


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
        UserError: an unknown name or head, or a value that is not of its field's type or range.
    """
    specs = fields_of(fields["name"], fields["head"])
    types = {key: spec.type for key, spec in specs.items()}
    json_files.check_config(fields, types, "config.model.")


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


def config_of(model: Model) -> dict[str, Any]:
    """Returns the keywords with which `build` makes `model` again, sizes spelled out, for JSON.

    Without `attention`, which says what a machine can run best, and the next one may lack.
    """
    return {key: _plain(value) for key, value in model.config.items() if key != "attention"}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def adapt(
    params: dict[str, np.ndarray], source: Mapping[str, Any], model: Model, **options: Any
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Makes the parameters of one model fit another of its family, where its paper says how.

    Args:
        params: by "/"-joined name; numpy arrays, or things with their shape and dtype that become
            arrays by indexing or np.asarray. What is only handed on is not read here.
        source: what `config_of` gives for the model they are of.
        model: the model that they shall be for; the family's `adapt` gets its fields.
        **options: keywords of the family's own `adapt`.

    Returns:
        The parameters, as they are where nothing is to be done, and notes of what was done.

    Raises:
        UserError: an option that the family does not have, or models that do not fit.
    """
    name = model.config["name"]
    make = getattr(_family(name), "adapt", None)
    known = list(inspect.signature(make).parameters)[3:] if make else []
    for key in options:
        _known(key, known, f"entry of config.init_options for {name}")
    return make(params, source, model.config, **options) if make else (params, [])


def encoder_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords of `build` for the encoder alone of a model with `fields`.

    A module's own `encoder_of` may correct them, where a head decides what its encoder does.
    """
    family = _family(fields["name"])
    if None not in family.HEADS:
        raise UserError(f"model {fields['name']} is no encoder that a probe can look into")
    known = flat_fields(family.HEADS[None])
    bare = {key: value for key, value in fields.items() if key in known}
    if hasattr(family, "encoder_of"):
        bare |= family.encoder_of(fields)
    return {"name": fields["name"], "head": None} | bare


def stages(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns path prefixes whose `blocks` count for layer decay, of a model with `fields`."""
    family = _family(fields["name"])
    if hasattr(family, "stages"):
        return family.stages(fields)
    return declared(fields["name"], "STAGES")


def abstract_params(model: Model) -> dict[str, Any]:
    """Returns the parameters' shapes and dtypes as nested ShapeDtypeStructs; allocates nothing."""

    def init(rng, inputs):
        return nn.meta.unbox(model.init(rng, **inputs))["params"]

    return jax.eval_shape(init, jax.random.key(0), model.example_inputs())


@functools.cache
def param_names(fields: Mapping[str, Any]) -> frozenset[str]:
    """Returns the "/"-joined names of the parameters of a model with frozen `fields`."""
    return frozenset(traverse_util.flatten_dict(abstract_params(build(**fields)), sep="/"))


def _known(value, valid: list, what: str):
    if value not in valid:
        hint = did_you_mean(str(value), map(str, valid))
        there = f"unknown {what}: {value!r}; there are {valid}"
        raise UserError(f"{there}; {hint}" if hint else there)
    return value
