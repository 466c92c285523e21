"""Reports of a run: lines, a progress bar, metrics, and the summary at its end."""

import json
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath

import vidjax
from vidjax import configlib, distributed, writers
from vidjax.checkpoints import Checkpoints
from vidjax.evaluators import Evaluation
from vidjax.progress import Progress
from vidjax.training import optim
from vidjax.training.program import Program
from vidjax.training.throughput import Throughput, summary


class Report:
    """Lines and a progress bar on stderr and metrics to the writers, of the first process only.

    Args:
        program: of the run.
        workdir: of the run.
        start: steps done before.

    Attributes:
        logged: names of the metrics already logged at step `start`; the same on all processes.
        log: prints a line.
    """

    def __init__(self, program: Program, workdir: epath.Path, start: int):
        self._program, self._workdir, self._start = program, workdir, start
        self._total, self._lines = program.setup.total_steps, ()
        config = program.setup.config
        self._writers = writers.build(config.writers, workdir, start, configlib.plain(config))
        self.logged = set(distributed.from_first(lambda: sorted(self._writers.known)))
        quiet = not distributed.is_first()
        self._progress = Progress(
            "step", self._total, start, text="compiling", every=math.inf, quiet=quiet
        )
        self.log: Callable[[str], None] = self._progress.message

    def announce(self, changes: Sequence[str]) -> None:
        """Prints what the config came to, and `changes` of its lists."""
        setup, config = self._program.setup, self._program.setup.config
        for line in _description(self._program):
            self.log(line)
        for line in setup.describe_evaluation():
            self.log(f"evaluation {line}")
        for line in (*setup.notices, *changes):
            self.log(f"note: {line}")
        if config.profile and not self._start < config.profile[0] <= self._total:
            self.log(f"note: no trace, as steps {config.profile} are not among those to come")

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._progress.advance(step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes metrics of a step."""
        self._writers.scalars(step, values)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Writes pictures and metrics of a step, and prints the metrics; keeps its lines."""
        self._lines = evaluation.lines
        self._writers.pictures(step, evaluation.pictures)
        if evaluation.metrics:  # written last: what stands there is not evaluated again
            self.scalars(step, evaluation.metrics)
            values = "  ".join(f"{key} {value:.4g}" for key, value in evaluation.metrics.items())
            self.log(f"step {step}: {values}")

    def step(self, step: int, values: Mapping[str, jax.Array], clock: Throughput) -> None:
        """Writes the metrics of a train step with its rate and speed, and prints the main ones."""
        values = {k: float(v) for k, v in jax.device_get(values).items() if k != "finite"}
        values |= {"lr": float(self._program.schedule(step - 1))}
        values |= clock.lap(self._total - step)
        self.scalars(step, values)
        self._progress.report(summary(values), values["seconds_left"])

    def finish(self, results: Mapping[str, float], checkpoints: Checkpoints) -> None:
        """Marks the run as done, with the last `results`; prints these, and where everything is."""
        setup, workdir = self._program.setup, self._workdir
        bad = {}
        for split in filter(setup.splits.has, ("train", "val")):
            count = np.array([setup.splits.bad_videos(split, workdir).count])
            bad[split] = int(distributed.gather(count).sum())
        if not distributed.is_first():
            return
        (workdir / "DONE").write_text(json.dumps(results, indent=1) + "\n")
        for line in self._lines:
            self.log(line)
        for split, count in bad.items():
            if count:
                path = setup.splits.bad_videos(split, workdir).path
                path = path if jax.process_count() == 1 else workdir / "bad_videos*.jsonl"
                self.log(f"bad videos of {split}: {count}, listed in {path}")
        self.log(f"checkpoint: {checkpoints.folder / str(self._total)}")
        if best := checkpoints.best:
            path = checkpoints.folder / str(best["step"])
            self.log(f"best checkpoint: {path} with {best['figure']} {best['value']:.4g}")
        self.log(f"  to use it: --checkpoint={workdir} or --config.init={workdir}")
        for place in self._writers.places:
            self.log(f"metrics: {place}")
        for picture in sorted(workdir.glob(f"*_{self._total}.png")):
            self.log(f"picture: {picture}")

    def close(self) -> None:
        self._progress.close()
        self._writers.close()


def _description(program: Program) -> list[str]:
    """Returns lines about software and machine, model, data and optimizer."""
    setup, config = program.setup, program.setup.config
    cfg, steps, total = config.data, setup.steps_per_epoch, setup.total_steps
    peak, final = optim.scaled_rates(config.optim, cfg.batch_size)
    warmup = optim.warmup_steps(config.optim, steps)
    videos = len(setup.splits.videos("train"))
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(program.state.params))
    mesh = " ".join(f"{axis}={n}" for axis, n in setup.mesh.shape.items())
    shards, unscaled = config.optim.clip_parts, config.optim.lr_batch_size
    clipped = f", clipped in {shards} shards" if shards > 1 else ""
    scaled = f" (scaled by {cfg.batch_size}/{unscaled})" if unscaled else ""
    return [
        f"vidjax {vidjax.__version__}, jax {jax.__version__}, {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}, mesh {mesh}",
        f"model {config.model.name}, head {config.model.head}: {count:,} parameters, "
        f"compute in {setup.model.dtype}",
        f"data {cfg.name}: {videos} videos, batch {cfg.batch_size} videos x "
        f"{cfg.repeats} clips in {config.grad_accum} part(s), {steps} steps per epoch{clipped}",
        f"optimizer: {total} steps = {total / steps:g} epochs, warm-up {warmup}, "
        f"peak rate {peak:.4g}, final {final:.4g}{scaled}",
    ]
