"""The objective's loss on held-out clips, averaged over videos."""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np

from vidjax.errors import UserError
from vidjax.evaluators import Evaluation, Evaluator, gather


@dataclasses.dataclass(frozen=True)
class Loss(Evaluator):
    """Averages every figure of predict["loss"] over one middle clip of each video."""

    needs: ClassVar[tuple[str, ...]] = ("loss",)

    @functools.cached_property
    def _losses(self):
        return jax.jit(self.context.predict["loss"])

    def run(self, params) -> Evaluation:
        sums, total = {}, 0.0
        for batch in self.context.batches(self.split, (1, 1)):
            host = gather({"weight": batch["weight"], **self._losses(params, batch)})
            weight = host.pop("weight")
            total += weight.sum()
            for key, value in host.items():
                # A padding row may hold anything, NaN included.
                row = np.where(weight > 0, value, 0.0).sum(dtype=np.float64)
                sums[key] = sums.get(key, 0.0) + row
        if not total:
            raise UserError(f"no video of the {self.split} split could be read")
        means = {key: float(value / total) for key, value in sums.items()}
        return Evaluation(means | {"videos": float(total)})


EVALUATOR = Loss
