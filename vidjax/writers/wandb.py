"""Weights & Biases: one W&B run, which restarts continue.

WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and others are W&B's own variables. What was not uploaded,
as in offline mode, lies in workdir/wandb for `wandb sync`, a folder per start, all with one run id.
A kill may cost the last seconds, which W&B's own process had not written yet.
"""

import os
from collections.abc import Mapping

import numpy as np
import wandb

from vidjax import files
from vidjax.writers import PROJECT, Start, Writer


class Wandb(Writer):
    """Logs to a W&B run whose charts are over "step".

    W&B's own steps only count the calls, as W&B drops what comes after a later step: the steps that
    a restarted run repeats, and evaluations of the step that it starts from.
    """

    def __init__(self, start: Start):
        kept = start.service_id("wandb")
        wandb.setup(wandb.Settings(silent=True))  # it would ask for a key on the terminal
        self._run = wandb.init(
            id=kept or None,
            resume="allow" if kept else None,
            name=start.name,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=None if files.is_remote(start.workdir) else str(start.workdir),
            config=dict(start.config),
            allow_val_change=True,
            settings=wandb.Settings(console="off", finish_timeout=10),
        )
        start.keep_id("wandb", self._run.id)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.place = self._run.url or self._run.settings.sync_dir
        self.last_step = self._run.summary.get("step", 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._run.log({"step": step, **{k: wandb.Image(image) for k, image in images.items()}})

    def close(self) -> None:
        self._run.finish()


WRITER = Wandb
