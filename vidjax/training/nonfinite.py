"""Steps whose loss or gradients are not finite."""

import collections
import math
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath

from vidjax import distributed
from vidjax.checkpoints import Checkpoints, last_good
from vidjax.errors import UserError
from vidjax.journal import Journal
from vidjax.setup import Setup
from vidjax.training.report import Report

# Steps queued ahead of the device: enough to keep it busy, few because each holds a batch.
AHEAD = 2

# Maximum number of consecutive non-finite steps to skip.
MAX_SKIPS = 20


class NonfiniteSteps:
    """Looks at the metrics of each step, some steps later, and ends the run at one not finite.

    With config.nonfinite = "skip" the step, which then changed nothing, is noted instead, in
    workdir/nonfinite.jsonl with the videos of its batch.

    Args:
        setup: of the run.
        workdir: of the run.
        checkpoints: of the run; complete when the run ends.
        report: gets the metrics, and notes.
    """

    def __init__(self, setup: Setup, workdir: epath.Path, checkpoints: Checkpoints, report: Report):
        self._setup, self._workdir = setup, workdir
        self._checkpoints, self._report = checkpoints, report
        self._path = workdir / "nonfinite.jsonl"
        self._queue: collections.deque[tuple[int, Mapping, np.ndarray]] = collections.deque()
        self._skipped = 0

    def add(self, step: int, metrics: Mapping[str, jax.Array], video_ids: np.ndarray) -> None:
        """Queues a step, whose metrics may not be computed yet."""
        self._queue.append((step, metrics, video_ids))

    def check(self, ahead: int = AHEAD) -> None:
        """Looks at the oldest steps until `ahead` are left.

        Raises:
            UserError: one is not finite, or MAX_SKIPS in a row are not.
        """
        while len(self._queue) > ahead:
            self._check(*self._queue.popleft())

    def _check(self, step: int, metrics: Mapping[str, jax.Array], video_ids: np.ndarray) -> None:
        if jax.device_get(metrics["finite"]):
            self._skipped = 0
            return
        self._skipped += 1
        values = {k: float(v) for k, v in jax.device_get(metrics).items() if k != "finite"}
        self._note(step, values, distributed.gather(video_ids))
        wrong = [key for key in ("loss", "grad_norm") if not math.isfinite(values[key])]
        what = " and ".join(f"{key} is {values[key]}" for key in wrong)
        skips = self._setup.config.nonfinite == "skip"
        if skips and self._skipped < MAX_SKIPS:
            self._report.log(
                f"note: step {step} is left out, as its {what}; {self._path} lists its videos"
            )
            return
        self._checkpoints.wait()  # to know which one is good
        many = f", as in the {MAX_SKIPS - 1} steps before it," if skips else ""
        advice = "" if skips else ", or leave such steps out with --config.nonfinite=skip"
        raise UserError(
            f"{what} at step {step}{many} of {self._workdir} ({last_good(self._workdir)}; "
            f"{self._path} lists the videos of the batch); start a new --workdir with a lower "
            f"config.optim.lr or with config.optim.clip_norm, from --config.init={self._workdir} "
            f"if there is a checkpoint{advice}"
        )

    def _note(self, step: int, values: Mapping[str, float], video_ids: np.ndarray) -> None:
        """Writes metrics and videos of a step down, on the first process."""
        self._report.scalars(step, values)
        if distributed.is_first():
            videos = self._setup.splits.videos("train")
            shown = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
            paths = [videos[i].path for i in dict.fromkeys(video_ids.tolist()) if i >= 0]
            Journal(self._path).add({"step": step, **shown, "videos": paths})
