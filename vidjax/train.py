"""The train loop: `python -m vidjax.train --config=configs/videomae_k400.py:demo --workdir=...`.

One step is jitted over a mesh of all devices and consumes its state. A run is a pure function of
its config: the random key of a step is fold_in(seed, step), the data stream starts at any step, so
a resumed run equals an uninterrupted one bit for bit.
"""

import collections
import contextlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

import vidjax
from vidjax import (
    compilation,
    configlib,
    distributed,
    evaluators,
    files,
    models,
    pretrained,
    sharding,
    writers,
)
from vidjax.card import Card, write_card
from vidjax.checkpoints import Checkpoints, last_good
from vidjax.errors import Again, Interrupted, UserError, run_main
from vidjax.journal import Journal
from vidjax.progress import Progress
from vidjax.setup import Setup
from vidjax.training import optim
from vidjax.training.estimate import estimate
from vidjax.training.program import Program
from vidjax.training.start import initial_state
from vidjax.training.step import TrainState
from vidjax.training.throughput import Throughput, summary
from vidjax.training.workdir import (
    check_same_lists,
    check_workdir,
    claim_workdir,
    release_workdir,
    workdir_errors,
)

# Steps queued ahead of the device: enough to keep it busy, few because each holds a batch.
_AHEAD = 2

# Steps in a row that may be left out because they are not finite.
_SKIPS = 20


def train(config: ConfigDict, workdir: str | os.PathLike | None) -> TrainState:
    """Trains what `config` says and returns the last state.

    `workdir`, a folder or a path in a bucket that all processes see, receives config.json,
    model.json, checkpoints/, best.json, metrics.jsonl, tensorboard/, bad_videos.jsonl,
    nonfinite.jsonl, pictures, and DONE at the end. A workdir with an unfinished run of the same
    config is continued from its last checkpoint, on any number of devices and processes.

    Raises:
        UserError: for input that does not fit, and for a loss that is not finite.
        Again: SIGTERM came; what was done is saved.
    """
    setup = Setup(config)
    program = Program(setup)
    if not workdir:
        raise UserError("say where the run is written: --workdir=FOLDER")
    workdir = files.absolute(workdir)
    with (
        setup.on_mesh(),
        workdir_errors(workdir),
        contextlib.closing(_Run(program, workdir)) as run,
    ):
        return run.loop()


