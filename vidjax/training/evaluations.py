"""The evaluators of a run: when they are due, and what comes of them."""

from collections.abc import Iterable, Mapping

from vidjax.checkpoints import Checkpoints
from vidjax.errors import UserError
from vidjax.evaluators import Evaluator, run_all
from vidjax.training.report import Report
from vidjax.training.step import TrainState


class Evaluations:
    """Runs evaluators on the state of a step, reports the results, and judges the checkpoint.

    Args:
        evaluators: name -> (evaluator, steps between its runs; 0: only after the last step).
        checkpoints: of the run; the one of the step is the latest when `best` is evaluated.
        report: gets the results.
        best: metric that decides on the best checkpoint, such as "val/top1"; "" for none.
    """

    def __init__(
        self,
        evaluators: Mapping[str, tuple[Evaluator, int]],
        checkpoints: Checkpoints,
        report: Report,
        best: str,
    ):
        self._evaluators, self._best = evaluators, best
        self._checkpoints, self._report = checkpoints, report

    @property
    def names(self) -> list[str]:
        """Names of all evaluators."""
        return list(self._evaluators)

    def due(self, step: int) -> list[str]:
        """Returns the names of those that are due after `step`."""
        evaluators = self._evaluators.items()
        return [name for name, (_, every) in evaluators if every and step and step % every == 0]

    def late(self, step: int) -> list[str]:
        """Returns those that were due when an earlier run ended at `step`, and were not done."""
        done = {metric.partition("/")[0] for metric in self._report.logged if "/" in metric}
        return [name for name in self.due(step) if name not in done]

    def decides_best(self, names: Iterable[str]) -> bool:
        """Whether one of `names` decides on the best checkpoint, which must be saved before."""
        return self._best.partition("/")[0] in names

    def run(self, names: Iterable[str], state: TrainState, step: int) -> Mapping[str, float]:
        """Evaluates the parameters of a step, or their moving average, and returns all metrics.

        Raises:
            UserError: an evaluator cannot work, or gives no metric `best`.
        """
        evaluators = {name: self._evaluators[name] for name in names}
        evaluation = run_all(evaluators, state.ema_params or state.params)
        metrics = evaluation.metrics
        if self.decides_best(names):
            if self._best not in metrics:
                raise UserError(
                    f"config.checkpoint.best is {self._best!r}, but the metrics are "
                    f"{', '.join(metrics)}"
                )
            self._checkpoints.judge(step, metrics[self._best])
        self._report.evaluation(step, evaluation)
        return metrics
