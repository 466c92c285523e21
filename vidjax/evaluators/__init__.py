"""Evaluators, one file each: entries of `config.evals`, run in training and by `vidjax.eval`.

An evaluator is given named functions of (params, batch) and makes its own passes over the data;
it knows no model. Figures are summed on the host over all processes.
"""

import dataclasses
import importlib
import pathlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from vidjax.errors import UserError

Batches = Iterator[dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Context:
    """What evaluators get from the loop.

    Attributes:
        predict: named functions of the objective.
        batches: (split, views) -> one pass over a split's clips, each video `temporal x spatial`
            times, padded at the end with weight 0.
        num_videos: split -> number of videos.
        num_classes: of the data; 0 when there are no labels.
        workdir: where figures are written.
        groups: names and sizes of several answers in one output, such as (("noun", 300),
            ("verb", 97)); labels are then [B, number of groups].
    """

    predict: Mapping[str, Callable]
    batches: Callable[[str, tuple[int, int]], Batches]
    num_videos: Callable[[str], int]
    num_classes: int
    workdir: pathlib.Path
    groups: tuple[tuple[str, int], ...] = ()


class Evaluator(Protocol):
    def run(self, params: Any, step: int) -> dict[str, float]:
        """Figures of `params` after `step` training steps."""


def build(evals: Mapping[str, Any], context: Context) -> dict[str, tuple[Evaluator, int]]:
    """Makes the evaluators of `config.evals`: name -> (evaluator, steps between its runs).

    Each entry has a `name`, the module of this package; `every`, the steps between two runs (0:
    only after the last step); and fields of the module's EVALUATOR.

    Raises:
        UserError: unknown evaluator or field, or an objective without the figures it needs.
    """
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    out = {}
    for key, entry in evals.items():
        fields = dict(entry)
        name, every = fields.pop("name", None), fields.pop("every", 0)
        if name not in names:
            raise UserError(f"config.evals.{key}.name must be one of {names}, not {name!r}")
        evaluator = importlib.import_module(f"{__name__}.{name}").EVALUATOR
        known = [f.name for f in dataclasses.fields(evaluator) if f.init and f.name != "context"]
        if unknown := set(fields) - set(known):
            raise UserError(
                f"config.evals.{key} has unknown keys {sorted(unknown)}; it has {known}"
            )
        if evaluator.needs not in context.predict:
            raise UserError(
                f"config.evals.{key} ({name}) needs an objective that predicts "
                f"{evaluator.needs!r}; this one predicts {sorted(context.predict)}"
            )
        out[key] = evaluator(context=context, **fields), every
    return out


def gather(values: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """Every process's part of global arrays, whole, on every host."""
    return {
        k: np.asarray(multihost_utils.process_allgather(v, tiled=True)) for k, v in values.items()
    }