class _Run:
    """One run in its workdir: what the loop writes and prints."""

    def __init__(self, program: Program, workdir: epath.Path):
        self.program, self.setup, self.workdir = program, program.setup, workdir
        setup, self.total, self.schedule = self.setup, self.setup.total_steps, program.schedule
        self.changes: list[str] = []  # of lists
        config = setup.config
        distributed.from_first(self.claim)
        self.checkpoints = Checkpoints(
            workdir, config.checkpoint.keep, config.checkpoint.best, config.checkpoint.best_is
        )
        # Asked once, as not all may see at once what is new on a network's disk.
        self.start = distributed.from_first(lambda: self.checkpoints.latest_step() or 0)
        first = distributed.is_first()
        self.writers = writers.build(config.writers, workdir, self.start, configlib.plain(config))
        self.known = set(distributed.from_first(lambda: sorted(self.writers.known)))
        self.progress = Progress(
            "step", self.total, self.start, text="compiling", every=math.inf, quiet=not first
        )
        self.say = self.progress.message
        self.skipped, self.traces = 0, False
        self.preemption = distributed.Preemption()

    def claim(self) -> None:
        setup, config = self.setup, self.setup.config
        if config.profile and files.is_remote(self.workdir):
            raise UserError(
                f"config.profile = {config.profile} needs a --workdir on a disk, as the profiler "
                f"writes to disks only"
            )
        defaults = configlib.plain(configlib.base())
        claim_workdir(self.workdir, configlib.plain(config), defaults)
        self.changes = check_same_lists(
            self.workdir, setup.lists(), config.data.allow_changed_lists
        )
        card = Card(
            model=models.config_of(setup.model),
            preprocessing=evaluators.with_views(setup.preprocessing, config.evals.to_dict()),
            classes=setup.classes if setup.learns_classes else None,
            provenance={
                "source": config.init or "random",
                "format": "vidjax",
                "vidjax": vidjax.__version__,
                "objective": configlib.plain(config)["objective"],
                "kept": setup.kept,
            },
            tokenizer=setup.tokenizer and pretrained.keep_tokenizer(setup.tokenizer, self.workdir),
        )
        write_card(self.workdir, card)

    def loop(self) -> TrainState:
        setup = self.setup
        evaluators = setup.evaluators(self.workdir, between=self.check_preemption)
        self.announce()
        if self.start:
            self.say(f"start: continuing at step {self.start} of {self.workdir}")
            state = self.checkpoints.restore(self.start, self.program.state)
        else:
            state = initial_state(self.program, self.say)
        # Evaluations that were due when the run ended, and were not done.
        done = {name.partition("/")[0] for name in self.known if "/" in name}
        late = {k: v for k, v in self.due(evaluators, self.start).items() if k not in done}
        if self.start < self.total:
            self.evaluate(late, state, self.start)
        with contextlib.closing(setup.train_batches(self.start, self.workdir)) as batches:
            state = self.steps(state, batches, evaluators)
        results = self.evaluate(evaluators, state, self.total)
        self.checkpoints.wait()
        bad = {}
        for split in filter(setup.has, ("train", "val")):
            count = np.array([setup.bad_videos(split, self.workdir).count])
            bad[split] = int(distributed.gather(count).sum())
        if distributed.is_first():
            self.finish(results, bad)
        if self.preemption.interrupted:  # too late to save less than everything
            raise Interrupted("interrupted: the run is complete")
        return state

    def steps(self, state: TrainState, batches, evaluators) -> TrainState:
        setup, config = self.setup, self.setup.config
        clock = Throughput(setup.clips_per_step)
        queued: collections.deque[tuple[int, Mapping, np.ndarray]] = collections.deque()
        first, last = config.profile or (0, 0)  # of the trace
        for step in range(self.start + 1, self.total + 1):
            if step == first:
                jax.profiler.start_trace(str(self.workdir / "profile"))
                self.traces = True
            with clock.spent("data"):
                host = next(batches)
                batch = sharding.put_batch(host, setup.mesh)
            state, figures = self.program.train_step(state, batch)
            self.preemption.has_steps = True
            clock.step()
            queued.append((step, figures, host["video_id"]))
            due = self.due(evaluators, step)
            save = step % config.checkpoint.every == 0 or step == self.total
            save |= config.checkpoint.best.split("/")[0] in due
            report = step % config.log_every == 0 or step == self.total
            end = self.preemption.asked()
            # Figures are looked at before a save: a state that is not finite must not replace one
            # that is.
            while len(queued) > (0 if save or report or due or end or step == last else _AHEAD):
                self.check(*queued.popleft())
            if step == last:
                self.end_trace()
            self.progress.advance(step)
            if save:
                check_workdir(self.workdir)
                with clock.spent("checkpoint"):
                    self.checkpoints.save(step, state)
            if report:
                self.report(step, jax.device_get(figures), clock)
            if end:
                self.end(step, state)
            if step < self.total and due:
                self.evaluate(due, state, step)
                clock.restart()
        return state

    def end_trace(self) -> None:
        if self.traces:
            self.traces = False
            jax.profiler.stop_trace()
            self.say(f"trace: {self.workdir / 'profile'}")

    def due(self, evaluators: Mapping, step: int) -> dict[str, Any]:
        return {k: v for k, v in evaluators.items() if v[1] and step and step % v[1] == 0}

    def check(self, step: int, figures: Mapping, video_ids: np.ndarray) -> None:
        """Waits for a step, and stops or notes that it was left out if it is not finite."""
        if jax.device_get(figures["finite"]):
            self.skipped = 0
            return
        self.skipped += 1
        values = {k: float(v) for k, v in jax.device_get(figures).items() if k != "finite"}
        ids = distributed.gather(video_ids)
        path = self.workdir / "nonfinite.jsonl"
        self.writers.scalars(step, values)
        if distributed.is_first():
            videos = self.setup.videos("train")
            shown = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
            paths = [videos[i].path for i in dict.fromkeys(ids.tolist()) if i >= 0]
            Journal(path).add({"step": step, **shown, "videos": paths})
        wrong = [key for key in ("loss", "grad_norm") if not math.isfinite(values[key])]
        which = " and ".join(f"{key} is {values[key]}" for key in wrong)
        skip = self.setup.config.nonfinite == "skip"
        if skip and self.skipped < _SKIPS:
            self.say(f"note: step {step} is left out, as its {which}; {path} lists its videos")
            return
        self.checkpoints.wait()  # to know which one is good
        many = f", as in the {_SKIPS - 1} steps before it," if skip else ""
        raise UserError(
            f"{which} at step {step}{many} of {self.workdir} "
            f"({last_good(self.workdir)}; {path} lists "
            f"the videos of the batch); start a new --workdir with a lower config.optim.lr or with "
            f"config.optim.clip_norm, from --config.init={self.workdir} if there is a checkpoint"
            + ("" if skip else ", or leave such steps out with --config.nonfinite=skip")
        )

    def report(self, step: int, figures: Mapping, clock: Throughput) -> None:
        figures = {key: float(value) for key, value in figures.items() if key != "finite"}
        figures |= {"lr": float(self.schedule(step - 1))} | clock.lap(self.total - step)
        self.writers.scalars(step, figures)
        self.progress.report(summary(figures), figures["seconds_left"])

    def evaluate(self, due: Mapping, state: TrainState, step: int) -> dict[str, float]:
        try:
            found = evaluators.run_all(due, state.ema_params or state.params)
        except Again:
            self.end(step, state)
        self.writers.pictures(step, found.pictures)
        results = found.metrics
        best = self.setup.config.checkpoint.best
        if best.split("/")[0] in due:
            if best not in results:
                raise UserError(
                    f"config.checkpoint.best is {best!r}, but the figures are {', '.join(results)}"
                )
            self.checkpoints.judge(step, results[best])
        if results:  # written last: what stands there is not evaluated again
            self.writers.scalars(step, results)
            self.say(f"step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in results.items()))
        return results

    def check_preemption(self) -> None:
        if self.preemption.asked():
            raise Again

    def end(self, step: int, state: TrainState) -> None:
        check_workdir(self.workdir)
        self.checkpoints.save(step, state)
        self.checkpoints.wait()
        saved = f"step {step} is saved, the same command continues from there"
        if self.preemption.interrupted:
            raise Interrupted(f"interrupted: {saved}")
        raise Again(f"asked to end: {saved}")

    def announce(self) -> None:
        """Prints, once, what the config came to."""
        setup, config = self.setup, self.setup.config
        cfg, steps = config.data, setup.steps_per_epoch
        peak, final = optim.scaled_rates(config.optim, cfg.batch_size)
        warmup = optim.warmup_steps(config.optim, steps)
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(self.program.state.params))
        mesh = " ".join(f"{axis}={n}" for axis, n in setup.mesh.shape.items())
        self.say(
            f"vidjax {vidjax.__version__}, jax {jax.__version__}, {jax.device_count()} x "
            f"{jax.devices()[0].device_kind}, mesh {mesh}"
        )
        self.say(
            f"model {config.model.name}, head {config.model.head}: {count:,} parameters, "
            f"compute in {setup.model.dtype}"
        )
        self.say(
            f"data {cfg.name}: {len(setup.videos('train'))} videos, batch {cfg.batch_size} "
            f"videos x {cfg.repeats} clips in {config.grad_accum} part(s), {steps} steps per epoch"
            + (f", clipped in {n} shards" if (n := config.optim.clip_parts) > 1 else "")
        )
        self.say(
            f"optimizer: {self.total} steps = {self.total / steps:g} epochs, warm-up {warmup}, "
            f"peak rate {peak:.4g}, final {final:.4g}"
            + (f" (scaled by {cfg.batch_size}/{n})" if (n := config.optim.lr_batch_size) else "")
        )
        for line in setup.describe_evaluation():
            self.say(f"evaluation {line}")
        for line in (*setup.notices, *self.changes):
            self.say(f"note: {line}")
        if config.profile and not self.start < config.profile[0] <= self.total:
            self.say(f"note: no trace, as steps {config.profile} are not among those to come")

    def finish(self, results: dict[str, float], bad: dict[str, int]) -> None:
        (self.workdir / "DONE").write_text(json.dumps(results, indent=1) + "\n")
        for split, count in bad.items():
            if count:
                where = self.setup.bad_videos(split, self.workdir).path
                where = where if jax.process_count() == 1 else self.workdir / "bad_videos*.jsonl"
                self.say(f"bad videos of {split}: {count}, listed in {where}")
        self.say(f"checkpoint: {self.checkpoints.folder / str(self.total)}")
        if best := self.checkpoints.best:
            place = self.checkpoints.folder / str(best["step"])
            self.say(f"best checkpoint: {place} with {best['figure']} {best['value']:.4g}")
        self.say(f"  to use it: --checkpoint={self.workdir} or --config.init={self.workdir}")
        for place in self.writers.places:
            self.say(f"metrics: {place}")
        for picture in sorted(self.workdir.glob(f"*_{self.total}.png")):
            self.say(f"picture: {picture}")

    def close(self) -> None:
        self.preemption.close()
        self.end_trace()
        self.progress.close()
        self.writers.close()
        self.checkpoints.close()
        release_workdir(self.workdir)


def main(argv: list[str]) -> None:
    config = flags.FLAGS.config
    if len(argv) > 1:
        raise UserError(f"unexpected {argv[1:]}; overrides look like --config.optim.lr=1e-3")
    if config is None:
        raise UserError("say what to train: --config=configs/videomae_k400.py:demo")
    with distributed.session():
        compilation.keep_programs()
        if not config.estimate:
            train(config, flags.FLAGS.workdir)
            return
        for key, value in estimate(config).items():
            unit = f" = {value / 2**20:,.1f} MiB per device" if key.endswith("bytes") else ""
            print(f"{key}: {value:,}{unit}")


if __name__ == "__main__":
    configlib.define_flag()
    distributed.define_flags()
    flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and pictures.")
    run_main(
        main,
        configlib.parse_flags,
        interrupted="interrupted; the same command continues from the last checkpoint, if there is "
        "one",
    )
