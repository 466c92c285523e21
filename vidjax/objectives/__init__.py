"""Training objectives, one file each; `build` makes one from plain values.

An objective owns its losses, what it reads from a batch, and the checks of its part of a config. A
batch is a dict of `video` uint8 [B, T, H, W, 3], `label` int32 [B], `video_id` int32 [B] and
`weight` float32 [B] (0 is padding).
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
from flax import linen as nn

from vidjax import json_files
from vidjax.errors import UserError, did_you_mean
from vidjax.preprocessing import Preprocessing

Params = Any
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Base of all objectives: the interface for the train loop, evaluators and prediction.

    Attributes:
        reads: texts that it needs: "captions" of the videos, which batches then have as `text`
            int32 [B, L] and `text_mask` bool [B, L]; or the names of the "classes", as its fields
            `text` and `text_mask`.
        learns_classes: whether it learns the labels of the training list.
        from_data: names of fields that are keys of config.data.
        demo: values for a demo run, of the keys that a config has.
        model: the model that it trains.
        preprocessing: of the clips; batches hold them before normalisation.
        predict: named jit-able functions of (params, batch) for evaluators.
    """

    reads: ClassVar[Literal["captions", "classes"] | None] = None
    learns_classes: ClassVar[bool] = False
    from_data: ClassVar[tuple[str, ...]] = ()
    demo: ClassVar[Mapping[str, Any]] = {}
    model: nn.Module
    preprocessing: Preprocessing

    @classmethod
    def check(cls, config: Any, *, training: bool) -> None:
        """Checks what the objective needs of a whole config.

        Raises:
            UserError: naming the key and its fix.
        """
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        json_files.check_config(config.objective.to_dict(), types, "config.objective.")

    @property
    def predict(self) -> Mapping[str, Callable[..., Any]]:
        raise NotImplementedError

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Returns fresh parameters, with their logical axes (boxed)."""
        raise NotImplementedError

    def loss(
        self, params: Params, batch: Batch, *, rng: jax.Array, ema_params: Params | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the mean loss over the (global) batch, and metrics to log."""
        raise NotImplementedError

    def normalised(self, video: jax.Array) -> jax.Array:
        """Returns the model's input for RGB [B, T, H, W, 3] in 0..255, in the model's dtype."""
        return self.preprocessing.normalise(video, self.model.dtype)


def find(name: str) -> type[Objective]:
    """Returns the class of the objective in module `name`.

    Raises:
        UserError: there is no such module.
    """
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise UserError(f"config.objective.name must be one of {names}, not {name!r}")
    return importlib.import_module(f"{__name__}.{name}").OBJECTIVE


def build(name: str, model: nn.Module, preprocessing: Preprocessing, **fields: Any) -> Objective:
    """Makes the objective of module `name`.

    Args:
        name: module of this package.
        model: the model that it trains.
        preprocessing: of the clips.
        **fields: other fields of the module's OBJECTIVE.

    Raises:
        UserError: unknown name or field.
    """
    objective = find(name)
    known = [f.name for f in dataclasses.fields(objective)]
    for field in fields:
        if field not in known:
            hint = did_you_mean(field, known) or f"known are {', '.join(known)}"
            raise UserError(f"objective {name} has no field {field!r}; {hint}")
    return objective(model=model, preprocessing=preprocessing, **fields)


def keys_of(name: str) -> dict[str, Any]:
    """Returns the keys of config.objective besides `name`, with the types of their values.

    They are the fields of the class in module `name` that neither config.data nor the setup gives.

    Raises:
        UserError: there is no such module.
    """
    objective = find(name)
    given = {"model", "preprocessing", "text", "text_mask", *objective.from_data}
    fields = dataclasses.fields(objective)
    return {field.name: field.type for field in fields if field.name not in given}


def keywords(config: Any) -> dict[str, Any]:
    """Returns the keywords of `build` that config.objective sets, `name` among them."""
    return {key: x for key, x in config.objective.to_dict().items() if x is not None}


def from_config(
    config: Any, model: nn.Module, preprocessing: Preprocessing, **fields: Any
) -> Objective:
    """Makes the objective of a config; `fields` are those that no key gives."""
    shared = {key: config.data[key] for key in find(config.objective.name).from_data}
    fields = {**keywords(config), **shared, **fields}
    return build(model=model, preprocessing=preprocessing, **fields)
