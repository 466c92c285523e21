"""Training objectives, one file each; `build` makes one from plain values.

An objective is all that the train loop knows of a task. A batch is a dict of `video` uint8
[B, T, H, W, 3], `label` int32 [B], `video_id` int32 [B] and `weight` float32 [B] (0 is padding).
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import linen as nn

from vidjax.errors import UserError, did_you_mean

Params = Any
Batch = Mapping[str, jax.Array]


class Objective(Protocol):
    """What the train loop, the evaluators and prediction ask of a task.

    `predict` maps names to jit-able functions of (params, batch) for evaluators.
    """

    predict: Mapping[str, Callable[[Params, Batch], Any]]

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Fresh parameters, with their logical axes (boxed)."""

    def loss(
        self, params: Params, batch: Batch, *, rng: jax.Array, ema_params: Params | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The mean loss over the (global) batch, and figures to report."""


def build(name: str, model: nn.Module, mean, std, **fields: Any) -> Objective:
    """Makes the objective of module `name`.

    Args:
        name: module of this package.
        model: the model it trains.
        mean, std: of the pixels in [0, 1], per channel, that the model's inputs are normalised by.
        **fields: fields of the module's OBJECTIVE.

    Raises:
        UserError: unknown name or field.
    """
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    if name not in names:
        raise UserError(f"config.objective.name must be one of {names}, not {name!r}")
    objective = importlib.import_module(f"{__name__}.{name}").OBJECTIVE
    known = [f.name for f in dataclasses.fields(objective) if f.init]
    for field in fields:
        if field not in known:
            hint = did_you_mean(field, known) or f"known are {', '.join(known)}"
            raise UserError(f"objective {name} has no field {field!r}; {hint}")
    return objective(model=model, mean=tuple(mean), std=tuple(std), **fields)
